//! How an instance lives: start, configuration, ticks, queues, the order at a request's end, WASI.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate_body::{Body, Response};

use super::calls::HEADERS;
use super::harness::{Setup, get, run};
use crate::generation::{Generation, Spec};
use crate::vm::Vm;
use crate::worker;

#[test]
fn the_order_of_a_plugins_life() {
    run(async {
        // Each step appends a letter to what is shared.
        let step = |letter: &str| {
            format!(
                r#"(i32.store8 (i32.add (i32.const 512) (global.get $steps)) (i32.const {}))
                   (global.set $steps (i32.add (global.get $steps) (i32.const 1)))
                   (drop (call $set_shared_data @"steps" (i32.const 512) (global.get $steps) (i32.const 0)))"#,
                letter.as_bytes()[0]
            )
        };
        let loading = r#"(i32.store8 (i32.const 512) (i32.const 105)) (global.set $steps (i32.const 1))"#;
        let (c, v, g, h, l, d, x) = (
            step("c"),
            step("v"),
            step("g"),
            step("h"),
            step("l"),
            step("d"),
            step("x"),
        );
        let bench = Setup {
            config: "{\"a\":1}",
            ..Setup::default()
        }
        .bench(&format!(
            r#"(global $steps (mut i32) (i32.const 0))
               (func (export "_initialize") {loading})
               (func (export "proxy_on_context_create") (param i32 i32) {c})
               (func (export "proxy_on_vm_start") (param i32 i32) (result i32) {v} (i32.eqz (local.get 1)))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 {g}
                 (drop (call $get_buffer_bytes (i32.const 7) (i32.const 0) (i32.const 99) (i32.const 16) (i32.const 20)))
                 (i32.and (i32.eq (local.get 1) (i32.const 7)) (i32.eq (i32.load (i32.const 20)) (i32.const 7))))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {h} (i32.const 0))
               (func (export "proxy_on_log") (param i32) {l})
               (func (export "proxy_on_done") (param i32) (result i32) {d} (i32.const 1))
               (func (export "proxy_on_delete") (param i32) {x})"#
        ));
        let steps = || bench.generation.host.shared.get(b"steps").unwrap().0;
        bench.send(get("/")).await;
        assert_eq!(steps(), "icvgchldx");
        worker::stop_all();
        assert_eq!(steps(), "icvgchldxdx");
    });
}

#[test]
fn a_module_that_refuses_to_start_says_why() {
    run(async {
        let refusal = |handlers: &str| {
            Vm::start(&Setup::default().bench(handlers).generation, None)
                .err()
                .unwrap()
        };
        let start = r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 0))"#;
        assert_eq!(refusal(start), "proxy_on_vm_start refused");
        let configure = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))"#;
        assert_eq!(refusal(configure), "it refused its configuration");
        let trap = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) unreachable)"#;
        assert_eq!(refusal(trap), "it trapped on its configuration");
        let early = r#"(func (export "_initialize") (drop (call $done)))"#;
        assert!(refusal(early).contains("proxy_done was called before the module had started"));
        let typed = r#"(func (export "proxy_on_request_headers") (param i32))"#;
        assert!(refusal(typed).contains("proxy_on_request_headers"));
    });
}

#[test]
fn a_command_runs_on_after_its_start_has_left_with_zero() {
    run(async {
        let bench = |code: u32| {
            let setup = Setup {
                imports: r#"(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))"#,
                ..Setup::default()
            };
            setup.bench(&format!(
                r#"(global $started (mut i32) (i32.const 0))
                   (func (export "_start")
                     (global.set $started (i32.const 7))
                     (call $proc_exit (i32.const {code}))
                     unreachable)
                   (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                     (call $say (global.get $started))
                     (i32.const 0))
                   (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                     (call $proc_exit (i32.const 0))
                     (i32.const 0))"#
            ))
        };
        let runs = bench(0);
        let got = runs.send(get("/")).await;
        assert_eq!(runs.seen().said(), [7]);
        // Later it is the end of the instance.
        assert_eq!((got.status, runs.generation.metrics.traps.get()), (503, 1));
        let refusal = Vm::start(&bench(3).generation, None).err().unwrap();
        assert!(
            refusal.contains("the module ended itself with code 3"),
            "{refusal}"
        );
    });
}

#[test]
fn the_first_interface_asks_for_its_configuration() {
    run(async {
        let setup = Setup {
            abi: "0_1_0",
            imports: r#"(import "env" "proxy_get_configuration" (func $get_configuration (param i32 i32) (result i32)))"#,
            config: "config!",
            ..Setup::default()
        };
        let asks = r#"(call $get_configuration (i32.const 16) (i32.const 20))"#;
        let bench = setup.bench(&format!(
            r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
                 (i32.and (i32.eqz {asks}) (i32.eqz (i32.load (i32.const 20)))))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (if {asks} (then unreachable))
                 (i32.and
                   (i32.eq (i32.load (i32.const 20)) (i32.const 7))
                   (i32.eq (i32.load8_u (i32.add (i32.load (i32.const 16)) (i32.const 6))) (i32.const 33))))
               (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
                 (call $say {asks}) (call $say (i32.load (i32.const 20)))
                 (call $say (call $get_configuration (i32.const -1) (i32.const 20)))
                 (i32.const 0))"#
        ));
        assert_eq!(bench.ask().await.said(), [0, 0, 6]);
    });
}

#[test]
fn ticks_come_while_the_period_stands() {
    run(async {
        let bench = Setup::default().bench(
            r#"(global $ticks (mut i32) (i32.const 0))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (drop (call $set_tick_period_milliseconds (i32.const 100)))
                 (i32.const 1))
               (func (export "proxy_on_tick") (param i32)
                 (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
                 (i32.store8 (i32.const 512) (i32.add (i32.const 48) (global.get $ticks)))
                 (drop (call $set_shared_data @"ticks" (i32.const 512) (i32.const 1) (i32.const 0)))
                 (if (i32.eq (global.get $ticks) (i32.const 3))
                   (then (drop (call $set_tick_period_milliseconds (i32.const 0))))))"#,
        );
        drop(worker::instance(&bench.generation));
        tokio::time::sleep(Duration::from_millis(250)).await;
        let ticks = || bench.generation.host.shared.get(b"ticks").unwrap().0;
        assert_eq!(ticks(), "2");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(ticks(), "3");
    });
}

#[test]
fn wasi_gives_environment_clock_and_random_bytes() {
    run(async {
        let import = |name: &str, parameters: &str| {
            format!(
                r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {parameters}) (result i32)))"#
            )
        };
        let imports: String = [
            import("environ_sizes_get", "i32 i32"),
            import("environ_get", "i32 i32"),
            import("clock_time_get", "i32 i64 i32"),
            import("random_get", "i32 i32"),
            import("fd_write", "i32 i32 i32 i32"),
            import("fd_prestat_get", "i32 i32"),
            import("poll_oneoff", "i32 i32 i32 i32"),
            import("path_rename", "i32 i32 i32 i32 i32 i32"),
        ]
        .concat();
        let text = format!(
            r#"(module {imports}
               (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
               (memory (export "memory") 4)
               (data (i32.const 100) "x-said")
               (func (export "proxy_abi_version_0_2_1"))
               (func (export "malloc") (param i32) (result i32) (i32.const 65536))
               (func $say (param $n i32)
                 (i32.store8 (i32.const 8) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 10))))
                 (i32.store8 (i32.const 9) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
                 (drop (call $add (i32.const 0) (i32.const 100) (i32.const 6) (i32.const 8) (i32.const 2))))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (call $say (call $environ_sizes_get (i32.const 16) (i32.const 20)))
                 (call $say (i32.load (i32.const 16))) (call $say (i32.load (i32.const 20)))
                 (call $say (call $environ_get (i32.const 200) (i32.const 300)))
                 (call $say (i32.load8_u (i32.add (i32.load (i32.const 200)) (i32.const 2))))
                 (call $say (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 16)))
                 (call $say (i64.gt_u (i64.load (i32.const 16)) (i64.const 1)))
                 (call $say (call $clock_time_get (i32.const 7) (i64.const 0) (i32.const 16)))
                 (call $say (call $random_get (i32.const 400) (i32.const 16)))
                 (call $say (call $random_get (i32.const -8) (i32.const 16)))
                 (call $say (call $random_get (i32.const 0) (i32.const 65537)))
                 (call $say (call $fd_write (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 16)))
                 (call $say (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 16)))
                 (call $say (call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 16)))
                 (call $say (call $fd_prestat_get (i32.const 3) (i32.const 16)))
                 (call $say (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
                 (call $say (call $path_rename (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
                 (i32.const 0)))"#
        );
        let setup = Setup {
            env: vec![("K".to_owned(), "7".to_owned())],
            ..Setup::default()
        };
        let seen = setup.bench_of(&wat::parse_str(text).unwrap()).ask().await;
        assert_eq!(
            seen.said(),
            [0, 1, 4, 0, 55, 0, 1, 58, 0, 21, 28, 8, 21, 21, 8, 0, 52]
        );
    });
}

#[test]
fn an_instance_that_asks_for_it_is_replaced_by_a_fresh_one() {
    run(async {
        let bench = Setup::default().bench(
            r#"(global $requests (mut i32) (i32.const 0))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (global.set $requests (i32.add (global.get $requests) (i32.const 1)))
                 (call $say (global.get $requests))
                 (drop (call $set_property @"wasm_need_rebuild" @"true"))
                 (i32.const 0))"#,
        );
        assert_eq!(bench.ask().await.said(), [1]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bench.ask().await.said(), [1]);
        assert_eq!(bench.generation.metrics.rebuilds.get(), 1);
        assert_eq!(bench.generation.metrics.active.get(), 1);
    });
}

/// A module that writes to standard output: `$write` writes `count` pieces from the list at 4096, and gives their number
/// of bytes when the call succeeds.
fn writing(code: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
           (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
           (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
           (memory (export "memory") 8)
           (data (i32.const 100) "one\ntw") (data (i32.const 110) "o\r\n\nthree")
           (func (export "proxy_abi_version_0_2_1"))
           (func (export "malloc") (param i32) (result i32) (i32.const 65536))
           (func $piece (param $index i32) (param $at i32) (param $length i32)
             (i32.store (i32.add (i32.const 4096) (i32.mul (local.get $index) (i32.const 8))) (local.get $at))
             (i32.store (i32.add (i32.const 4100) (i32.mul (local.get $index) (i32.const 8))) (local.get $length)))
           (func $write (param $count i32)
             (if (call $fd_write (i32.const 1) (i32.const 4096) (local.get $count) (i32.const 16)) (then unreachable))
             (drop (call $share (i32.const 100) (i32.const 3) (i32.const 16) (i32.const 4) (i32.const 0))))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
             {code} (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn one_call_writes_so_much_and_says_how_much() {
    run(async {
        let pieces = r#"(loop $next (call $piece (local.get $n) (i32.const 100) (i32.const 1))
             (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000))))
             (call $write (i32.const 3000))"#;
        let long = r#"(call $piece (i32.const 0) (i32.const 65536) (i32.const 40000))
             (call $piece (i32.const 1) (i32.const 65536) (i32.const 300000)) (call $write (i32.const 2))"#;
        let lines = r#"(memory.fill (i32.const 65536) (i32.const 10) (i32.const 60000))
             (call $piece (i32.const 0) (i32.const 65536) (i32.const 60000)) (call $write (i32.const 1))"#;
        for (code, expected) in [(pieces, 1024), (long, 65_536), (lines, 1024)] {
            let bench = Setup::default().bench_of(&writing(code));
            bench.ask().await;
            let (written, _) = bench.generation.host.shared.get(b"one").unwrap();
            assert_eq!(u32::from_le_bytes(written[..].try_into().unwrap()), expected);
        }
    });
}

#[test]
fn what_is_written_is_logged_by_lines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Arc::new(file.reopen().unwrap());
    let to_log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log)
        .finish();
    tracing::subscriber::with_default(to_log, || {
        run(async {
            let code = r#"(call $piece (i32.const 0) (i32.const 100) (i32.const 6))
                 (call $piece (i32.const 1) (i32.const 110) (i32.const 9)) (call $write (i32.const 2))"#;
            let bench = Setup::default().bench_of(&writing(code));
            bench.ask().await;
            worker::stop_all();
        });
    });
    let log = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<_> = log.lines().filter_map(|line| line.split_once("root: ")).collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|(_, text)| text.split(" plugin=").next().unwrap())
        .collect();
    assert_eq!(lines, ["one", "two", "", "three"], "{log}");
}

#[test]
fn a_deleted_guest_is_not_called_again() {
    run(async {
        let asked = Rc::new(Cell::new(0));
        let counter = asked.clone();
        let setup = Setup::default().service("s", move |_| {
            counter.set(counter.get() + 1);
            Ok(Response::new(Body::empty()))
        });
        let bench = setup.bench(&format!(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (drop (call $set_tick_period_milliseconds (i32.const 100)))
                 (i32.const 1))
               (func (export "proxy_on_log") (param i32)
                 (drop (call $http_call @"s" {HEADERS} @"" @"" (i32.const 500) (i32.const 24))))
               (func (export "proxy_on_tick") (param i32)
                 (drop (call $set_shared_data @"late" @"tick" (i32.const 0))))
               (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                 (drop (call $set_shared_data @"late" @"answer" (i32.const 0))))
               (func (export "proxy_on_delete") (param $id i32)
                 (drop (call $set_shared_data @"deleted" @"yes" (i32.const 0))))"#
        ));
        bench.send(get("/")).await;
        worker::stop_all();
        assert!(bench.generation.host.shared.get(b"deleted").is_some());
        tokio::time::sleep(Duration::from_secs(1)).await;
        // What it asked for at its end goes out all the same.
        assert_eq!(asked.get(), 1);
        assert_eq!(bench.generation.host.shared.get(b"late"), None);
        assert_eq!(bench.generation.metrics.active.get(), 0);
    });
}

/// Says that it is not done yet, and then does this every 100 ms.
fn not_done(tick: &str) -> String {
    format!(
        r#"(func (export "proxy_on_done") (param $id i32) (result i32)
             (drop (call $set_tick_period_milliseconds (i32.const 100)))
             (i32.const 0))
           (func (export "proxy_on_tick") (param i32) {tick})
           (func (export "proxy_on_delete") (param $id i32)
             (drop (call $set_shared_data @"deleted" @"yes" (i32.const 0))))"#
    )
}

#[test]
fn a_plugin_that_is_not_done_lives_until_it_says_so_or_time_is_up() {
    run(async {
        let done = Duration::from_millis(100);
        for (tick, lives) in [("(drop (call $done))", done), ("", Duration::from_secs(30))] {
            let bench = Setup::default().bench(&not_done(tick));
            let look = || {
                let deleted = bench.generation.host.shared.get(b"deleted").is_some();
                (deleted, bench.generation.metrics.active.get())
            };
            drop(worker::instance(&bench.generation));
            worker::stop_all();
            tokio::time::sleep(lives - Duration::from_millis(10)).await;
            assert_eq!(look(), (false, 1), "{lives:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(look(), (true, 0), "{lives:?}");
        }
    });
}

#[test]
fn an_instance_that_only_tries_a_config_waits_for_nothing() {
    run(async {
        let bench = Setup::default().bench(&not_done(""));
        let generation = bench.generation.clone();
        let trial = tokio::task::spawn_blocking(move || Vm::start(&generation, None).map(|vm| vm.retire()));
        assert_eq!(trial.await.unwrap(), Ok(()));
        assert_eq!(bench.generation.metrics.active.get(), 0);
        assert!(bench.generation.host.shared.get(b"deleted").is_some());
    });
}

#[test]
fn a_queues_latest_consumer_is_told_of_each_item() {
    run(async {
        let setup = Setup {
            config: "first",
            ..Setup::default()
        };
        let bench = setup.bench(
            r#"(global $items (mut i32) (i32.const 0))
               (func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (drop (call $register_shared_queue @"q" (i32.const 24)))
                 (drop (call $register_shared_queue @"other" (i32.const 28)))
                 (drop (call $get_buffer_bytes (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 32) (i32.const 36)))
                 (i32.const 1))
               (func (export "proxy_on_queue_ready") (param $root i32) (param $queue i32)
                 (if (i32.ne (local.get $queue) (i32.load (i32.const 24))) (then unreachable))
                 (drop (call $dequeue_shared_queue (local.get $queue) (i32.const 16) (i32.const 20)))
                 (global.set $items (i32.add (global.get $items) (i32.const 1)))
                 (i32.store8 (i32.const 512) (i32.add (i32.const 48) (global.get $items)))
                 (drop (call $set_shared_data (i32.load (i32.const 32)) (i32.load (i32.const 36)) (i32.const 512) (i32.const 1) (i32.const 0))))"#,
        );
        let first = &bench.generation;
        let spec = Spec {
            config: Bytes::from_static(b"second"),
            ..(*first.spec).clone()
        };
        let second = Generation::new(Arc::new(spec), first.artefact.clone(), first.host.clone());
        drop((worker::instance(first), worker::instance(&second)));
        // One that only tries a config takes nothing over.
        drop(Vm::start(first, None).unwrap());
        let shared = &first.host.shared;
        let queue = shared.resolve(b"q").unwrap();
        let told = |items: usize| {
            for _ in 0..items {
                shared
                    .enqueue(queue, Bytes::from_static(b"item"), 10_000)
                    .unwrap();
            }
            while worker::wake_queues() {}
            assert_eq!(shared.dequeue(queue), Ok(None));
            let count = |name: &[u8]| shared.get(name).map(|(count, _)| count);
            (count(b"first"), count(b"second"))
        };
        assert_eq!(told(3), (None, Some(Bytes::from_static(b"3"))));
        // When it goes, the one before it is asked again.
        let queued = first.host.queued.subscribe();
        worker::sweep(std::slice::from_ref(first));
        assert!(queued.has_changed().unwrap());
        assert_eq!(told(1).0.unwrap(), "1");
    });
}
