//! The way through a forward proxy: `CONNECT`, then the connection is the origin's (RFC 9110 §9.3.6).
//!
//! Called by `dial`, before TLS. What the proxy answers is never passed on: only its status counts.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tollgate_snapshot::cluster::Tunnel;

use crate::dial::reach;
use crate::failure::DialFailure;

/// The longest answer to a `CONNECT`.
const MOST_ANSWER: usize = 16 * 1024;
/// Header lines of it.
const MOST_LINES: usize = 64;

/// A connection to the proxy at `address` that leads to where `tunnel` says.
pub(crate) async fn open(address: SocketAddr, tunnel: &Tunnel) -> Result<TcpStream, DialFailure> {
    let opening = async {
        let mut tcp = reach(address).await?;
        ask(&mut tcp, &tunnel.authority).await.map_err(|cause| {
            DialFailure::Failed(format!(
                "forward proxy {address}, CONNECT {}: {cause}",
                tunnel.authority
            ))
        })?;
        Ok(tcp)
    };
    timeout(tunnel.timeout, opening).await.unwrap_or_else(|_| {
        let limit = tunnel.timeout.as_millis();
        Err(DialFailure::Failed(format!(
            "forward proxy {address}, CONNECT {}: nothing within {limit} ms",
            tunnel.authority
        )))
    })
}

async fn ask(tcp: &mut TcpStream, authority: &str) -> Result<(), String> {
    let question = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    tcp.write_all(question.as_bytes())
        .await
        .map_err(|cause| cause.to_string())?;
    let mut answer = Vec::new();
    loop {
        if let Some((status, length)) = status(&answer)? {
            if !(200..300).contains(&status) {
                return Err(format!("status {status}"));
            }
            // The origin's first word comes after ours.
            return match length == answer.len() {
                true => Ok(()),
                false => Err("bytes that nobody asked for behind its answer".to_owned()),
            };
        }
        if answer.len() > MOST_ANSWER {
            return Err(format!("an answer of more than {MOST_ANSWER} bytes"));
        }
        let read = tcp
            .read_buf(&mut answer)
            .await
            .map_err(|cause| cause.to_string())?;
        if read == 0 {
            return Err("closed without an answer".to_owned());
        }
    }
}

/// Status and length of a whole head; `None` while it is not. What it says of a body means nothing, so that the reader of
/// answers (`http1::head`) would refuse proxies that do no harm.
fn status(answer: &[u8]) -> Result<Option<(u16, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_LINES];
    let mut head = httparse::Response::new(&mut headers);
    match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => Ok(head.code.map(|code| (code, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(cause) => Err(format!("its answer is no HTTP: {cause}")),
    }
}
