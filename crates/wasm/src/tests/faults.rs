//! Modules that break: each costs its own request, the instance is thrown away, and a fresh one comes after a pause.

use std::time::Duration;

use bytes::Bytes;
use tollgate_body::{Body, Response};

use super::harness::{Bench, Setup, chunks, get, post, run};
use crate::limits::Limits;
use crate::vm::Vm;

/// Breaks on requests with the header `x-break`.
fn breaking(how: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (if (i32.eqz (call $get_header_map_value (i32.const 0) @"x-break" (i32.const 16) (i32.const 20))) (then {how}))
             (i32.const 0))"#
    )
}

async fn broken_by(bench: &Bench) -> super::harness::Got {
    let mut request = get("/");
    request.headers_mut().insert("x-break", "1".parse().unwrap());
    bench.send(request).await
}

async fn breaks(bench: Bench) {
    assert_eq!(bench.send(get("/")).await.status, 200);
    let got = broken_by(&bench).await;
    assert_eq!((got.status, got.text()), (503, ""));
    assert_eq!(&*got.record.details.borrow(), "wasm_fail_stream");
    // Not called again, and not started again at once.
    assert_eq!(bench.send(get("/")).await.status, 503);
    tokio::time::sleep(Duration::from_millis(1001)).await;
    assert_eq!(bench.send(get("/")).await.status, 200);
    let (created, active) = (
        bench.generation.metrics.created.get(),
        bench.generation.metrics.active.get(),
    );
    assert_eq!((created, active, bench.generation.metrics.traps.get()), (2, 1, 1));
}

#[test]
fn a_trap_costs_one_request_and_a_pause() {
    run(async { breaks(Setup::default().bench(&breaking("unreachable"))).await });
}

#[test]
fn an_endless_loop_is_cut() {
    run(async {
        let limits = Limits {
            stream_time: Duration::from_millis(20),
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        breaks(setup.bench(&breaking("(loop $forever (br $forever))"))).await;
    });
}

/// As a module of AssemblyScript ends.
#[test]
fn abort_is_a_trap() {
    run(async {
        let setup = || Setup {
            imports: r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#,
            ..Setup::default()
        };
        let how = "(call $abort (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 7))";
        breaks(setup().bench(&breaking(how))).await;
        let start = format!(r#"(func (export "_initialize") {how})"#);
        let refusal = Vm::start(&setup().bench(&start).generation, None).err().unwrap();
        assert!(refusal.contains("abort at line 3, column 7"), "{refusal}");
    });
}

#[test]
fn a_stack_without_end_is_cut() {
    run(async {
        let how = "(call $deeper)";
        let handlers = format!("(func $deeper (call $deeper)) {}", breaking(how));
        breaks(Setup::default().bench(&handlers)).await;
    });
}

#[test]
fn memory_over_the_limit_is_not_given() {
    run(async {
        let limits = Limits {
            memory: 1 << 20,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let how = "(if (i32.lt_s (memory.grow (i32.const 64)) (i32.const 0)) (then unreachable))";
        breaks(setup.bench(&breaking(how))).await;
    });
}

#[test]
fn a_panic_below_a_host_call_is_a_trap() {
    run(async {
        let how = r#"(drop (call $redis_init @"panics" @"" @"" (i32.const 100)))"#;
        breaks(Setup::default().bench(&breaking(how))).await;
        let setup = Setup {
            fail_open: true,
            ..Setup::default()
        };
        let bench = setup.bench(&breaking(how));
        assert_eq!(broken_by(&bench).await.status, 200);
        assert_eq!(bench.generation.metrics.traps.get(), 1);
    });
}

#[test]
fn with_fail_open_requests_pass_without_the_module() {
    run(async {
        let setup = Setup {
            fail_open: true,
            ..Setup::default()
        };
        let bench = setup.bench(&breaking("unreachable"));
        assert_eq!(broken_by(&bench).await.status, 200);
        assert!(bench.seen().headers.contains_key("x-break"));
        assert_eq!(bench.send(get("/")).await.text(), "answer");
    });
}

#[test]
fn a_trap_in_a_body_cuts_it_or_lets_it_pass() {
    run(async {
        let handlers = r#"(func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
             (if (i32.eq (local.get $size) (i32.const 3)) (then unreachable))
             (i32.const 0))"#;
        for (fail_open, expected) in [
            (true, Ok(Bytes::from_static(b"abcdefg"))),
            (false, Err("wasm_fail_stream".to_owned())),
        ] {
            let setup = Setup {
                fail_open,
                ..Setup::default()
            };
            let bench = setup.bench(handlers);
            bench.answers(|_| Ok(Response::new(chunks(&["ab", "cde", "fg"]))));
            assert_eq!(bench.send(get("/")).await.body, expected);
        }
    });
}

#[test]
fn other_requests_that_a_broken_instance_held_are_told() {
    run(async {
        let bench = Setup::default().bench(&format!(
            r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
               {}"#,
            breaking("unreachable")
        ));
        let held = bench.open(post(Body::bytes("held")));
        let other = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            broken_by(&bench).await
        };
        let ((record, outcome), broken) = tokio::join!(held, other);
        assert_eq!(broken.status, 503);
        assert_eq!(bench.finish(record, outcome).await.status, 503);
    });
}

#[test]
fn lying_pointers_and_allocators_are_refused() {
    run(async {
        let bench = Setup::default().bench_of(&wat::parse_str(
            r#"(module
                (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
                (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 1)
                (data (i32.const 16) ":path")
                (func (export "proxy_abi_version_0_2_1"))
                (func (export "malloc") (param i32) (result i32) (i32.const -2))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                  (drop (call $reply (i32.add (i32.const 200) (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 36)))
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
                  (i32.const 1)))"#,
        ).unwrap());
        assert_eq!(bench.send(get("/")).await.status, 206);
    });
}
