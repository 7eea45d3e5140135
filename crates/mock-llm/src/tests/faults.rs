//! Every fault of the menu over HTTP/1.1, byte for byte.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::{Value, json};

use super::client::{Answer, Client, Ended, PATIENCE, post, request};
use crate::{End, FAULTS, Handle, Options, RefusingPort, SilentPort, start, tokens};

const CHAT: &str = "/v1/chat/completions";

fn mock() -> Handle {
    start(Options::default()).unwrap()
}

fn question(stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": "hi" }] })
}

/// A plain answer with a fault.
fn plain(mock: &Handle, fault: &str) -> Result<Answer, Ended> {
    post(
        mock.addr(),
        CHAT,
        &[&format!("x-mock-fault: {fault}")],
        &question(false),
    )
}

/// A streamed answer with a fault.
fn streamed(mock: &Handle, fault: &str) -> Answer {
    post(
        mock.addr(),
        CHAT,
        &[&format!("x-mock-fault: {fault}")],
        &question(true),
    )
    .unwrap()
}

fn text(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

/// How many events carried a token.
fn contents(answer: &Answer) -> usize {
    let has_text = |event: &&Value| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    };
    answer.events().iter().filter(has_text).count()
}

#[test]
fn a_request_can_be_answered_by_nothing() {
    let mock = mock();
    assert_eq!(plain(&mock, "reset").unwrap_err(), Ended::Reset);
    assert_eq!(plain(&mock, "close").unwrap_err(), Ended::Closed);
    assert!(
        mock.requests()
            .iter()
            .all(|request| request.end == End::Scripted && request.status.is_none())
    );

    let mut client = Client::connect(mock.addr());
    let body = question(false).to_string();
    client.send(&request(
        "POST",
        CHAT,
        &["x-mock-fault: black-hole"],
        body.as_bytes(),
    ));
    client
        .stream
        .set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .unwrap();
    assert!(
        client.stream.read(&mut [0; 1]).is_err(),
        "nothing comes and nothing ends"
    );
}

#[test]
fn a_request_can_be_answered_unread() {
    let mock = mock();
    let mut client = Client::connect(mock.addr());
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\nx-mock-fault: unread+413\r\n\r\n{");
    assert_eq!(client.read().unwrap().status, 413);
    assert_eq!(plain(&mock, "unread").unwrap().status, 400);
}

#[tokio::test]
async fn a_client_that_leaves_a_black_hole_is_noticed() {
    let mock = mock();
    let mut client = Client::connect(mock.addr());
    client.send(&request("GET", "/health?mock-fault=black-hole", &[], b""));
    mock.log()
        .wait_until(PATIENCE, |requests| requests.len() == 1)
        .await
        .unwrap();
    drop(client);
    mock.log()
        .wait_until(PATIENCE, |requests| requests[0].end == End::ClientGone)
        .await
        .unwrap();
}

#[tokio::test]
async fn ports_refuse_or_stay_silent() {
    use std::time::Duration;
    use tokio::net::TcpStream;
    let refusing = RefusingPort::new().unwrap();
    let error = TcpStream::connect(refusing.addr()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let silent = SilentPort::new().unwrap();
    let connecting = TcpStream::connect(silent.addr());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), connecting)
            .await
            .is_err()
    );
}

#[test]
fn all_listed_statuses_come_in_the_vendors_shape() {
    let mock = mock();
    for status in [
        401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529,
    ] {
        let answer = plain(&mock, &status.to_string()).unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("retry-after"), None);
        assert!(answer.json()["error"]["type"].is_string());
        let by_model = json!({ "model": format!("fault-{status}"), "stream": true, "messages": [] });
        assert_eq!(post(mock.addr(), CHAT, &[], &by_model).unwrap().status, status);
    }
}

#[test]
fn retry_after_comes_in_three_spellings() {
    let mock = mock();
    assert_eq!(
        plain(&mock, "429;retry-after=2").unwrap().header("retry-after"),
        Some("2")
    );
    assert_eq!(
        plain(&mock, "429;retry-after-ms=1500")
            .unwrap()
            .header("retry-after-ms"),
        Some("1500")
    );
    let answer = plain(&mock, "503;retry-after-date=60").unwrap();
    let date = httpdate::parse_http_date(answer.header("retry-after").unwrap()).unwrap();
    let ahead = date
        .duration_since(tollgate_base::clock::wall())
        .unwrap()
        .as_secs();
    assert!((50..=60).contains(&ahead), "{ahead}");
    let by_model = json!({ "model": "fault-429-retry-after-2", "messages": [] });
    assert_eq!(
        post(mock.addr(), CHAT, &[], &by_model)
            .unwrap()
            .header("retry-after"),
        Some("2")
    );
}

#[test]
fn whole_answers_are_deformed() {
    let mock = mock();
    let html = plain(&mock, "html").unwrap();
    assert_eq!(
        (html.status, html.header("content-type")),
        (502, Some("text/html"))
    );
    assert!(html.text().starts_with("<html>"));
    let empty = plain(&mock, "empty").unwrap();
    assert_eq!((empty.status, empty.body().len()), (200, 0));
    let error = plain(&mock, "error-200").unwrap();
    assert_eq!(
        (error.status, error.json()["error"]["code"].as_str()),
        (200, Some("rate_limit_exceeded"))
    );
    let wrong = plain(&mock, "content-type").unwrap();
    assert_eq!(
        (wrong.header("content-type"), wrong.json()["object"].as_str()),
        (Some("text/plain"), Some("chat.completion"))
    );
    assert!(serde_json::from_slice::<Value>(&plain(&mock, "garbage").unwrap().body()).is_err());
}

#[test]
fn lengths_are_wrong() {
    let mock = mock();
    let healthy = plain(&mock, "").unwrap().body();
    let short = plain(&mock, "length-short").unwrap();
    assert_eq!((short.body(), short.ended), (healthy.clone(), Ended::Closed));
    let declared: usize = short.header("content-length").unwrap().parse().unwrap();
    assert_eq!(declared, healthy.len() + 10);
    let long = plain(&mock, "length-long").unwrap();
    assert_eq!(
        (long.body(), long.surplus.as_slice()),
        (healthy.clone(), &b"xxxxxxxxxx"[..])
    );
    let cut = plain(&mock, "cut-body;after=7").unwrap();
    assert_eq!((cut.body(), cut.ended), (healthy[..7].to_vec(), Ended::Closed));
}

#[test]
fn answers_are_compressed() {
    let mock = mock();
    let healthy = (plain(&mock, "").unwrap().body(), streamed(&mock, "").body());
    for (name, unpack) in [
        (
            "gzip",
            (|bytes: &[u8], text: &mut Vec<u8>| GzDecoder::new(bytes).read_to_end(text))
                as fn(&[u8], &mut Vec<u8>) -> _,
        ),
        ("deflate", |bytes, text| ZlibDecoder::new(bytes).read_to_end(text)),
        ("br", |bytes, text| {
            brotli_decompressor::Decompressor::new(bytes, 4096).read_to_end(text)
        }),
        ("zstd", |bytes, text| zstd::Decoder::new(bytes)?.read_to_end(text)),
    ] {
        for (answer, expected) in [
            (plain(&mock, name).unwrap(), &healthy.0),
            (streamed(&mock, name), &healthy.1),
        ] {
            assert_eq!(answer.header("content-encoding"), Some(name));
            let mut text = Vec::new();
            unpack(&answer.body(), &mut text).unwrap();
            assert_eq!(&text, expected);
        }
        // What has come of a compressed stream can be read before the stream's end.
        let mut client = Client::connect(mock.addr());
        let headers = [format!("x-mock-fault: {name},stall-between;after=1")];
        client.send(&request(
            "POST",
            CHAT,
            &[&headers[0]],
            question(true).to_string().as_bytes(),
        ));
        client.read_head().unwrap();
        let begun = [client.read_chunk().unwrap(), client.read_chunk().unwrap()].concat();
        let mut text = Vec::new();
        let _ = unpack(&begun, &mut text);
        assert!(String::from_utf8(text).unwrap().ends_with("\n\n"));
    }
}

#[test]
fn stalls_happen_at_their_phase() {
    let mock = mock();
    let wait = |fault: &str, stream: bool| {
        let mut client = Client::connect(mock.addr());
        client.send(&request(
            "POST",
            CHAT,
            &[&format!("x-mock-fault: {fault}")],
            question(stream).to_string().as_bytes(),
        ));
        client
    };
    let silent = |client: &mut Client| {
        client
            .stream
            .set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        client.stream.read(&mut [0; 1]).is_err()
    };
    assert!(silent(&mut wait("stall-head", true)));
    for stream in [true, false] {
        let mut client = wait("stall-first", stream);
        assert!(client.read_head().unwrap().starts_with("HTTP/1.1 200"));
        assert!(silent(&mut client));
    }
    let mut client = wait("stall-between;after=2", true);
    client.read_head().unwrap();
    for _ in 0..3 {
        assert!(
            !client.read_chunk().unwrap().is_empty(),
            "the role and two tokens"
        );
    }
    assert!(silent(&mut client));
    for fault in ["stall-head;ms=1", "stall-first;ms=1", "stall-between;ms=1"] {
        assert_eq!(streamed(&mock, fault).data().last().unwrap(), "[DONE]", "{fault}");
    }
}

#[test]
fn streams_are_cut() {
    let mock = mock();
    let healthy = text(&streamed(&mock, "").events());
    for (fault, ended) in [
        ("cut;after=3", Ended::Closed),
        ("cut;after=3;how=reset", Ended::Reset),
        ("rst-stream;after=3", Ended::Closed),
    ] {
        let answer = streamed(&mock, fault);
        assert_eq!(answer.ended, ended, "{fault}");
        // A reset may destroy what was still on its way.
        if ended == Ended::Closed {
            assert_eq!(contents(&answer), 3, "{fault}");
            assert!(healthy.starts_with(&text(&answer.events())));
        }
        assert!(!answer.data().contains(&"[DONE]".to_owned()));
    }
    let answer = streamed(&mock, "cut;after=3;how=end");
    assert_eq!((answer.ended, contents(&answer)), (Ended::Whole, 3));
    assert!(!answer.text().contains("[DONE]"));
    let answer = streamed(&mock, "cut;after=9999");
    assert_eq!(answer.ended, Ended::Closed);
    assert_eq!(
        text(&answer.events()),
        healthy,
        "a cut that comes too late comes before the finish"
    );
    let cut = mock.requests().split_off(1);
    assert!(
        cut.iter()
            .all(|request| (request.status, request.end) == (Some(200), End::Scripted))
    );
}

#[test]
fn streams_are_cut_inside_things() {
    let mock = mock();
    let answer = streamed(&mock, "cut-in-character;after=1");
    assert_eq!(answer.ended, Ended::Closed);
    let error = String::from_utf8(answer.body()).unwrap_err().utf8_error();
    assert_eq!(
        error.error_len(),
        None,
        "the body ends in the middle of a character"
    );

    let answer = streamed(&mock, "cut-in-data;after=1;at=3");
    assert!(answer.text().ends_with("\n\ndat"), "{}", answer.text());
    let answer = streamed(&mock, "cut-in-data;after=1;at=20");
    assert!(
        answer.text().ends_with("\n\ndata: {\"id\":\"chatcmp"),
        "{}",
        answer.text()
    );

    let mut body = question(true);
    body["tools"] = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object", "properties": { "long_name_of_a_field": { "type": "string" } } } } }]);
    let answer = post(
        mock.addr(),
        CHAT,
        &["x-mock-fault: cut-in-arguments;after=2"],
        &body,
    )
    .unwrap();
    assert_eq!(answer.ended, Ended::Closed);
    let arguments: String = answer
        .events()
        .iter()
        .filter_map(|event| {
            event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(arguments, "{\"long_name_of_a");
}

#[test]
fn error_events_follow_the_preamble() {
    let mock = mock();
    let answer = streamed(&mock, "error-event");
    let events = answer.events();
    assert_eq!(
        (answer.status, answer.ended, events.len()),
        (200, Ended::Whole, 2)
    );
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[1]["error"]["code"], "rate_limit_exceeded");
    let answer = streamed(&mock, "error-event;after=2;code=503");
    assert_eq!(contents(&answer), 2);
    assert_eq!(
        answer.events().last().unwrap()["error"]["code"],
        "service_unavailable"
    );
    assert!(!answer.text().contains("[DONE]"));
}

#[test]
fn streams_hold_strange_events() {
    let mock = mock();
    let healthy = text(&streamed(&mock, "").events());
    let answer = streamed(&mock, "malformed;after=1");
    assert_eq!(
        answer.data().len(),
        answer.events().len() + 2,
        "one event and [DONE] are no JSON"
    );
    assert_eq!(text(&answer.events()), healthy);
    let answer = streamed(&mock, "unknown-events");
    assert!(answer.text().contains("event: mock.unknown\n") && answer.text().contains("\nnonsense\n"));
    assert_eq!(text(&answer.events()), healthy);
    let answer = streamed(&mock, "keep-alive");
    assert_eq!(
        answer.text().matches(": keep-alive\n\n").count(),
        answer.data().len()
    );
    assert_eq!(text(&answer.events()), healthy);
    assert!(streamed(&mock, "bom").body().starts_with(b"\xef\xbb\xbfdata: "));
    let answer = streamed(&mock, "big-event;bytes=2000000");
    let longest = answer.chunks.iter().map(Vec::len).max().unwrap();
    assert!(longest > 2_000_000, "{longest}");
    assert_eq!(answer.data().last().unwrap(), "[DONE]");
}

#[test]
fn the_terminal_event_comes_twice_or_never() {
    let mock = mock();
    let answer = streamed(&mock, "done-twice");
    assert!(answer.text().ends_with("data: [DONE]\n\ndata: [DONE]\n\n"));
    let answer = streamed(&mock, "done-none");
    assert_eq!(answer.ended, Ended::Whole);
    assert!(!answer.text().contains("[DONE]"));
    let headers = ["x-api-key: k", "anthropic-version: 1", "x-mock-fault: done-none"];
    let mut body = question(true);
    body["max_tokens"] = json!(5);
    let answer = post(mock.addr(), "/v1/messages", &headers, &body).unwrap();
    assert!(answer.text().contains("message_delta") && !answer.text().contains("message_stop"));
}

#[test]
fn keep_alives_can_be_all_there_is() {
    let mock = mock();
    let mut client = Client::connect(mock.addr());
    client.send(&request(
        "POST",
        CHAT,
        &["x-mock-fault: keep-alive-only;ms=1"],
        question(true).to_string().as_bytes(),
    ));
    client.read_head().unwrap();
    for _ in 0..5 {
        assert_eq!(client.read_chunk().unwrap(), b": keep-alive\n\n");
    }
}

#[test]
fn trailers_follow_the_body() {
    let mock = mock();
    for stream in [true, false] {
        let headers = ["x-mock-fault: trailers", "te: trailers"];
        let answer = post(mock.addr(), CHAT, &headers, &question(stream)).unwrap();
        assert_eq!(answer.trailers, "x-mock-trailer: the end\n");
    }
}

#[test]
fn lines_end_in_every_way() {
    let mock = mock();
    let healthy = streamed(&mock, "").text();
    assert_eq!(streamed(&mock, "lf").text(), healthy);
    assert_eq!(streamed(&mock, "crlf").text(), healthy.replace('\n', "\r\n"));
    assert_eq!(streamed(&mock, "cr").text(), healthy.replace('\n', "\r"));
}

#[test]
fn events_are_spread_over_packets() {
    let mock = mock();
    let healthy = streamed(&mock, "");
    let packed = streamed(&mock, "packed;events=5");
    assert_eq!(packed.body(), healthy.body());
    assert!(
        packed.chunks[0]
            .windows(2)
            .filter(|pair| *pair == b"\n\n")
            .count()
            == 5
    );
    let split = streamed(&mock, "split");
    assert_eq!(split.body(), healthy.body());
    assert!(split.chunks.iter().all(|chunk| chunk.len() == 1));
    let split = streamed(&mock, "split;bytes=7,crlf");
    assert!(split.chunks.iter().rev().skip(1).all(|chunk| chunk.len() <= 7));
    let trickled = streamed(&mock, "trickle;bytes=3");
    assert_eq!(trickled.body(), healthy.body());
}

#[test]
fn usage_is_reported_in_every_wrong_way() {
    let mock = mock();
    let healthy = streamed(&mock, "").events();
    let total = healthy.last().unwrap()["usage"].clone();
    let absent = streamed(&mock, "usage-absent").events();
    assert!(absent.iter().all(|event| event.get("usage").is_none()));
    let null = streamed(&mock, "usage-null").events();
    assert!(
        null.iter()
            .all(|event| event["usage"].is_null() && event.get("usage").is_some())
    );

    let cumulative = streamed(&mock, "usage-cumulative").events();
    let counts: Vec<u64> = cumulative
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted() && counts[0] == 0);
    assert_eq!(cumulative.last().unwrap()["usage"], total);
    let each = streamed(&mock, "usage-per-event").events();
    let sum = |name: &str| {
        each.iter()
            .map(|event| event["usage"][name].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (json!(sum("prompt_tokens")), json!(sum("completion_tokens"))),
        (total["prompt_tokens"].clone(), total["completion_tokens"].clone())
    );

    let after = streamed(&mock, "usage-after-done");
    let data = after.data();
    assert_eq!(data[data.len() - 2], "[DONE]");
    assert_eq!(after.events().last().unwrap()["usage"], total);
    let inside = streamed(&mock, "usage-in-choice").events();
    assert_eq!(inside.last().unwrap()["choices"][0]["usage"], total);

    assert!(
        plain(&mock, "usage-absent")
            .unwrap()
            .json()
            .get("usage")
            .is_none()
    );
    assert_eq!(plain(&mock, "usage-null").unwrap().json()["usage"], Value::Null);
    assert_eq!(
        plain(&mock, "usage-in-choice").unwrap().json()["choices"][0]["usage"],
        total
    );
}

#[test]
fn the_healthy_knobs_turn() {
    let mock = mock();
    let answer = plain(&mock, "tokens;n=500,cached;n=3").unwrap().json();
    assert_eq!(answer["usage"]["completion_tokens"], 500);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    assert_eq!(
        tokens::count(answer["choices"][0]["message"]["content"].as_str().unwrap()),
        500
    );
    assert!(
        plain(&mock, "reasoning").unwrap().json()["choices"][0]["message"]["reasoning_content"].is_string()
    );
    let chinese = plain(&mock, "chinese").unwrap().json();
    assert!(
        !chinese["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .is_ascii()
    );
    let before = tollgate_base::clock::now();
    assert_eq!(contents(&streamed(&mock, "tokens;n=5,pace;ms=20")), 5);
    assert!(
        before.elapsed() >= std::time::Duration::from_millis(80),
        "four pauses between five tokens"
    );
}

#[test]
fn counted_faults_strike_the_first_requests_of_a_key() {
    let mock = mock();
    let status = |key: &str| {
        let headers = ["x-mock-fault: 503;first=2", key];
        post(mock.addr(), CHAT, &headers, &question(false))
            .unwrap()
            .status
    };
    let a: Vec<u16> = (0..4).map(|_| status("x-mock-key: a")).collect();
    assert_eq!(a, [503, 503, 200, 200]);
    assert_eq!(status("x-mock-key: b"), 503);
    let by_model = json!({ "model": "fault-500-first-1", "messages": question(false)["messages"] });
    let statuses: Vec<u16> = (0..2)
        .map(|_| post(mock.addr(), CHAT, &[], &by_model).unwrap().status)
        .collect();
    assert_eq!(statuses, [500, 200]);
}

/// What is tested over h2 only (`tests/h2.rs`).
const ELSEWHERE: [&str; 3] = ["goaway", "goaway-error", "no-close-notify"];

#[test]
fn every_fault_has_a_test() {
    let sources = [include_str!("faults.rs"), include_str!("h2.rs")].concat();
    let untested: BTreeSet<&str> = FAULTS
        .iter()
        .map(|fault| fault.name)
        .filter(|name| *name != "status" && !ELSEWHERE.contains(name))
        .filter(|name| {
            [": ", "\"", "=", ","]
                .iter()
                .all(|before| !sources.contains(&format!("{before}{name}")))
        })
        .collect();
    assert_eq!(untested, BTreeSet::new());
}
