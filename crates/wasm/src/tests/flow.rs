//! How messages pass: held, changed, answered, injected.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use tollgate_base::Termination;
use tollgate_body::{Body, Response};

use super::harness::{Setup, chunks, get, post, run};

/// Replaces the whole body that can be read.
const REPLACE: &str =
    r#"(drop (call $set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 2147483647) @"NEW"))"#;

#[test]
fn a_module_without_callbacks_changes_nothing() {
    run(async {
        let bench = Setup::default().bench("");
        let got = bench.send(post(Body::bytes("body"))).await;
        assert_eq!((got.status, got.text()), (200, "answer"));
        assert_eq!(bench.seen().body, "body");
    });
}

#[test]
fn headers_are_read_and_changed_in_both_directions() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
                 (call $say (local.get $count)) (call $say (local.get $end))
                 (drop (call $replace_header_map_value (i32.const 0) @":path" @"/other"))
                 (drop (call $replace_header_map_value (i32.const 0) @"X-New" @"1"))
                 (i32.const 0))
               (func (export "proxy_on_response_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
                 (drop (call $replace_header_map_value (i32.const 2) @":status" @"201"))
                 (call $say (local.get $count))
                 (i32.const 0))"#,
        );
        let got = bench.send(get("/")).await;
        let seen = bench.seen();
        assert_eq!(seen.said(), [4, 1]);
        assert_eq!(
            (seen.uri.as_str(), &seen.headers["x-new"]),
            ("http://a.com/other", &"1".parse().unwrap())
        );
        assert_eq!((got.status, got.said()), (201, vec![1]));
    });
}

#[test]
fn the_first_interface_has_no_end_flag_and_its_pause_holds_everything() {
    run(async {
        let bench = Setup { abi: "0_1_0", ..Setup::default() }.bench(
            r#"(func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (result i32)
                 (call $say (local.get $count))
                 (drop (call $continue_stream (i32.const 0)))
                 (i32.const 1))
               (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (drop (call $set_buffer_bytes (i32.const 0) (i32.const 0) (local.get $size) @"x"))
                 (i32.const 0))"#,
        );
        bench.send(post(chunks(&["one", "two"]))).await;
        assert_eq!(bench.seen().said(), [4]);
        // Once for each chunk and once for the end.
        assert_eq!(bench.seen().body, "xxx");
    });
}

/// Header status 1, then the body up to its end, as Higress's AI plugins do.
#[test]
fn headers_held_by_stop_iteration_go_with_the_body_and_can_still_be_changed() {
    run(async {
        let bench = Setup::default().bench(&format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
               (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (call $say (local.get $size))
                 (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
                 {REPLACE}
                 (i32.const 0))"#
        ));
        bench.send(post(chunks(&["one", "two", "three"]))).await;
        let seen = bench.seen();
        // Each size includes what came before; the end may come by itself.
        assert_eq!(seen.said()[..3], [3, 6, 11]);
        assert_eq!(
            (&seen.body[..], &seen.headers["content-length"]),
            (&b"NEW"[..], &"3".parse().unwrap())
        );
    });
}

#[test]
fn a_length_that_the_module_changes_is_told_anew() {
    run(async {
        let bench = Setup::default().bench(&format!(
            r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) {REPLACE} (i32.const 0))"#
        ));
        let mut request = post(Body::bytes("longer"));
        request
            .headers_mut()
            .insert("content-length", "6".parse().unwrap());
        bench.send(request).await;
        let length = bench.seen().headers.get("content-length").cloned();
        assert_eq!(bench.seen().body, "NEW");
        assert!(length.is_none_or(|length| length == "3"));
    });
}

/// As a built-in plugin leaves it that has written the body anew and taken the old length away.
#[test]
fn a_body_that_is_here_leaves_whole_without_a_length_in_the_head() {
    run(async {
        let looks =
            r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
        let bench = Setup::default().bench(looks);
        bench.send(post(Body::bytes("written anew"))).await;
        assert_eq!(
            (bench.seen().body, bench.seen().is_whole),
            ("written anew".into(), true)
        );
        bench.send(post(chunks(&["comes", "later"]))).await;
        assert!(!bench.seen().is_whole);
    });
}

#[test]
fn streamed_chunks_are_changed_one_by_one_and_an_empty_one_vanishes() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (if (i32.eq (local.get $size) (i32.const 3))
                   (then (drop (call $set_buffer_bytes (i32.const 1) (i32.const 0) (i32.const 2147483647) (i32.const 0) (i32.const 0)))))
                 (if (i32.eq (local.get $size) (i32.const 5))
                   (then (drop (call $set_buffer_bytes (i32.const 1) (i32.const 2147483647) (i32.const 0) @"!"))))
                 (i32.const 0))"#,
        );
        bench.answers(|_| Ok(Response::new(chunks(&["a", "bcd", "efghi"]))));
        let (_, outcome) = bench.open(get("/")).await;
        let mut body = outcome.unwrap().into_body();
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(frames, ["a", "efghi!"]);
    });
}

#[test]
fn body_status_three_drops_what_comes_and_injected_bytes_take_its_place() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (drop (call $inject_encoded_data_to_filter_chain @"<" (i32.const 0)))
                 (if (local.get $end) (then (drop (call $inject_encoded_data_to_filter_chain @">" (i32.const 1)))))
                 (i32.const 3))"#,
        );
        bench.answers(|_| Ok(Response::new(chunks(&["secret", "secret"]))));
        let got = bench.send(get("/")).await;
        assert!(
            got.text().starts_with("<<") && got.text().ends_with('>'),
            "{}",
            got.text()
        );
        assert!(!got.text().contains("secret"));
    });
}

#[test]
fn an_answer_without_a_body_gets_one_by_injection_while_its_headers_are_held() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                 (drop (call $remove_header_map_value (i32.const 2) @"content-length"))
                 (call $say (call $call_foreign_function @"inject_encoded_data_to_filter_chain_on_header" @"\0a\04made\10\01" (i32.const 0) (i32.const 0)))
                 (i32.const 1))"#,
        );
        bench.answers(|_| Ok(Response::new(Body::empty())));
        let got = bench.send(get("/")).await;
        assert_eq!((got.said(), got.text()), (vec![0], "made"));
    });
}

#[test]
fn a_local_reply_passes_the_modules_own_answer_side_and_is_made_once() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (drop (call $send_local_response (i32.const 403) @"key auth.denied" @"no" @"\01\00\00\00\03\00\00\00\01\00\00\00X-A\001\00" (i32.const -1)))
                 (global.set $allocated (call $send_local_response (i32.const 200) @"" @"" @"" (i32.const -1)))
                 (i32.const 0))
               (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                 (call $say (global.get $allocated))
                 (i32.const 0))"#,
        );
        let got = bench.send(get("/")).await;
        assert_eq!((got.status, got.text(), got.said()), (403, "no", vec![2]));
        assert_eq!(got.headers["x-a"], "1");
        assert_eq!(got.headers["content-type"], "text/plain");
        assert_eq!(got.headers["content-length"], "2");
        assert_eq!(&*got.record.details.borrow(), "key_auth.denied");
        assert!(bench.seen.borrow().is_none());
    });
}

#[test]
fn a_local_reply_in_an_answers_place_is_the_gateways_own() {
    run(async {
        let replies = |side: &str, details: &str| {
            Setup::default().bench(&format!(
                r#"(func (export "proxy_on_{side}_headers") (param i32 i32 i32) (result i32)
                     (drop (call $send_local_response (i32.const 451) @"{details}" @"no" @"" (i32.const -1)))
                     (i32.const 1))"#
            ))
        };
        for (side, details, told) in [
            ("response", "guard.denied", "guard.denied"),
            ("response", "", "direct_response"),
            ("request", "", "direct_response"),
        ] {
            let got = replies(side, details).send(get("/")).await;
            assert_eq!((got.status, got.text()), (451, "no"));
            assert_eq!(
                got.record.termination.get(),
                Some(Termination::Refused),
                "{side} {details}"
            );
            assert_eq!(&*got.record.details.borrow(), told);
        }
    });
}

#[test]
fn a_local_reply_on_the_last_look_at_an_answer_takes_its_place() {
    run(async {
        for status in [0, 1] {
            let bench = Setup::default().bench(&format!(
                r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const {status}))
                   (func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                     (if (local.get $end)
                       (then (drop (call $send_local_response (i32.const 451) @"d" @"no" @"" (i32.const -1)))))
                     (i32.const 0))"#
            ));
            let got = bench.send(get("/")).await;
            assert_eq!((got.status, got.text()), (451, "no"), "{status}");
        }
    });
}

#[test]
fn an_answer_that_nothing_holds_is_replaced_or_closed_all_the_same() {
    run(async {
        let answers = |call: &str| {
            Setup::default().bench(&format!(
                r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                     (drop {call})
                     (i32.const 0))"#
            ))
        };
        let reply = r#"(call $send_local_response (i32.const 451) @"d" @"no" @"" (i32.const -1))"#;
        let got = answers(reply).send(get("/")).await;
        assert_eq!((got.status, got.text()), (451, "no"));
        let got = answers("(call $close_stream (i32.const 1))").send(get("/")).await;
        assert_eq!(
            (got.status, &**got.record.details.borrow()),
            (503, "wasm_close_stream")
        );
    });
}

#[test]
fn a_continue_that_came_before_the_pause_does_not_end_it() {
    run(async {
        let bench = Setup::default().bench(
            r#"(global $stream (mut i32) (i32.const 0))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (drop (call $set_tick_period_milliseconds (i32.const 100)))
                 (i32.const 1))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (drop (call $continue_stream (i32.const 1)))
                 (i32.const 0))
               (func (export "proxy_on_response_headers") (param $id i32) (param i32 i32) (result i32)
                 (global.set $stream (local.get $id))
                 (i32.const 4))
               (func (export "proxy_on_tick") (param i32)
                 (if (i32.eqz (call $set_effective_context (global.get $stream)))
                   (then (call $say (i32.const 7)) (drop (call $continue_stream (i32.const 1))))))"#,
        );
        assert_eq!(bench.send(get("/")).await.said(), [7]);
    });
}

/// Remembers its stream in `$stream`, answers the headers with `status`, and goes on with `tick` after 100 ms.
fn resumed_by_a_tick(status: u32, tick: &str) -> String {
    format!(
        r#"(global $stream (mut i32) (i32.const 0))
           (func (export "proxy_on_configure") (param i32 i32) (result i32)
             (drop (call $set_tick_period_milliseconds (i32.const 100)))
             (i32.const 1))
           (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
             (global.set $stream (local.get $id))
             (i32.const {status}))
           (func (export "proxy_on_tick") (param i32)
             (if (i32.eqz (call $set_effective_context (global.get $stream))) (then {tick})))"#
    )
}

const GO_ON: &str = "(drop (call $continue_stream (i32.const 0)))";

/// Adds what it sees of the request's body and trailers to the shared value `seen`: `b`, its size and the end flag; `t`.
const NOTES: &str = r#"
    (global $notes (mut i32) (i32.const 0))
    (func $note (param $byte i32)
      (i32.store8 (i32.add (i32.const 512) (global.get $notes)) (local.get $byte))
      (global.set $notes (i32.add (global.get $notes) (i32.const 1)))
      (drop (call $set_shared_data @"seen" (i32.const 512) (global.get $notes) (i32.const 0))))
    (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
      (call $note (i32.const 98))
      (call $note (i32.add (i32.const 48) (local.get $size)))
      (call $note (i32.add (i32.const 48) (local.get $end)))
      (i32.const 0))
    (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) (call $note (i32.const 116)) (i32.const 0))"#;

#[test]
fn a_request_that_is_continued_does_not_wait_for_its_body() {
    run(async {
        for status in [1, 3, 4] {
            let bench = Setup::default().bench(&(resumed_by_a_tick(status, GO_ON) + NOTES));
            let (come, comes) = tokio::sync::oneshot::channel::<()>();
            let late = futures_util::stream::once(async move {
                comes.await.unwrap();
                Ok::<_, tollgate_base::Error>(http_body::Frame::data(bytes::Bytes::from_static(b"late")))
            });
            let body = Body::boxed(http_body_util::StreamBody::new(late));
            let upstream = async {
                let arrived = tokio::time::timeout(Duration::from_secs(5), bench.arrived.notified());
                let waited = arrived.await.is_err();
                come.send(()).unwrap();
                waited
            };
            let (got, waited) = tokio::join!(bench.send(post(body)), upstream);
            assert!(!waited, "{status}: the head waits for the body");
            assert_eq!((got.status, bench.seen().body), (200, "late".into()), "{status}");
            let (seen, _) = bench.generation.host.shared.get(b"seen").unwrap();
            assert!(seen.starts_with(b"b4"), "{status}: {seen:?}");
        }
    });
}

#[test]
fn what_came_while_everything_was_held_is_shown_from_the_start() {
    run(async {
        for status in [3, 4] {
            let bench = Setup::default().bench(&(resumed_by_a_tick(status, GO_ON) + NOTES));
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-one", "1".parse().unwrap());
            let frames = [
                Ok::<_, tollgate_base::Error>(http_body::Frame::data(bytes::Bytes::from_static(b"bo"))),
                Ok(http_body::Frame::data(bytes::Bytes::from_static(b"dy"))),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body = Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(
                frames,
            )));
            let sent = tokio::time::timeout(Duration::from_secs(5), bench.send(post(body)));
            drop(sent.await.expect("it was not continued"));
            assert_eq!(bench.seen().body, "body", "{status}");
            let (seen, _) = bench.generation.host.shared.get(b"seen").unwrap();
            assert_eq!(seen, "b40t", "{status}");
        }
    });
}

#[test]
fn a_body_held_by_status_three_is_refused_over_the_limit_and_by_four_not_read() {
    run(async {
        let send = async |status, tick| {
            let mut bench = Setup::default().bench(&resumed_by_a_tick(status, tick));
            bench.buffer_limit = 8;
            let read = Rc::new(Cell::new(0));
            let (count, seen) = (read.clone(), read.clone());
            let frames = futures_util::stream::iter(["12345"; 4]).map(move |text| {
                count.set(count.get() + 1);
                Ok::<_, tollgate_base::Error>(http_body::Frame::data(bytes::Bytes::from_static(
                    text.as_bytes(),
                )))
            });
            let body = Body::boxed(http_body_util::StreamBody::new(frames));
            let look = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                seen.get()
            };
            let sent = bench.send(post(body));
            let (got, read) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), sent), look);
            let got = got.map(|got| {
                (
                    got.status,
                    bench.seen.borrow().clone().map(|seen| seen.body.len()),
                )
            });
            (got.ok(), read)
        };
        assert_eq!(send(3, "").await, (Some((413, None)), 2));
        assert_eq!(send(4, GO_ON).await, (Some((200, Some(20))), 2));
        assert_eq!(send(4, "").await, (None, 2));
    });
}

#[test]
fn grpc_clients_get_a_local_reply_as_trailers_only() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (drop (call $send_local_response (i32.const 403) @"d" @"no 100%" @"" (i32.const -1)))
                 (i32.const 1))"#,
        );
        let mut request = get("/");
        request
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let got = bench.send(request).await;
        assert_eq!((got.status, got.text()), (200, ""));
        assert_eq!(
            (&got.headers["grpc-status"], &got.headers["grpc-message"]),
            (&"7".parse().unwrap(), &"no 100%25".parse().unwrap())
        );
    });
}

#[test]
fn trailers_are_shown_and_changed() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_response_trailers") (param $id i32) (param $count i32) (result i32)
                 (drop (call $add_header_map_value (i32.const 3) @"x-more" @"1"))
                 (i32.const 0))"#,
        );
        bench.answers(|_| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-one", "1".parse().unwrap());
            let frames = [
                Ok::<_, tollgate_base::Error>(http_body::Frame::data(bytes::Bytes::from_static(b"b"))),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            Ok(Response::new(Body::boxed(http_body_util::StreamBody::new(
                futures_util::stream::iter(frames),
            ))))
        });
        let got = bench.send(get("/")).await;
        assert_eq!(got.text(), "b");
        let trailers = got.trailers.unwrap();
        assert_eq!(
            (&trailers["x-one"], &trailers["x-more"]),
            (&"1".parse().unwrap(), &"1".parse().unwrap())
        );
    });
}

#[test]
fn a_held_body_over_the_limit_is_refused_by_name() {
    run(async {
        let hold = r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
               (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 1))"#;
        let mut bench = Setup::default().bench(hold);
        bench.buffer_limit = 8;
        let got = bench.send(post(chunks(&["12345", "67890"]))).await;
        assert!(got.status == 413 || bench.seen.borrow().is_none(), "{got:?}");
        bench.answers(|_| Ok(Response::new(chunks(&["12345", "67890"]))));
        let got = bench.send(get("/")).await;
        assert_eq!(got.body.unwrap_err(), "response_payload_too_large");
    });
}

#[test]
fn a_closed_stream_fails() {
    run(async {
        let bench = Setup::default().bench(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (drop (call $close_stream (i32.const 0)))
                 (i32.const 1))"#,
        );
        let got = bench.send(get("/")).await;
        assert_eq!(
            (got.status, &**got.record.details.borrow()),
            (503, "wasm_close_stream")
        );
    });
}

#[test]
fn changed_headers_choose_the_route_again_unless_the_module_says_off() {
    run(async {
        let handlers = |before: &str| {
            format!(
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                     {before}
                     (drop (call $replace_header_map_value (i32.const 0) @"x-model" @"m"))
                     (i32.const 0))
                   (func (export "proxy_on_log") (param $id i32)
                     (drop (call $get_property @"route_name" (i32.const 16) (i32.const 20)))
                     (drop (call $set_property @"seen" (i32.load (i32.const 16)) (i32.load (i32.const 20)))))"#
            )
        };
        let bench = Setup::default().bench(&handlers(""));
        assert_eq!(bench.send(get("/")).await.state("wasm.seen").unwrap(), "rerouted");
        drop(bench);
        let off = r#"(drop (call $set_property @"clear_route_cache" @"off"))"#;
        let bench = Setup::default().bench(&handlers(off));
        assert_eq!(bench.send(get("/")).await.state("wasm.seen").unwrap(), "route-1");
    });
}

#[test]
fn the_first_interface_continues_and_clears_by_names_of_its_own() {
    run(async {
        let names = r#"
            (import "env" "proxy_continue_request" (func $continue_request))
            (import "env" "proxy_continue_response" (func $continue_response (result i32)))
            (import "env" "proxy_clear_route_cache" (func $clear_route_cache (result i32)))"#;
        let setup = Setup {
            abi: "0_1_0",
            imports: names,
            ..Setup::default()
        };
        let bench = setup.bench(
            r#"(global $stream (mut i32) (i32.const 0))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (drop (call $set_tick_period_milliseconds (i32.const 100)))
                 (i32.const 1))
               (func (export "proxy_on_request_headers") (param $id i32) (param i32) (result i32)
                 (global.set $stream (local.get $id))
                 (if (call $clear_route_cache) (then unreachable))
                 (i32.const 1))
               (func (export "proxy_on_response_headers") (param i32 i32) (result i32) (i32.const 1))
               (func (export "proxy_on_tick") (param i32)
                 (if (call $set_effective_context (global.get $stream)) (then (return)))
                 (if (call $get_header_map_size (i32.const 2) (i32.const 16))
                   (then (call $continue_request))
                   (else (call $say (i32.const 7)) (if (call $continue_response) (then unreachable)))))
               (func (export "proxy_on_log") (param $id i32)
                 (drop (call $get_property @"route_name" (i32.const 16) (i32.const 20)))
                 (drop (call $set_property @"seen" (i32.load (i32.const 16)) (i32.load (i32.const 20)))))"#,
        );
        let sent = tokio::time::timeout(Duration::from_secs(5), bench.send(get("/")));
        let got = sent.await.expect("it was not continued");
        assert_eq!((got.status, got.said()), (200, vec![7]));
        // No header was changed: the route was chosen again because the module asked for it.
        assert_eq!(got.state("wasm.seen").unwrap(), "rerouted");
    });
}
