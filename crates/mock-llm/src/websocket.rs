//! A WebSocket that echoes: the handshake and the frames of RFC 6455, no extensions.
//!
//! Text and binary messages come back as they came, fragments as fragments; a ping gets its pong, a close its
//! close. The message `!close 4001` makes the mock close with that code, `!drop` cuts the connection.

use std::io;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The largest frame in bytes; a larger one is answered with close code 1009.
const LARGEST: u64 = 16 * 1024 * 1024;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The value of `sec-websocket-accept` for a key.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(MAGIC);
    STANDARD.encode(context.finish())
}

/// The answer to a handshake; `None` if the request is none.
pub(crate) fn handshake(headers: &HeaderMap) -> Option<Response<()>> {
    let upgrades = headers
        .get(UPGRADE)?
        .to_str()
        .ok()?
        .eq_ignore_ascii_case("websocket");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| upgrades)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(
        SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&accept(key.as_bytes())).ok()?,
    );
    let offered = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok());
    if let Some(first) = offered.and_then(|offered| offered.split(',').next()) {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(first.trim()).ok()?);
    }
    Some(response)
}

struct Frame {
    /// The last of its message.
    last: bool,
    code: u8,
    payload: Vec<u8>,
}

/// The next frame; an error for one that is masked wrongly or too large.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Result<Frame, u16>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let [first, second] = head;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 {
        return Ok(Err(1002));
    }
    let Some(length) = usize::try_from(length).ok().filter(|_| length <= LARGEST) else {
        return Ok(Err(1009));
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Ok(Frame {
        last: first & 0x80 != 0,
        code: first & 0x0f,
        payload,
    }))
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    last: bool,
    code: u8,
    payload: &[u8],
) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(if last { 0x80 | code } else { code });
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => frame.push(short),
        (_, Ok(middle)) => {
            frame.push(126);
            frame.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Echoes until either side closes.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    loop {
        let frame = match read(&mut stream).await? {
            Ok(frame) => frame,
            Err(code) => return write(&mut stream, true, CLOSE, &code.to_be_bytes()).await,
        };
        match frame.code {
            CLOSE => return write(&mut stream, true, CLOSE, &frame.payload).await,
            PING => write(&mut stream, true, PONG, &frame.payload).await?,
            PONG => {}
            TEXT if frame.payload == b"!drop" => return Ok(()),
            TEXT if frame.payload.starts_with(b"!close ") => {
                let code = String::from_utf8_lossy(&frame.payload[7..])
                    .trim()
                    .parse()
                    .unwrap_or(1000u16);
                return write(&mut stream, true, CLOSE, &code.to_be_bytes()).await;
            }
            code => write(&mut stream, frame.last, code, &frame.payload).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_key_has_the_rfcs_answer() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
