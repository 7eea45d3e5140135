//! Framing under attack: whatever way bytes are split, and whatever is wrong with them.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName};

use super::decoder::{Chunked, Framing};
use super::fields::{common, write_number};

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
        outcome.excess = read.excess > 0;
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

#[test]
fn the_shortcut_gives_the_same_names() {
    for name in [
        "date",
        "Host",
        "ACCEPT",
        "server",
        "Connection",
        "user-agent",
        "content-type",
        "x-request-id",
        "authorization",
        "cache-control",
        "Content-Length",
        "accept-encoding",
        "x-forwarded-for",
        "transfer-encoding",
        "X-Forwarded-Proto",
    ] {
        let known = common(name.as_bytes());
        assert_eq!(known, HeaderName::from_bytes(name.as_bytes()).ok(), "{name}");
        assert!(known.is_some(), "{name}");
    }
    for other in [
        "",
        "h",
        "hosu",
        "host ",
        "\u{8}ost",
        "content-typf",
        "x-real-ip",
        "accept-language",
    ] {
        assert_eq!(common(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn numbers_are_written_in_digits() {
    for number in [0, 7, 10, 12_345, u64::MAX] {
        let mut out = Vec::new();
        write_number(&mut out, number);
        assert_eq!(out, number.to_string().as_bytes());
    }
}
