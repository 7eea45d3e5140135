//! How an instance lives: start, configuration, ticks, queues, the order at a request's end, WASI.

use std::time::Duration;

use super::harness::{Setup, get, run};
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
