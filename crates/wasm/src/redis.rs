//! Redis calls: a module sends one command in Redis's own protocol and gets the reply as it came.
//!
//! Commands go over one connection per instance and cluster, in order. A connection that breaks or whose reply is late
//! is given up, and its reply is an error; the next command makes a new one.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tollgate_plugin::Caller;

use crate::share::Share;
use crate::state::{RedisSetting, State};

/// Largest reply, in bytes.
const REPLY_LIMIT: usize = 16 * 1024 * 1024;
/// Deepest nesting of arrays in a reply.
const DEPTH_LIMIT: usize = 16;

/// A connection to one cluster; whoever holds the lock has the line to itself.
pub(crate) type Line = Rc<Mutex<Option<Connection>>>;

/// Connections of one instance.
pub(crate) type Lines = HashMap<String, Line>;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

/// An instance's line to a cluster, and how it introduces itself there.
pub(crate) fn line(state: &mut State, cluster: &str) -> (RedisSetting, Line) {
    let setting = state.redis.get(cluster).cloned().unwrap_or_default();
    (
        setting,
        state.lines_to.entry(cluster.to_owned()).or_default().clone(),
    )
}

/// Sends `query` and waits for its reply.
pub(crate) async fn call(
    line: Line,
    caller: &dyn Caller,
    cluster: &str,
    setting: RedisSetting,
    query: Bytes,
    share: &mut Share,
) -> io::Result<Bytes> {
    let timeout = setting.timeout;
    let work = async {
        let mut line = line.lock().await;
        // Taken out: whatever cuts this short leaves no half-read connection behind.
        let kept = line.take().filter(Connection::is_open);
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(caller, cluster, &setting, share).await?,
        };
        let reply = connection.ask(&query, share).await?;
        *line = Some(connection);
        Ok(reply)
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(reply) => reply,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn connect(
    caller: &dyn Caller,
    cluster: &str,
    setting: &RedisSetting,
    share: &mut Share,
) -> io::Result<Connection> {
    let address = caller
        .address(cluster)
        .await
        .map_err(|cause| io::Error::other(cause.to_string()))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection {
        stream,
        read: BytesMut::new(),
    };
    let (user, password) = (setting.username.as_str(), setting.password.as_str());
    if !password.is_empty() {
        let parts: &[&str] = match user.is_empty() {
            true => &["AUTH", password],
            false => &["AUTH", user, password],
        };
        connection.introduce(parts, share).await?;
    }
    if setting.database != 0 {
        connection
            .introduce(&["SELECT", &setting.database.to_string()], share)
            .await?;
    }
    Ok(connection)
}

impl Connection {
    /// Whether the server has not closed it while nothing was asked. Only this is tried anew: a command that was sent
    /// may have been done.
    fn is_open(&self) -> bool {
        let said = self.stream.try_read(&mut [0]);
        self.read.is_empty() && said.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
    }

    async fn introduce(&mut self, parts: &[&str], share: &mut Share) -> io::Result<()> {
        let mut query = format!("*{}\r\n", parts.len());
        for part in parts {
            query.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        // A refusal is not told here: the command itself will be refused, with Redis's own words for the module.
        self.ask(query.as_bytes(), share).await.map(drop)
    }

    async fn ask(&mut self, query: &[u8], share: &mut Share) -> io::Result<Bytes> {
        self.stream.write_all(query).await?;
        loop {
            if let Some(length) = reply_length(&self.read)? {
                let reply = self.read.copy_to_bytes(length);
                return Ok(reply);
            }
            if self.read.len() > REPLY_LIMIT {
                return Err(io::Error::other("the reply is too large"));
            }
            match self.stream.read_buf(&mut self.read).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length if !share.grow(length) => {
                    return Err(io::Error::other("the replies of all calls are too large"));
                }
                _ => {}
            }
        }
    }
}

/// Length of the first whole reply in `bytes`; `None`: not all of it is there.
fn reply_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut at = 0;
    // How many replies are still to come at each level.
    let mut open = vec![1_u64];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let (Some(kind), Some(text)) = (rest.first(), rest.get(1..end)) else {
            return Err(io::Error::other("not a Redis reply"));
        };
        at += end + 2;
        let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        let number = || number().ok_or_else(|| io::Error::other("not a Redis reply"));
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => {
                if let Ok(size) = usize::try_from(number()?) {
                    at = at.saturating_add(size).saturating_add(2);
                }
            }
            b'*' | b'~' | b'>' => open.push(u64::try_from(number()?).unwrap_or(0)),
            b'%' => open.push(u64::try_from(number()?).unwrap_or(0).saturating_mul(2)),
            _ => return Err(io::Error::other("not a Redis reply")),
        }
        if open.len() > DEPTH_LIMIT {
            return Err(io::Error::other("the reply is nested too deeply"));
        }
        if at > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_where_redis_says() {
        for reply in [
            "+OK\r\n",
            "-NOAUTH Authentication required.\r\n",
            ":42\r\n",
            "$5\r\nhello\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n:10\r\n$1\r\n3\r\n*2\r\n+a\r\n:1\r\n",
            "%1\r\n+a\r\n:1\r\n",
        ] {
            let with_more = format!("{reply}+next\r\n");
            assert_eq!(
                reply_length(with_more.as_bytes()).unwrap(),
                Some(reply.len()),
                "{reply}"
            );
            for cut in 0..reply.len() {
                assert_eq!(
                    reply_length(&reply.as_bytes()[..cut]).unwrap(),
                    None,
                    "{reply} at {cut}"
                );
            }
        }
        for bad in ["HTTP/1.1 400\r\n", "$x\r\n", "\r\n"] {
            assert!(reply_length(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "*1\r\n".repeat(20);
        assert!(reply_length(deep.as_bytes()).is_err());
    }
}
