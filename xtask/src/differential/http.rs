//! As much HTTP/1.1 as two sides on one machine need: one message a connection, lengths or chunks, no more.

use std::io::{self, BufRead, Read};

/// A request or an answer: its first line, its fields in order with names in lower case, its body.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message {
    pub(super) start: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads one message; of a request without a length there is no body, of an answer it lasts to the end.
    pub(super) fn read(mut from: impl BufRead, is_request: bool) -> io::Result<Self> {
        let mut message = Self {
            start: line(&mut from)?,
            ..Self::default()
        };
        loop {
            let text = line(&mut from)?;
            let Some((name, value)) = text.split_once(':') else {
                break;
            };
            let field = (name.to_ascii_lowercase(), value.trim().to_owned());
            message.fields.push(field);
        }
        let is_chunked = message.field("transfer-encoding") == Some("chunked");
        let length = message
            .field("content-length")
            .and_then(|length| length.parse().ok());
        match (is_chunked, length) {
            (true, _) => chunks(&mut from, &mut message.body)?,
            (false, Some(length)) => drop(from.take(length).read_to_end(&mut message.body)?),
            (false, None) if is_request => {}
            (false, None) => drop(from.read_to_end(&mut message.body)?),
        }
        Ok(message)
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    from.read_line(&mut text)?;
    Ok(text.trim_end().to_owned())
}

fn chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(from)?;
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| io::Error::other("a chunk without a size"))?;
        from.by_ref().take(size).read_to_end(body)?;
        line(from)?;
        if size == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_a_length_or_chunks_or_last_to_the_end() {
        for (text, is_request, body) in [
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc", true, "ab"),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nabc", true, ""),
            ("HTTP/1.1 200 OK\r\n\r\nabc", false, "abc"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n",
                false,
                "abc",
            ),
        ] {
            let message = Message::read(text.as_bytes(), is_request).unwrap();
            assert_eq!(message.body, body.as_bytes(), "{text}");
        }
        let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx";
        assert!(Message::read(cut.as_bytes(), false).is_err());
    }
}
