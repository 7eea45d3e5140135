//! Requests under attack, whatever way their bytes are split, and answers as they stand on the wire.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_base::Error;
use tollgate_body::{Body, Source};

use super::wire::Inbound;
use super::*;
use crate::pulse::Pulse;

const LIMIT: usize = 4096;

/// A request as it was understood.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Why the body cannot be read to its end.
    broken: Option<&'static str>,
}

/// What comes of bytes that arrive in pieces of these sizes, the last of which repeats: requests, and why there are no
/// more.
fn requests(bytes: &[u8], sizes: &[usize]) -> (Vec<Seen>, Option<Refusal>) {
    let mut inbound = Inbound::new(Vec::new());
    let mut all: Vec<Seen> = Vec::new();
    let mut is_open = false;
    let mut rest = bytes;
    let mut turn = 0;
    loop {
        let mut input = BytesMut::from(&inbound.take_waiting()[..]);
        if input.is_empty() {
            if rest.is_empty() {
                return (all, None);
            }
            let size = *sizes.get(turn).or(sizes.last()).expect("a size");
            turn += 1;
            let (piece, others) = rest.split_at(size.clamp(1, rest.len()));
            rest = others;
            input = BytesMut::from(piece);
        }
        let read = if is_open {
            inbound.read_body(&mut input)
        } else {
            match inbound.accept(&mut input, LIMIT) {
                None => continue,
                Some(Err(refusal)) => return (all, Some(refusal)),
                Some(Ok(arrived)) => {
                    let parts = arrived.head.parts;
                    all.push(Seen {
                        line: format!("{} {} {:?}", parts.method, parts.uri, parts.version),
                        headers: parts.headers,
                        body: Vec::new(),
                        trailers: None,
                        broken: None,
                    });
                    arrived.early
                }
            }
        };
        let last = all.last_mut().expect("a request");
        last.body.extend_from_slice(&read.data);
        last.trailers = read.trailers.map(|trailers| *trailers);
        last.broken = read.broken;
        is_open = !read.ended;
        if last.broken.is_some() {
            return (all, None);
        }
    }
}

fn one(text: &str) -> Result<Seen, Refusal> {
    let (mut seen, refusal) = requests(text.as_bytes(), &[text.len()]);
    refusal.map_or_else(|| Ok(seen.pop().expect("a request")), Err)
}

#[test]
fn requests_are_the_same_however_they_are_split() {
    let text = "\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a:\t2 \r\ncontent-length: 3\r\n\r\nabc\r\n\
        PUT http://y/c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n\
        2;x=\"y\"\r\nde\r\n1\r\nf\r\n0\r\nx-sum: 6\r\ncontent-length: 9\r\n\r\n\
        OPTIONS * HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\nhost: z\r\n\r\n";
    let (whole, refusal) = requests(text.as_bytes(), &[text.len()]);
    assert_eq!(refusal, None);
    let told: Vec<_> = whole.iter().map(|seen| (&*seen.line, &*seen.body)).collect();
    assert_eq!(
        told,
        [
            ("POST /a?b HTTP/1.1", &b"abc"[..]),
            ("PUT http://y/c HTTP/1.1", b"def"),
            ("OPTIONS * HTTP/1.0", b""),
            ("GET / HTTP/1.1", b"")
        ]
    );
    let values: Vec<_> = whole[0].headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    let trailers = whole[1].trailers.as_ref().expect("trailers");
    assert_eq!(
        (trailers.len(), &trailers["x-sum"]),
        (1, &HeaderValue::from_static("6"))
    );
    for step in 1..text.len() {
        assert_eq!(requests(text.as_bytes(), &[step]).0, whole, "by {step}");
        assert_eq!(
            requests(text.as_bytes(), &[step, text.len()]).0,
            whole,
            "at {step}"
        );
    }
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}", "x: a\r\n".repeat(101));
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n", "a".repeat(LIMIT));
    let codec = (400, "http1.codec_error");
    let both = (400, "http1.content_length_and_chunked_not_allowed");
    let coding = |status| (status, "http1.invalid_transfer_encoding");
    let url = (400, "http1.invalid_url");
    let too_large = (431, "http1.headers_too_large");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
    for (text, expected) in [
        (post("content-length: 5\r\ntransfer-encoding: chunked"), both),
        (post("transfer-encoding: chunked\r\ncontent-length: 5"), both),
        (post("content-length: 5\r\ncontent-length: 6"), codec),
        (post("content-length: 5\r\ncontent-length: 5"), codec),
        (post("content-length: 5, 5"), codec),
        (post("content-length: +5"), codec),
        (post("content-length: -5"), codec),
        (post("content-length: 0x5"), codec),
        (post("content-length: 5 5"), codec),
        (post("content-length: "), codec),
        (post("content-length: 99999999999999999999"), codec),
        (post("transfer-encoding: chunked, identity"), coding(400)),
        (post("transfer-encoding: chunked, chunked"), coding(400)),
        (
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            coding(400),
        ),
        (post("transfer-encoding: gzip"), coding(400)),
        (post("transfer-encoding: xchunked"), coding(400)),
        (post("transfer-encoding:"), coding(400)),
        (post("transfer-encoding: gzip, chunked"), coding(501)),
        (post("transfer-encoding: \u{b}chunked"), codec),
        (
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n".to_owned(),
            codec,
        ),
        (post("x: a\r\n folded"), codec),
        (post("x : a"), codec),
        (post("na me: a"), codec),
        (post("no colon"), codec),
        (post(": a"), codec),
        (post("x: a\0b"), codec),
        (post("x: a\rb"), codec),
        (post("x\u{e9}: a"), codec),
        ("GET / HTTP/1.1\r\n x: a\r\n".to_owned(), codec),
        ("GET  / HTTP/1.1\r\nhost: x\r\n".to_owned(), codec),
        ("GET /  HTTP/1.1\r\nhost: x\r\n".to_owned(), codec),
        (" GET / HTTP/1.1\r\nhost: x\r\n".to_owned(), codec),
        ("GET /\tHTTP/1.1\r\nhost: x\r\n".to_owned(), codec),
        ("GET / HTTP/1.1 \r\nhost: x\r\n".to_owned(), codec),
        ("G@T / HTTP/1.1\r\nhost: x\r\n".to_owned(), codec),
        ("GET / HTTP/2.0\r\nhost: x\r\n".to_owned(), codec),
        ("GET / HTTP/1.2\r\nhost: x\r\n".to_owned(), codec),
        ("GET / http/1.1\r\nhost: x\r\n".to_owned(), codec),
        ("GET /\r\n".to_owned(), codec),
        ("HTTP/1.1 200 OK\r\n".to_owned(), codec),
        ("PRI * HTTP/2.0\r\n".to_owned(), codec),
        ("\u{16}\u{3}\u{1}\r\n".to_owned(), codec),
        ("GET x HTTP/1.1\r\nhost: x\r\n".to_owned(), url),
        ("GET x:80 HTTP/1.1\r\nhost: x\r\n".to_owned(), url),
        ("GET /?\"x\" HTTP/1.1\r\nhost: x\r\n".to_owned(), url),
        ("CONNECT / HTTP/1.1\r\nhost: x\r\n".to_owned(), url),
        (long, too_large),
        (large, too_large),
        (many, (431, "http1.too_many_headers")),
    ] {
        let shown = text.get(..90).unwrap_or(&text);
        let whole = format!("{text}\r\n");
        for sizes in [[1], [7], [whole.len()]] {
            let (seen, refusal) = requests(whole.as_bytes(), &sizes);
            let refusal = refusal.unwrap_or_else(|| panic!("{shown:?} by {sizes:?}: {seen:?}"));
            let told = (refusal.status.as_u16(), refusal.details);
            assert_eq!(told, expected, "{shown:?} by {sizes:?}");
            assert!(seen.is_empty(), "{shown:?}");
        }
    }
}

#[test]
fn a_target_that_is_too_long_is_414() {
    let text = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let refusal = head::parse(text.as_bytes(), 1_000_000).err().expect("refused");
    assert_eq!(refusal.status, StatusCode::URI_TOO_LONG);
}

#[test]
fn a_refusal_tells_what_was_asked_for() {
    let refusal = one("DELETE /a?b HTTP/1.1\r\nx : 1\r\n\r\n").expect_err("refused");
    let known = refusal.known.expect("a request line");
    assert_eq!((known.method, &*known.target), (Method::DELETE, "/a?b"));
    assert_eq!(one("NONSENSE\r\n\r\n").expect_err("refused").known, None);
}

#[test]
fn a_head_may_be_as_large_as_the_limit() {
    let sized = |size: usize| {
        let text = "GET / HTTP/1.1\r\nx: \r\n\r\n";
        text.replace("x: ", &format!("x: {}", "a".repeat(size - text.len())))
    };
    assert!(one(&sized(LIMIT)).is_ok());
    assert!(one(&sized(LIMIT + 1)).is_err());
    // What follows does not count.
    let with_body = format!(
        "POST / HTTP/1.1\r\ncontent-length: 9999\r\n\r\n{}",
        "b".repeat(9999)
    );
    for step in [1, 4000, 5000, with_body.len()] {
        let (seen, refusal) = requests(with_body.as_bytes(), &[step]);
        assert_eq!((seen[0].body.len(), refusal), (9999, None), "by {step}");
    }
    // Without an end, nobody looks at it but at its size.
    let (_, refusal) = requests(&[b'a'; LIMIT + 1], &[1]);
    assert_eq!(refusal.map(|refusal| refusal.status.as_u16()), Some(431));
}

#[test]
fn a_broken_body_is_told_behind_what_was_right() {
    for body in [
        "2\r\nabc\r\n",
        "2\nab\r\n",
        "2;x\nab\r\n",
        "-1\r\n",
        "0\r\nx : 1\r\n\r\n",
    ] {
        let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n{body}");
        for step in [1, 9, text.len()] {
            let (seen, refusal) = requests(text.as_bytes(), &[step]);
            assert_eq!(refusal, None);
            assert!(seen[0].broken.is_some(), "{body:?} by {step}");
            assert!(seen[0].body.starts_with(b"a"), "{body:?} by {step}");
        }
    }
}

#[test]
fn a_connection_is_kept_where_both_sides_agree() {
    for (text, kept) in [
        ("GET / HTTP/1.1", true),
        ("GET / HTTP/1.1\r\nconnection: x, Close", false),
        ("GET / HTTP/1.0", false),
        ("GET / HTTP/1.0\r\nconnection: Keep-Alive", true),
        ("GET / HTTP/1.0\r\nconnection: keep-alive, close", false),
    ] {
        let whole = format!("{text}\r\n\r\n");
        let (head, _) = head::parse(whole.as_bytes(), LIMIT)
            .expect("valid")
            .expect("whole");
        assert_eq!(head.persistent, kept, "{text}");
    }
}

/// A message, and what it says.
fn message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = proptest::collection::vec(any::<u8>(), 1..40);
    let body = (any::<bool>(), proptest::collection::vec(chunk, 0..5));
    ("[A-Z]{1,8}", "/[a-z0-9/%?=&.-]{0,40}", "[ -~\t]{0,30}", body).prop_map(
        |(method, target, value, (is_chunked, chunks))| {
            let mut text = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nx-v: {value}\r\n").into_bytes();
            let body = chunks.concat();
            if is_chunked {
                text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in &chunks {
                    text.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    text.extend_from_slice(chunk);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\n\r\n");
            } else {
                text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                text.extend_from_slice(&body);
            }
            (text, body)
        },
    )
}

proptest! {
    #[test]
    fn any_requests_in_any_pieces_come_out_as_they_went_in(
        messages in proptest::collection::vec(message(), 1..5),
        sizes in proptest::collection::vec(1_usize..200, 1..20),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|(text, _)| text.clone()).collect();
        let (seen, refusal) = requests(&bytes, &sizes);
        prop_assert_eq!(refusal, None);
        let bodies: Vec<_> = seen.into_iter().map(|seen| seen.body).collect();
        let expected: Vec<_> = messages.into_iter().map(|(_, body)| body).collect();
        prop_assert_eq!(bodies, expected);
    }

    /// Whatever is wrong is wrong in every splitting, and never more is made of it.
    #[test]
    fn damage_is_read_the_same_in_any_pieces(
        messages in proptest::collection::vec(message(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        sizes in proptest::collection::vec(1_usize..100, 1..20),
    ) {
        let mut bytes: Vec<u8> = messages.iter().flat_map(|(text, _)| text.clone()).collect();
        for (at, byte) in damage {
            let index = at.index(bytes.len());
            bytes[index] = byte;
        }
        // A head is judged where a line of it ends: the last one's does.
        bytes.extend_from_slice(b"\r\n");
        let (whole, refused) = requests(&bytes, &[bytes.len()]);
        let (split, refused_split) = requests(&bytes, &sizes);
        prop_assert_eq!(split, whole);
        prop_assert_eq!(refused.map(|refusal| refusal.status), refused_split.map(|refusal| refusal.status));
    }
}

/// A connection, and the client's end of it.
async fn connected() -> (Rc<Wire>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("an address"));
    let (accepted, client) = tokio::join!(listener.accept(), client);
    let (stream, _) = accepted.expect("a connection");
    let wire = Wire::new(Stream::Plain(stream), Rc::new(Pulse::new()), Vec::new());
    (Rc::new(wire), client.expect("connected"))
}

async fn next_request(wire: &Wire) -> Box<Arrived> {
    match poll_fn(|context| wire.poll_next(LIMIT, context)).await {
        Next::Request(arrived) => arrived,
        Next::Refused(refusal) => panic!("{refusal:?}"),
        Next::Closed => panic!("closed"),
    }
}

fn data(text: &'static str) -> Result<Frame<Bytes>, Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn frames(frames: Vec<Result<Frame<Bytes>, Error>>) -> Body {
    Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

fn response(status: u16, headers: &[(&'static str, &'static str)], body: Body) -> Response<Delivery> {
    let mut response = Response::new(Delivery::of(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
        .headers_mut()
        .insert("date", HeaderValue::from_static("now"));
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    response
}

/// How an answer ended, whether the connection goes on, and what the client saw.
async fn written(
    response: Response<Delivery>,
    asked: Asked,
) -> (Ended, bool, Result<String, std::io::ErrorKind>) {
    let (wire, mut client) = connected().await;
    let mut answer = Answer::new(response, asked);
    let ended = poll_fn(|context| answer.poll(&wire, context)).await;
    let persistent = answer.is_persistent();
    if ended == Ended::Cut && answer.ends_with_connection() {
        wire.reset_on_close();
    }
    drop((answer, wire));
    let mut seen = Vec::new();
    let outcome = client.read_to_end(&mut seen).await;
    let text = String::from_utf8(seen).expect("text");
    (
        ended,
        persistent,
        outcome.map(|_| text).map_err(|cause| cause.kind()),
    )
}

fn asked(method: &Method, version: Version) -> Asked {
    Asked::by(method, version, true)
}

/// An answer, to what, whether the connection goes on, and the bytes that are expected.
type Row = (&'static str, Response<Delivery>, Asked, bool, &'static str);

async fn check(rows: Vec<Row>) {
    for (name, response, asked, persistent, expected) in rows {
        let (ended, goes_on, seen) = written(response, asked).await;
        assert_eq!(seen.as_deref(), Ok(expected), "{name}");
        assert_eq!((ended, goes_on), (Ended::Whole, persistent), "{name}");
    }
}

#[tokio::test]
async fn answers_stand_on_the_wire_as_they_should() {
    let (get, connect) = (Method::GET, Method::CONNECT);
    let (new, old) = (Version::HTTP_11, Version::HTTP_10);
    let stream = || frames(vec![data("ab"), data(""), data("c")]);
    check(vec![
        (
            "whole",
            response(200, &[("x", "1")], Body::bytes("abc")),
            asked(&get, new),
            true,
            "HTTP/1.1 200 OK\r\ndate: now\r\nx: 1\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "a length that is wrong",
            response(200, &[("content-length", "7")], Body::bytes("abc")),
            asked(&get, new),
            true,
            "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "nothing",
            response(404, &[], Body::empty()),
            asked(&get, new),
            true,
            "HTTP/1.1 404 Not Found\r\ndate: now\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "chunks",
            response(200, &[("transfer-encoding", "gzip")], stream()),
            asked(&get, new),
            true,
            "HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            "a stream of a length",
            response(200, &[("content-length", "3")], stream()),
            asked(&get, new),
            true,
            "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "a stream to an old client",
            response(200, &[], stream()),
            asked(&get, old),
            false,
            "HTTP/1.0 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nabc",
        ),
        (
            "an old client that stays",
            response(200, &[], Body::bytes("abc")),
            asked(&get, old),
            true,
            "HTTP/1.0 200 OK\r\ndate: now\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc",
        ),
        (
            "a close of ours",
            response(400, &[("connection", "close")], Body::bytes("abc")),
            asked(&get, new),
            false,
            "HTTP/1.1 400 Bad Request\r\ndate: now\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
        ),
        (
            "connect",
            response(501, &[], Body::empty()),
            asked(&connect, new),
            false,
            "HTTP/1.1 501 Not Implemented\r\ndate: now\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
    ])
    .await;
}

#[tokio::test]
async fn answers_without_a_body_say_what_they_may() {
    let (get, head, new) = (Method::GET, Method::HEAD, Version::HTTP_11);
    check(vec![
        (
            "head",
            response(200, &[("content-length", "9")], Body::empty()),
            asked(&head, new),
            true,
            "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            "head of ours",
            response(404, &[], Body::bytes("abc")),
            asked(&head, new),
            true,
            "HTTP/1.1 404 Not Found\r\ndate: now\r\ncontent-length: 3\r\n\r\n",
        ),
        (
            "no content",
            response(204, &[("content-length", "0")], Body::bytes("abc")),
            asked(&get, new),
            true,
            "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n",
        ),
        (
            "not modified",
            response(304, &[("content-length", "9")], Body::empty()),
            asked(&get, new),
            true,
            "HTTP/1.1 304 Not Modified\r\ndate: now\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            "switching",
            response(101, &[("connection", "upgrade"), ("upgrade", "x")], Body::empty()),
            asked(&get, new),
            true,
            "HTTP/1.1 101 Switching Protocols\r\ndate: now\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        ),
        (
            "a status without a name",
            response(599, &[], Body::empty()),
            asked(&get, new),
            true,
            "HTTP/1.1 599 \r\ndate: now\r\ncontent-length: 0\r\n\r\n",
        ),
    ])
    .await;
}

#[tokio::test]
async fn trailers_follow_the_last_chunk() {
    let mut names = HeaderMap::new();
    names.insert("x-sum", HeaderValue::from_static("1"));
    names.insert("content-length", HeaderValue::from_static("7"));
    let body = frames(vec![data("a"), Ok(Frame::trailers(names))]);
    let (_, _, seen) = written(response(200, &[], body), asked(&Method::GET, Version::HTTP_11)).await;
    let seen = seen.expect("whole");
    assert!(
        seen.ends_with("\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let cut = || Err(Error::client_gone());
    let get = |version| asked(&Method::GET, version);
    let body = frames(vec![data("ab"), cut()]);
    let (ended, _, seen) = written(response(200, &[], body), get(Version::HTTP_11)).await;
    let text = seen.expect("what was right");
    assert_eq!(ended, Ended::Cut);
    assert!(text.ends_with("\r\n\r\n2\r\nab\r\n"), "{text}");

    let body = frames(vec![data("ab"), cut()]);
    let (ended, _, seen) = written(response(200, &[], body), get(Version::HTTP_10)).await;
    assert_eq!(
        (ended, seen),
        (Ended::Cut, Err(std::io::ErrorKind::ConnectionReset))
    );

    for (length, pieces) in [("3", vec![data("ab")]), ("3", vec![data("ab"), data("cd")])] {
        let answer = response(200, &[("content-length", length)], frames(pieces));
        let (ended, _, seen) = written(answer, get(Version::HTTP_11)).await;
        let text = seen.expect("what was right");
        assert_eq!(ended, Ended::Cut);
        assert!(text.ends_with("content-length: 3\r\n\r\nab"), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_body_back() {
    let (wire, mut client) = connected().await;
    let asked_for = Rc::new(std::cell::Cell::new(0_usize));
    let counter = asked_for.clone();
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let endless = futures_util::stream::poll_fn(move |_| {
        counter.set(counter.get() + 1);
        Poll::Ready(Some(Ok(Frame::data(piece.clone()))))
    });
    let response = response(200, &[], Body::boxed(StreamBody::new(endless)));
    let mut answer = Answer::new(response, asked(&Method::GET, Version::HTTP_11));
    let writing = poll_fn(|context| answer.poll(&wire, context));
    let stuck = tokio::time::timeout(Duration::from_millis(300), writing).await;
    assert!(stuck.is_err(), "{stuck:?}");
    let held = asked_for.get();
    assert!(held < 400, "{held} pieces of 64 KB were taken");
    // It goes on where it stopped, and ends with the client.
    let mut some = vec![0; 1024 * 1024];
    client.read_exact(&mut some).await.expect("bytes");
    drop(client);
    let ended = poll_fn(|context| answer.poll(&wire, context)).await;
    assert_eq!(ended, Ended::Gone);
}

#[tokio::test]
async fn a_client_that_waits_with_its_body_is_told_when_it_is_wanted() {
    let (wire, mut client) = connected().await;
    let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n";
    client.write_all(head).await.expect("written");
    let arrived = next_request(&wire).await;
    let mut body = ClientBody::new(wire.clone(), arrived.early, arrived.turn);
    assert_eq!(body.size_hint().exact(), Some(3));
    let conversation = async {
        let mut said = [0; 25];
        client.read_exact(&mut said).await.expect("an interim answer");
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"abcGET").await.expect("written");
    };
    let (frame, ()) = tokio::join!(body.frame(), conversation);
    let data = frame.expect("a frame").expect("no error").into_data();
    assert_eq!(data.expect("data"), "abc");
    assert!(body.is_end_stream() && wire.is_drained() && !wire.is_quiet());
}

#[tokio::test]
async fn a_body_that_has_come_is_not_asked_for() {
    let (wire, mut client) = connected().await;
    let head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\na";
    client.write_all(head).await.expect("written");
    let arrived = next_request(&wire).await;
    client.write_all(b"bc").await.expect("written");
    let body = ClientBody::new(wire.clone(), arrived.early, arrived.turn);
    assert_eq!(body.collect().await.expect("whole").to_bytes(), "abc");
    drop(wire);
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.expect("the end");
    assert!(seen.is_empty());
}

#[tokio::test]
async fn a_reader_that_stays_too_long_gets_nothing_of_the_next_request() {
    let (wire, mut client) = connected().await;
    let first = b"POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab";
    client.write_all(first).await.expect("written");
    let arrived = next_request(&wire).await;
    let mut stale = ClientBody::new(wire.clone(), arrived.early, arrived.turn);
    stale.frame().await.expect("a frame").expect("no error");
    wire.close_body();
    client
        .write_all(b"cdPOST /2 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nef")
        .await
        .expect("written");
    // What is left of the first is thrown away as it comes.
    while !wire.is_drained() {
        tokio::task::yield_now().await;
    }
    let arrived = next_request(&wire).await;
    client.write_all(b"gh").await.expect("written");
    let failure = stale.frame().await.expect("an end").expect_err("not its own");
    assert_eq!(failure.reason(), "downstream_remote_disconnect");
    drop(stale);
    let body = ClientBody::new(wire.clone(), arrived.early, arrived.turn);
    assert_eq!(body.collect().await.expect("whole").to_bytes(), "efgh");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_and_one_that_goes_on_is_not_forgotten() {
    let (wire, mut client) = connected().await;
    client
        .write_all(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    next_request(&wire).await;
    client
        .write_all(b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    let gone = poll_fn(|context| wire.poll_gone(context));
    let patience = Duration::from_millis(100);
    assert!(tokio::time::timeout(patience, gone).await.is_err());
    assert_eq!(next_request(&wire).await.head.parts.uri, "/2");
    drop(client);
    poll_fn(|context| wire.poll_gone(context)).await;
    assert!(matches!(
        poll_fn(|context| wire.poll_next(LIMIT, context)).await,
        Next::Closed
    ));
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noticed_by_one_who_asked_more_than_once() {
    let (wire, mut client) = connected().await;
    let head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(head).await.expect("written");
    next_request(&wire).await;
    let mut asked = 0;
    let gone = poll_fn(|context| {
        asked += 1;
        if asked < 5 {
            // As the upstream wakes the same task.
            context.waker().wake_by_ref();
        }
        wire.poll_gone(context)
    });
    let hanging_up = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
    };
    let both = async { tokio::join!(gone, hanging_up) };
    let noticed = tokio::time::timeout(Duration::from_secs(5), both).await;
    assert!(noticed.is_ok());
    assert!(asked >= 5);
}

/// Has one frame, and knows that there is no other.
struct OneFrame(Option<Bytes>, Rc<std::cell::Cell<u32>>);

impl http_body::Body for OneFrame {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.1.set(self.1.get() + 1);
        match self.0.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Poll::Pending,
        }
    }
}

impl Source for OneFrame {
    fn is_dry(&mut self, _: &mut Context<'_>) -> bool {
        self.0.is_none()
    }
}

#[tokio::test]
async fn a_body_that_knows_that_it_has_no_more_is_not_asked_in_vain() {
    let (wire, mut client) = connected().await;
    let polls = Rc::default();
    let body = Body::source(OneFrame(Some(Bytes::from_static(b"abc")), Rc::clone(&polls)));
    let mut answer = Answer::new(response(200, &[], body), asked(&Method::GET, Version::HTTP_11));
    assert!(
        answer
            .poll(&wire, &mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(polls.get(), 1);
    let mut seen = vec![0; 1024];
    let count = client.read(&mut seen).await.expect("bytes");
    assert!(seen[..count].ends_with(b"\r\n\r\n3\r\nabc\r\n"));
}
