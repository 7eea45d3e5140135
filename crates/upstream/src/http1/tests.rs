//! Framing under attack: whatever way bytes are split, and whatever is wrong with them.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};

use super::decoder::{Chunked, Framing};
use super::head::{Head, HeadReader};

/// What came of a body that arrived in pieces of `step` bytes.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    excess: bool,
    broken: Option<&'static str>,
}

fn decoded(mut framing: Framing, bytes: &[u8], step: usize) -> Outcome {
    let mut outcome = Outcome::default();
    for piece in bytes.chunks(step) {
        if outcome.ended {
            outcome.excess = true;
            break;
        }
        let read = framing.decode(&mut BytesMut::from(piece));
        outcome.data.extend_from_slice(&read.data);
        outcome.trailers = read.trailers.map(|trailers| *trailers);
        outcome.ended = read.ended;
        outcome.excess = read.excess;
        outcome.broken = read.broken;
        if outcome.broken.is_some() {
            break;
        }
    }
    outcome
}

fn chunked(bytes: &[u8], step: usize) -> Outcome {
    decoded(Framing::Chunked(Chunked::default()), bytes, step)
}

fn every_step(bytes: &[u8], check: impl Fn(Outcome, usize)) {
    for step in 1..=bytes.len() {
        check(chunked(bytes, step), step);
    }
}

#[test]
fn chunks_come_out_the_same_however_they_are_split() {
    let bytes = b"5\r\nhello\r\n0A ;x=\"y\"\r\n, wide\r\n\r\n\r\n1 \r\n!\r\n000\r\n\r\n";
    every_step(bytes, |outcome, step| {
        assert_eq!(outcome.data, b"hello, wide\r\n\r\n!", "{step}");
        assert!(
            outcome.ended && !outcome.excess && outcome.broken.is_none(),
            "{outcome:?}"
        );
    });
}

#[test]
fn trailers_follow_and_cannot_frame_anything() {
    let bytes =
        b"1\r\na\r\n0\r\ngrpc-status: 0\r\ncontent-length: 7\r\nTransfer-Encoding: x\r\nx-a: \r\n\r\n";
    every_step(bytes, |outcome, step| {
        let trailers = outcome.trailers.expect("trailers");
        assert!(outcome.ended, "{step}");
        assert_eq!(trailers.len(), 2, "{trailers:?}");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-a"], "");
    });
}

#[test]
fn what_follows_the_end_is_not_part_of_it() {
    let outcome = chunked(b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", 1000);
    assert!(outcome.ended && outcome.excess);
    assert_eq!(outcome.data, b"a");
    let outcome = decoded(Framing::Length(3), b"abcd", 1000);
    assert!(outcome.ended && outcome.excess);
    assert_eq!(outcome.data, b"abc");
}

#[test]
fn a_wrong_chunk_breaks_the_body_behind_what_was_right() {
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(20_000));
    let trailer = format!("1\r\na\r\n0\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let trailers = format!("1\r\na\r\n0\r\n{}\r\n", "x: 1\r\n".repeat(101));
    for (bytes, data) in [
        ("\r\n", ""),
        ("\n", ""),
        (" 1\r\na\r\n", ""),
        ("-1\r\na\r\n", ""),
        ("+1\r\na\r\n", ""),
        ("0x1\r\na\r\n", ""),
        ("g\r\n", ""),
        (";x\r\n", ""),
        ("1\na\r\n", ""),
        ("1;x\na\r\n", ""),
        ("1\r\r\na\r\n", ""),
        ("1 1\r\na\r\n", ""),
        ("1\r\nab\r\n", "a"),
        ("1\r\na\n", "a"),
        ("1\r\na\r\r", "a"),
        ("1\r\na\r\n\r\n", "a"),
        ("1\r\na\r\n0\r\nx: 1\n\r\n", "a"),
        ("1\r\na\r\n0\r\n\n", "a"),
        ("1\r\na\r\n0\r\nno colon\r\n\r\n", "a"),
        ("1\r\na\r\n0\r\nx : 1\r\n\r\n", "a"),
        ("1\r\na\r\n0\r\nx: 1\r\n folded\r\n\r\n", "a"),
        ("1\r\na\r\n0\r\nx: \u{1}\r\n\r\n", "a"),
        ("11111111111111111\r\n", ""),
        ("ffffffffffffffffff\r\n", ""),
        (extension.as_str(), ""),
        (trailer.as_str(), "a"),
        (trailers.as_str(), "a"),
    ] {
        for step in [1, 2, 3, 7, bytes.len()] {
            let outcome = chunked(bytes.as_bytes(), step);
            let shown = bytes.get(..40).unwrap_or(bytes);
            assert!(outcome.broken.is_some(), "{shown:?} by {step}: {outcome:?}");
            assert_eq!(outcome.data, data.as_bytes(), "{shown:?} by {step}");
        }
    }
}

#[test]
fn a_chunk_that_never_comes_is_no_end() {
    let whole = b"3\r\nabc\r\n0\r\nx: 1\r\n\r\n";
    for length in 0..whole.len() {
        let outcome = chunked(&whole[..length], 1000);
        assert!(
            !outcome.ended && outcome.broken.is_none(),
            "{length}: {outcome:?}"
        );
    }
    assert!(chunked(b"ffffffffffffffff\r\nabc", 1000).data == b"abc");
}

#[test]
fn large_payload_keeps_its_memory_and_small_payload_does_not() {
    let mut input = BytesMut::from(&b"2000\r\n"[..]);
    input.extend_from_slice(&[b'x'; 0x2000]);
    let at = input.as_ptr() as usize;
    let large = Framing::Chunked(Chunked::default()).decode(&mut input).data;
    assert_eq!((large.len(), large.as_ptr() as usize), (0x2000, at + 6));
    let mut input = BytesMut::from(&b"abc"[..]);
    let at = input.as_ptr();
    assert_ne!(Framing::UntilClose.decode(&mut input).data.as_ptr(), at);
}

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
