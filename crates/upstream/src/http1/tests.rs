//! Heads under attack: whatever way bytes are split, and whatever is wrong with them.

use bytes::{Bytes, BytesMut};
use http::Method;
use tollgate_body::http1::Framing;

use super::head::{Head, HeadReader};

/// The head of `bytes` when they come in pieces of `step`, and what is left behind it.
fn head_of(method: &Method, bytes: &[u8], step: usize) -> Result<Option<(Head, Bytes)>, &'static str> {
    let mut reader = HeadReader::default();
    for (index, piece) in bytes.chunks(step).enumerate() {
        let mut input = BytesMut::from(piece);
        if let Some(head) = reader.take(method, &mut input)? {
            let mut rest = input;
            rest.extend_from_slice(&bytes[((index + 1) * step).min(bytes.len())..]);
            return Ok(Some((head, rest.freeze())));
        }
    }
    Ok(None)
}

fn get(text: &str) -> Result<Head, &'static str> {
    head_of(&Method::GET, text.as_bytes(), text.len()).map(|head| head.expect("a whole head").0)
}

#[test]
fn a_head_is_the_same_however_it_is_split() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nX-A: 1\r\ncontent-length: 3\r\nx-a:\t2 \r\nx-b:\r\n\r\nabc";
    for step in 1..=bytes.len() {
        let (head, rest) = head_of(&Method::GET, bytes, step).expect("valid").expect("whole");
        assert_eq!(head.parts.status, 200);
        let values: Vec<_> = head.parts.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"], "{step}");
        assert_eq!(head.parts.headers["x-b"], "");
        assert!(matches!(head.framing, Framing::Length(3)) && head.persistent);
        let reason = head
            .parts
            .extensions
            .get::<hyper::ext::ReasonPhrase>()
            .expect("a reason");
        assert_eq!(reason.as_bytes(), b"Fine");
        assert_eq!(rest, "abc", "{step}");
    }
}

#[test]
fn framing_is_what_the_head_says() {
    let framing = |method: Method, text: &str| {
        let bytes = format!("HTTP/1.1 {text}\r\n\r\n");
        head_of(&method, bytes.as_bytes(), bytes.len()).map(|head| head.expect("whole").0.framing)
    };
    let get = |text: &str| framing(Method::GET, text);
    assert!(matches!(
        get("200 OK\r\ncontent-length: 7"),
        Ok(Framing::Length(7))
    ));
    assert!(matches!(
        get("200 OK\r\ncontent-length: 7, 7\r\nContent-Length: 07"),
        Ok(Framing::Length(7))
    ));
    assert!(matches!(
        get("200 OK\r\ntransfer-encoding: Chunked"),
        Ok(Framing::Chunked(_))
    ));
    assert!(matches!(get("200 OK"), Ok(Framing::UntilClose)));
    for none in [
        "204 No Content",
        "304 Not Modified\r\ncontent-length: 9",
        "101 Switching Protocols",
    ] {
        assert!(matches!(get(none), Ok(Framing::Length(0))), "{none}");
    }
    assert!(matches!(
        framing(Method::HEAD, "200 OK\r\ncontent-length: 9"),
        Ok(Framing::Length(0))
    ));
    let twice = super::tests::get("HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 7\r\n\r\n")
        .expect("valid");
    assert_eq!(twice.parts.headers.get_all("content-length").iter().count(), 1);
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: a\r\n".repeat(101));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(65) + "HTTP/1.1 200 OK\r\n\r\n";
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7, 8\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +7\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -7\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x7\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7 7\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7,\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 7\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\n x: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx\u{e9}: a\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
        long.as_str(),
        many.as_str(),
        interim.as_str(),
    ] {
        for step in [1, 5, text.len()] {
            let outcome = head_of(&Method::GET, text.as_bytes(), step);
            assert!(outcome.is_err(), "{:?} by {step}", text.get(..80).unwrap_or(text));
        }
    }
}

#[test]
fn a_head_without_an_end_is_limited() {
    let mut reader = HeadReader::default();
    let mut refused = None;
    let mut input = BytesMut::from(&b"HTTP/1.1 200 OK\r\nx: "[..]);
    assert!(matches!(reader.take(&Method::GET, &mut input), Ok(None)));
    for _ in 0..100 {
        let mut input = BytesMut::from(&[b'a'; 1024][..]);
        refused = reader.take(&Method::GET, &mut input).err();
        if refused.is_some() {
            break;
        }
    }
    // Without a line end nobody looks at it but at its size.
    assert_eq!(refused, Some("message head is too large"));
}

#[test]
fn a_connection_is_kept_where_both_sides_agree() {
    for (text, kept) in [
        ("1.1 200 OK\r\ncontent-length: 0", true),
        ("1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close", false),
        ("1.1 200 OK", false),
        ("1.0 200 OK\r\ncontent-length: 0", false),
        ("1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive", true),
        (
            "1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive, close",
            false,
        ),
    ] {
        let head = get(&format!("HTTP/{text}\r\n\r\n")).expect("valid");
        assert_eq!(head.persistent, kept, "{text}");
    }
}
