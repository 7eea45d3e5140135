//! Calls to other services, and their answers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_body::{Body, Response};

use super::harness::{Setup, get, run};
use crate::limits::Limits;

pub(super) const HEADERS: &str = r#"@"\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\02\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/x\00:authority\00s\00""#;

/// Calls out in the request's headers and goes on with what came.
fn calling(cluster: &str) -> String {
    format!(
        r#"(global $stream (mut i32) (i32.const 0))
           (func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
             (global.set $stream (local.get $id))
             (call $say (call $http_call @"{cluster}" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))
             (i32.const 4))
           (func (export "proxy_on_http_call_response") (param $root i32) (param $token i32) (param $headers i32) (param $size i32) (param $trailers i32)
             (if (i32.ne (local.get $root) (i32.const 1)) (then unreachable))
             (if (i32.ne (local.get $token) (i32.load (i32.const 24))) (then unreachable))
             (drop (call $get_header_map_value (i32.const 6) @":status" (i32.const 16) (i32.const 20)))
             (drop (call $set_effective_context (global.get $stream)))
             (call $show)
             (drop (call $get_buffer_bytes (i32.const 4) (i32.const 0) (local.get $size) (i32.const 16) (i32.const 20)))
             (call $show)
             (call $say (local.get $headers))
             (drop (call $continue_stream (i32.const 0))))"#
    )
}

#[test]
fn an_http_call_holds_the_request_until_its_answer() {
    run(async {
        let setup = Setup::default().service("outbound|80||s.dns", |request| {
            let shown = format!("{} {}", request.method(), request.uri());
            Ok(Response::new(Body::bytes(shown)))
        });
        let bench = setup.bench(&calling("outbound|80||s.dns"));
        let seen = bench.ask().await;
        assert_eq!(seen.got(), ["200", "GET http://s/x"]);
        assert_eq!(seen.said(), [0, 1]);
    });
}

#[test]
fn a_failed_http_call_has_a_status_and_a_text() {
    run(async {
        let setup = Setup::default().service("outbound|80||s.dns", |_| {
            Err(tollgate_base::Error::timeout(tollgate_base::Timer::Total))
        });
        let bench = setup.bench(&calling("outbound|80||s.dns"));
        assert_eq!(bench.ask().await.got(), ["504", "upstream request timeout"]);
    });
}

#[test]
fn http_calls_that_cannot_be_sent_are_refused_at_once() {
    run(async {
        let setup = Setup::default().service("known", |_| Ok(Response::new(Body::empty())));
        let code = format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (call $say (call $http_call @"unknown" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))
                 (call $say (call $http_call @"known" @"" @"" @"" (i32.const 500) (i32.const 24)))
                 (call $say (call $http_call @"known" {HEADERS} @"" @"" (i32.const -1) (i32.const 24)))
                 (call $say (call $http_call @"known" {HEADERS} @"" @"" (i32.const 500) (i32.const -1)))
                 (i32.const 0))"#
        );
        assert_eq!(setup.bench(&code).ask().await.said(), [2, 2, 2, 6]);
    });
}

#[test]
fn calls_under_way_hold_so_many_bytes() {
    run(async {
        let limits = Limits {
            call_bytes: 100,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let call =
            format!(r#"(call $say (call $http_call @"s" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))"#);
        let bench = setup
            .service("s", |_| Ok(Response::new(Body::empty())))
            .bench(&format!(
                r#"(global $stream (mut i32) (i32.const 0))
                   (func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
                     (global.set $stream (local.get $id))
                     (drop (call $redis_init @"s" @"" @"" (i32.const 100)))
                     {call} {call}
                     (call $say (call $redis_call @"s" (i32.const 0) (i32.const 50) (i32.const 24)))
                     (i32.const 4))
                   (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                     (if (i32.eqz (call $set_effective_context (global.get $stream))) (then
                       (global.set $stream (i32.const 0))
                       {call}
                       (drop (call $continue_stream (i32.const 0))))))"#
            ));
        // What was answered makes room again.
        assert_eq!(bench.ask().await.said(), [0, 10, 10, 0]);
    });
}

#[test]
fn so_many_calls_are_under_way() {
    run(async {
        let limits = Limits {
            calls: 2,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let call =
            format!(r#"(call $say (call $http_call @"s" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))"#);
        let bench = setup
            .service("s", |_| Ok(Response::new(Body::empty())))
            .bench(&format!(
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                     (drop (call $redis_init @"s" @"" @"" (i32.const 100)))
                     {call} {call} {call}
                     (call $say (call $redis_call @"s" @"*0" (i32.const 24)))
                     (i32.const 0))"#
            ));
        assert_eq!(bench.ask().await.said(), [0, 0, 10, 10]);
        assert_eq!(bench.beyond("wasm_calls_limit"), 2);
        // What was answered makes room again.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(bench.ask().await.said(), [0, 0, 10, 10]);
    });
}

/// Its first half is there at once, its end after 100 ms.
fn slow(size: usize) -> Body {
    let frame =
        |size: usize| Ok::<_, tollgate_base::Error>(http_body::Frame::data(Bytes::from(vec![b'a'; size])));
    let later = futures_util::stream::once(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        frame(size / 2)
    });
    let frames = futures_util::stream::iter([frame(size / 2)]).chain(later);
    // What is polled is pinned, since it sleeps.
    Body::boxed(http_body_util::StreamBody::new(Box::pin(frames)))
}

#[test]
fn answers_that_are_on_their_way_hold_so_many_bytes() {
    run(async {
        let limits = Limits {
            call_bytes: 1700,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let call = |service: &str| {
            format!(
                r#"(drop (call $http_call @"{service}" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))"#
            )
        };
        let (a, b) = (call("a"), call("b"));
        let bench = setup
            .service("a", |_| Ok(Response::new(slow(1600))))
            .service("b", |_| Ok(Response::new(slow(1600))))
            .bench(&format!(
                r#"(global $stream (mut i32) (i32.const 0))
                   (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
                     (global.set $stream (local.get $id))
                     {a} {b}
                     (i32.const 4))
                   (func (export "proxy_on_http_call_response") (param i32) (param $token i32) (param $headers i32) (param $size i32) (param i32)
                     (if (call $set_effective_context (global.get $stream)) (then unreachable))
                     (call $say (local.get $token)) (call $say (local.get $headers))
                     (call $say (i32.div_u (local.get $size) (i32.const 100)))
                     (if (i32.eq (local.get $token) (i32.const 1)) (then (drop (call $continue_stream (i32.const 0))))))"#
            ));
        // Both fit alone, and not both at once. The one that is refused makes room for the other.
        assert_eq!(bench.ask().await.said(), [2, 0, 0, 1, 1, 16]);
        assert_eq!(bench.beyond("wasm_call_bytes_limit"), 1);
    });
}

#[test]
fn an_http_call_carries_the_trailers_that_it_was_given() {
    run(async {
        let setup = Setup::default().service("s", |request| {
            let trailers = request.extensions().get::<http::HeaderMap>();
            let shown = trailers.map_or("none", |trailers| trailers["x-sum"].to_str().unwrap());
            let body = String::from_utf8_lossy(request.body().as_bytes().unwrap());
            Ok(Response::new(Body::bytes(format!("{shown} {body}"))))
        });
        let trailers = r#"@"\01\00\00\00\05\00\00\00\01\00\00\00X-Sum\007\00""#;
        let bench = setup.bench(&calling("s").replace(
            &format!(r#"{HEADERS} @"" @"""#),
            &format!(r#"{HEADERS} @"body" {trailers}"#),
        ));
        assert_eq!(bench.ask().await.got(), ["200", "7 body"]);
    });
}

#[test]
fn an_answer_after_the_request_is_delivered_to_the_plugin_context() {
    run(async {
        let setup = Setup::default().service("s", |_| Ok(Response::new(Body::empty())));
        let bench = setup.bench(&format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (drop (call $http_call @"s" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))
                 (i32.const 0))
               (func (export "proxy_on_http_call_response") (param $root i32) (param i32 i32 i32 i32)
                 (drop (call $set_shared_data @"root" @"heard" (i32.const 0))))"#
        ));
        bench.send(get("/")).await;
        // Whoever waits lets the other tasks of the worker run.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let heard = bench.generation.host.shared.get(b"root");
        assert_eq!(heard.unwrap().0, "heard");
    });
}

#[test]
fn redis_calls_go_out_introduced_and_come_back_raw() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tollgate_base::task::spawn("redis", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            for reply in ["+OK\r\n", "+OK\r\n", ":4", "2\r\n"] {
                if reply != "2\r\n" {
                    let mut piece = [0; 256];
                    let length = stream.read(&mut piece).await.unwrap();
                    heard.extend_from_slice(&piece[..length]);
                }
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
            String::from_utf8(heard).unwrap()
        });
        let bench = Setup::default().address("r", address).bench(
            r#"(global $stream (mut i32) (i32.const 0))
               (func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
                 (global.set $stream (local.get $id))
                 (call $say (call $redis_init @"unknown" @"" @"" (i32.const 100)))
                 (call $say (call $redis_call @"r" @"*1\0d\0a" (i32.const 24)))
                 (call $say (call $redis_init @"r?db=3&buffer_flush_timeout=3" @"u" @"p" (i32.const 60000)))
                 (call $say (call $redis_call @"r" @"*1\0d\0a$4\0d\0aPING\0d\0a" (i32.const 24)))
                 (i32.const 4))
               (func (export "proxy_on_redis_call_response") (param $root i32) (param $token i32) (param $status i32) (param $size i32)
                 (drop (call $set_effective_context (global.get $stream)))
                 (call $say (local.get $status))
                 (drop (call $get_buffer_bytes (i32.const 9) (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 20)))
                 (call $show)
                 (drop (call $continue_stream (i32.const 0))))"#,
        );
        let seen = bench.ask().await;
        assert_eq!(seen.said(), [2, 2, 0, 0, 0]);
        assert_eq!(seen.got(), [":42"]);
        let heard = server.await.unwrap();
        assert!(
            heard.starts_with("*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"),
            "{heard}"
        );
    });
}

#[test]
fn a_redis_reply_counts_among_the_answers() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(tollgate_base::task::spawn("redis", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut piece = [0; 256];
                let _ = stream.read(&mut piece).await;
                let _ = stream
                    .write_all(format!("$500\r\n{}\r\n", "a".repeat(500)).as_bytes())
                    .await;
            }
        }));
        for (call_bytes, expected, counted) in [(1000, [0, 5], 0), (300, [1, 0], 1)] {
            let limits = Limits {
                call_bytes,
                ..Limits::default()
            };
            let setup = Setup {
                limits,
                ..Setup::default()
            };
            let bench = setup.address("r", address).bench(
                r#"(global $stream (mut i32) (i32.const 0))
                   (func (export "proxy_on_request_headers") (param $id i32) (param i32 i32) (result i32)
                     (global.set $stream (local.get $id))
                     (drop (call $redis_init @"r" @"" @"" (i32.const 60000)))
                     (drop (call $redis_call @"r" @"*1\0d\0a$4\0d\0aPING\0d\0a" (i32.const 24)))
                     (i32.const 4))
                   (func (export "proxy_on_redis_call_response") (param i32 i32) (param $status i32) (param $size i32)
                     (drop (call $set_effective_context (global.get $stream)))
                     (call $say (local.get $status))
                     (call $say (i32.div_u (local.get $size) (i32.const 100)))
                     (drop (call $continue_stream (i32.const 0))))"#,
            );
            assert_eq!(bench.ask().await.said(), expected, "{call_bytes}");
            assert_eq!(bench.beyond("wasm_call_bytes_limit"), counted);
        }
    });
}

#[test]
fn an_unreachable_redis_is_status_one() {
    run(async {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let bench = Setup::default().address("r", closed).bench(
            r#"(global $stream (mut i32) (i32.const 0))
               (func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
                 (global.set $stream (local.get $id))
                 (drop (call $redis_init @"r" @"" @"" (i32.const 60000)))
                 (drop (call $redis_call @"r" @"*1\0d\0a$4\0d\0aPING\0d\0a" (i32.const 24)))
                 (i32.const 4))
               (func (export "proxy_on_redis_call_response") (param $root i32) (param $token i32) (param $status i32) (param $size i32)
                 (drop (call $set_effective_context (global.get $stream)))
                 (call $say (local.get $status))
                 (call $say (local.get $size))
                 (drop (call $continue_stream (i32.const 0))))"#,
        );
        assert_eq!(bench.ask().await.said(), [1, 0]);
    });
}

#[test]
fn a_call_out_may_take_over_a_streamed_answer() {
    run(async {
        let setup = Setup::default().service("s", |_| {
            Ok(Response::new(Body::bytes(Bytes::from_static(b"checked"))))
        });
        let bench = setup.bench(&format!(
            r#"(global $stream (mut i32) (i32.const 0))
               (func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (global.set $stream (local.get $id))
                 (if (local.get $end)
                   (then (drop (call $http_call @"s" {HEADERS} @"" @"" (i32.const 500) (i32.const 24)))))
                 (i32.const 3))
               (func (export "proxy_on_http_call_response") (param $root i32) (param $token i32) (param $headers i32) (param $size i32) (param $trailers i32)
                 (drop (call $get_buffer_bytes (i32.const 4) (i32.const 0) (local.get $size) (i32.const 16) (i32.const 20)))
                 (drop (call $set_effective_context (global.get $stream)))
                 (drop (call $inject_encoded_data_to_filter_chain (i32.load (i32.const 16)) (i32.load (i32.const 20)) (i32.const 1))))"#
        ));
        assert_eq!(bench.send(get("/")).await.text(), "checked");
    });
}
