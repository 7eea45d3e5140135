//! Every host call with its statuses. The last test holds the list of calls against docs/wasm.md.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{Bench, Seen, Setup, functions, get, post, run};
use crate::limits::{Limits, Room};
use tollgate_base::Flag;
use tollgate_body::Body;

/// Runs these instructions in a request-header callback.
fn in_headers(code: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $end i32) (result i32)
             {code} (i32.const 0))"#
    )
}

async fn asked(code: &str) -> Seen {
    Setup::default().bench(&in_headers(code)).ask().await
}

/// What each call says, one number a call.
async fn said(calls: &[&str]) -> Vec<u32> {
    let code: Vec<String> = calls.iter().map(|call| format!("(call $say {call})")).collect();
    asked(&code.join("\n")).await.said()
}

/// Places for a result.
const TO: &str = "(i32.const 16) (i32.const 20)";
/// An address outside of memory.
const WILD: &str = "(i32.const -16) (i32.const 64)";

#[test]
fn log_levels_and_clock() {
    run(async {
        let calls = [
            r#"(call $log (i32.const 2) @"hello")"#,
            r#"(call $log (i32.const 6) @"hello")"#,
            &format!("(call $log (i32.const 2) {WILD})"),
            "(call $get_log_level (i32.const 16))",
            "(call $get_log_level (i32.const -1))",
            "(call $get_current_time_nanoseconds (i32.const 16))",
            "(call $get_current_time_nanoseconds (i32.const -4))",
        ];
        assert_eq!(said(&calls).await, [0, 2, 6, 0, 6, 0, 6]);
    });
}

#[test]
fn contexts_ticks_and_done() {
    run(async {
        let calls = [
            "(call $set_effective_context (i32.const 99))",
            "(call $set_effective_context (local.get $id))",
            "(call $done)",
            "(call $set_tick_period_milliseconds (i32.const 0))",
        ];
        assert_eq!(said(&calls).await, [2, 0, 1, 0]);
    });
}

#[test]
fn header_values() {
    run(async {
        let seen = asked(&format!(
            r#"(call $say (call $get_header_map_value (i32.const 0) @":Path" {TO}))
               (call $say (call $get_header_map_value (i32.const 0) @":path" {TO})) (call $show)
               (call $say (call $get_header_map_value (i32.const 0) @"missing" {TO}))
               (call $say (call $get_header_map_value (i32.const 2) @":status" {TO}))
               (call $say (call $get_header_map_value (i32.const 6) @"x" {TO}))
               (call $say (call $get_header_map_value (i32.const 99) @"x" {TO}))
               (call $say (call $get_header_map_value (i32.const 0) {WILD} {TO}))
               (call $say (call $get_header_map_value (i32.const 0) @":path" (i32.const -1) (i32.const 20)))
               (drop (call $add_header_map_value (i32.const 0) @"x-empty" (i32.const 0) (i32.const 0)))
               (i32.store (i32.const 16) (i32.const 7))
               (call $say (call $get_header_map_value (i32.const 0) @"x-empty" {TO}))
               (call $say (i32.load (i32.const 16)))"#
        ))
        .await;
        assert_eq!(seen.said(), [1, 0, 1, 2, 2, 2, 6, 6, 0, 0]);
        assert_eq!(seen.got(), ["/"]);
    });
}

#[test]
fn header_edits() {
    run(async {
        let seen = asked(&format!(
            r#"(call $say (call $add_header_map_value (i32.const 0) @"X-A" @"1"))
               (call $say (call $add_header_map_value (i32.const 0) @"x-a" @"2"))
               (call $say (call $replace_header_map_value (i32.const 0) @"X-B" @"3"))
               (call $say (call $remove_header_map_value (i32.const 0) @"X-C"))
               (call $say (call $add_header_map_value (i32.const 2) @"x" @"y"))
               (call $say (call $replace_header_map_value (i32.const 6) @"x" @"y"))
               (call $say (call $remove_header_map_value (i32.const 1) @"x"))
               (call $say (call $replace_header_map_value (i32.const 0) @"x" {WILD}))
               (call $say (call $remove_header_map_value (i32.const 0) {WILD}))"#
        ))
        .await;
        assert_eq!(seen.said(), [0, 0, 0, 0, 2, 2, 2, 6, 6]);
        let values: Vec<_> = seen.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(seen.headers["x-b"], "3");
    });
}

#[test]
fn a_head_takes_so_many_fields() {
    run(async {
        let limits = Limits {
            stream_time: Duration::from_secs(60),
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        // Names of five letters, a fresh one each time.
        let bench = setup.bench(
            r#"(func $name (param $n i32) (local $at i32)
                 (local.set $at (i32.const 512))
                 (loop $next
                   (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.and (local.get $n) (i32.const 7))))
                   (local.set $n (i32.shr_u (local.get $n) (i32.const 3)))
                   (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 517)))))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
                 (drop (call $add_header_map_value (i32.const 0) @"x-kept" @"1"))
                 (loop $next
                   (call $name (local.get $n))
                   (if (call $add_header_map_value (i32.const 0) (i32.const 512) (i32.const 5) @"1") (then unreachable))
                   (if (call $replace_header_map_value (i32.const 0) (i32.const 512) (i32.const 5) @"2") (then unreachable))
                   (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 30000))))
                 (drop (call $replace_header_map_value (i32.const 0) @"x-kept" @"2"))
                 (drop (call $add_header_map_value (i32.const 0) @"x-kept" @"3"))
                 (drop (call $remove_header_map_value (i32.const 0) @"aaaaa"))
                 (drop (call $add_header_map_value (i32.const 0) @"x-late" @"1"))
                 (i32.const 0))"#,
        );
        let got = bench.send(get("/")).await;
        assert_eq!(got.status, 200);
        let seen = bench.seen();
        assert_eq!(seen.headers.len(), Room::default().fields);
        assert_eq!(seen.headers.get_all("x-kept").iter().collect::<Vec<_>>(), ["2"]);
        assert_eq!(seen.headers["x-late"], "1");
    });
}

#[test]
fn a_head_takes_so_many_bytes() {
    run(async {
        let add = r#"(call $say (call $add_header_map_value (i32.const 0) @"x-long" (i32.const 65536) (i32.const 300000)))"#;
        let seen = asked(&format!(
            "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 300000)) {}",
            add.repeat(5)
        ))
        .await;
        assert_eq!(seen.said(), [0; 5]);
        assert_eq!(seen.headers.get_all("x-long").iter().count(), 3);
    });
}

#[test]
fn whole_header_maps() {
    run(async {
        let seen = asked(&format!(
            r#"(call $say (call $get_header_map_pairs (i32.const 0) {TO}))
               (call $say (i32.load (i32.load (i32.const 16))))
               (call $say (call $get_header_map_pairs (i32.const 2) {TO}))
               (call $say (i32.load (i32.const 20)))
               (call $say (call $get_header_map_size (i32.const 0) (i32.const 16)))
               (call $say (i32.gt_u (i32.load (i32.const 16)) (i32.const 20)))
               (call $say (call $get_header_map_size (i32.const 2) (i32.const 16)))
               (call $say (call $set_header_map_pairs (i32.const 2) (i32.const 0) (i32.const 0)))
               (call $say (call $set_header_map_pairs (i32.const 0) {WILD}))
               (drop (call $set_header_map_pairs (i32.const 0) @"\01\00\00\00\01\00\00\00\01\00\00\00X\001\00"))
               (call $say (i32.const 42))"#
        ))
        .await;
        // The map was replaced as a whole: only what came after stands beside the new field.
        assert_eq!(seen.said(), [42]);
        assert_eq!(seen.headers["x"], "1");
        let calls = [
            &format!("(call $get_header_map_pairs (i32.const 0) {TO})"),
            &format!("(call $get_header_map_pairs (i32.const 2) {TO})"),
            "(call $get_header_map_size (i32.const 2) (i32.const 16))",
            "(call $set_header_map_pairs (i32.const 2) (i32.const 0) (i32.const 0))",
            &format!("(call $set_header_map_pairs (i32.const 0) {WILD})"),
        ];
        assert_eq!(said(&calls).await, [0, 0, 2, 2, 6]);
    });
}

#[test]
fn headers_that_have_gone_on_are_read_only() {
    run(async {
        let bench = Setup::default().bench(&format!(
            r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                 (call $say (call $get_header_map_value (i32.const 0) @":path" {TO}))
                 (call $say (call $replace_header_map_value (i32.const 0) @"x" @"y"))
                 (i32.const 0))
               (func (export "proxy_on_log") (param i32)
                 (drop (call $get_header_map_value (i32.const 2) @":status" {TO}))
                 (drop (call $set_property @"status" (i32.load (i32.const 16)) (i32.load (i32.const 20))))
                 (if (i32.eq (call $get_header_map_value (i32.const 3) @"x" {TO}) (i32.const 1))
                   (then (drop (call $set_property @"missing" @"not found")))))"#
        ));
        let got = bench.send(get("/")).await;
        // `said` lands on the answer: the request's head is gone.
        assert_eq!(got.said(), [0, 2]);
        assert_eq!(got.state("wasm.status").unwrap(), "200");
        assert_eq!(got.state("wasm.missing").unwrap(), "not found");
    });
}

#[test]
fn buffers() {
    run(async {
        let handlers = format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (call $say (call $get_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 9) {TO}))
                 (call $say (call $get_buffer_bytes (i32.const 10) (i32.const 0) (i32.const 9) {TO}))
                 (call $say (call $get_buffer_status (i32.const 7) {TO}))
                 (call $say (call $get_buffer_status (i32.const 10) {TO}))
                 (call $say (call $set_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 0) @"x"))
                 (call $say (call $set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 0) @"x"))
                 (i32.const 1))
               (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
                 (call $say (call $get_buffer_status (i32.const 0) {TO}))
                 (call $say (i32.load (i32.const 16)))
                 (call $say (call $get_buffer_bytes (i32.const 0) (i32.const 1) (i32.const 2147483647) {TO})) (call $show)
                 (call $say (call $get_buffer_bytes (i32.const 0) (i32.const 99) (i32.const 1) {TO}))
                 (call $say (i32.load (i32.const 20)))
                 (call $say (call $set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 1) {WILD}))
                 (call $say (call $set_buffer_bytes (i32.const 0) (i32.const 0) (i32.const 1) @"B"))
                 (i32.const 0))"#
        );
        let bench = Setup::default().bench(&handlers);
        bench.send(post(Body::bytes("body"))).await;
        let seen = bench.seen();
        assert_eq!(seen.said(), [1, 2, 1, 2, 2, 1, 0, 4, 0, 0, 0, 6, 0]);
        assert_eq!(seen.got(), ["ody"]);
        assert_eq!(seen.body, "Body");
    });
}

#[test]
fn a_body_grows_up_to_a_limit() {
    run(async {
        let mut bench = Setup::default().bench(
            r#"(func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $end i32) (result i32)
                 (local $written i32)
                 (loop $more
                   (if (i32.eqz (call $set_buffer_bytes (i32.const 0) (i32.const 2147483647) (i32.const 0) (i32.const 0) (i32.const 65536)))
                     (then (br_if $more (i32.lt_u (local.tee $written (i32.add (local.get $written) (i32.const 1))) (i32.const 40))))))
                 (drop (call $set_shared_data @"status" (i32.const 512)
                   (call $set_buffer_bytes (i32.const 0) (i32.const 2147483647) (i32.const 0) (i32.const 0) (i32.const 65536)) (i32.const 0)))
                 (i32.const 0))"#,
        );
        // A prompt that grows beyond what may be held goes on; held bodies and larger ones do not.
        for (limit, length) in [(8, 16 * 65_536), (20 * 65_536, 20 * 65_536)] {
            bench.buffer_limit = limit;
            bench.send(post(Body::bytes(vec![0; 65_536]))).await;
            assert_eq!(bench.seen().body.len(), length);
            // As many bytes as the status says.
            let (status, _) = bench.generation.host.shared.get(b"status").unwrap();
            assert_eq!(status.len(), 10);
        }
    });
}

#[test]
fn buffers_of_calls_are_there_in_their_callbacks_alone() {
    run(async {
        let calls = [
            &format!("(call $get_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 9) {TO})"),
            &format!("(call $get_buffer_status (i32.const 4) {TO})"),
            &format!("(call $get_buffer_bytes (i32.const 9) (i32.const 0) (i32.const 9) {TO})"),
            &format!("(call $get_buffer_status (i32.const 9) {TO})"),
        ];
        assert_eq!(said(&calls.map(String::as_str)).await, [1, 1, 1, 1]);
    });
}

async fn properties(paths: &[&str]) -> Vec<String> {
    let code: Vec<String> = paths
        .iter()
        .map(|path| {
            format!(
                r#"(if (call $get_property @"{path}" {TO})
                     (then (drop (call $add_header_map_value (i32.const 0) @"x-got" @"none")))
                     (else (call $show)))"#
            )
        })
        .collect();
    asked(&code.join("\n")).await.got()
}

#[test]
fn properties_that_plugins_read() {
    run(async {
        let paths = [
            "route_name",
            "cluster_name",
            r"request\00protocol",
            r"request\00path",
            r"request\00host",
            r"request\00method",
            r"request\00headers\00missing",
            r"source\00address",
            r"connection\00requested_server_name",
            "plugin_name",
            "plugin_root_id",
            "nothing_of_the_kind",
            r"request\00id",
        ];
        let expected = [
            "route-1",
            "outbound|443||a.dns",
            "HTTP/1.1",
            "/",
            "a.com",
            "GET",
            "none",
            "10.0.0.1:1234",
            "sni.example",
            "higress-system.tested",
            "root",
            "none",
            "id-1",
        ];
        assert_eq!(properties(&paths).await, expected);
        let numbers = asked(&format!(
            r#"(drop (call $get_property @"source\00port" {TO}))
               (call $say (i32.load (i32.const 20)))
               (call $say (i64.eq (i64.load (i32.load (i32.const 16))) (i64.const 1234)))
               (drop (call $get_property @"plugin_vm_memory" {TO}))
               (call $say (i64.eq (i64.load (i32.load (i32.const 16))) (i64.const 524288)))
               (call $say (call $get_property @"plugin_vm_id" {TO}))
               (call $say (i32.load (i32.const 20)))
               (call $say (call $get_property {WILD} {TO}))"#
        ))
        .await;
        assert_eq!(numbers.said(), [8, 1, 1, 0, 0, 6]);
    });
}

#[test]
fn properties_that_plugins_leave() {
    run(async {
        let bench = Setup::default().bench(&in_headers(&format!(
            r#"(call $say (call $set_property @"mine" @"value"))
               (call $say (call $get_property @"mine" {TO})) (call $show)
               (drop (call $set_property @"ai_log" @"{{\5c\22model\5c\22:\5c\22m\5c\22}}"))
               (drop (call $get_property @"ai_log" {TO})) (call $show)
               (call $say (call $set_property @"trace_span_tag.k" @"v"))
               (call $say (call $get_property @"trace_span_tag.k" {TO}))
               (call $say (call $set_property @"set_decoder_buffer_limit" @"7"))
               (call $say (call $set_property @"mine" {WILD}))"#
        )));
        let got = bench.send(get("/")).await;
        assert_eq!(bench.seen().said(), [0, 0, 0, 1, 0, 6]);
        assert_eq!(bench.seen().got(), ["value", r#"{\"model\":\"m\"}"#]);
        assert_eq!(got.state("wasm.mine").unwrap(), "value");
        assert_eq!(got.state("wasm.ai_log").unwrap(), r#"{\"model\":\"m\"}"#);
        assert_eq!(got.record.span_tags.borrow()[0], ("k".into(), "v".to_owned()));
    });
}

#[test]
fn a_value_that_is_no_text_is_kept_as_it_is() {
    run(async {
        let bench = Setup::default().bench(&in_headers(&format!(
            r#"(call $say (call $set_property @"mine" @"\ff\00\80a"))
               (call $say (call $get_property @"mine" {TO}))
               (call $say (i32.load (i32.const 20)))
               (call $say (i32.eq (i32.load (i32.load (i32.const 16))) (i32.const 0x618000ff)))
               (call $say (call $get_property @"filter_state\00wasm.mine" {TO}))
               (call $say (i32.load (i32.const 20)))
               (call $say (call $set_property @"mine" @"text"))
               (call $say (call $get_property @"mine" {TO})) (call $show)
               (call $say (call $set_property @"other" @"\c3\a9"))
               (call $say (call $get_property @"other" {TO})) (call $show)
               (drop (call $set_property @"logged" @"a\ff"))"#
        )));
        let got = bench.send(get("/")).await;
        assert_eq!(bench.seen().said(), [0, 0, 4, 1, 0, 4, 0, 0, 0, 0]);
        assert_eq!(bench.seen().got(), ["text", "é"]);
        // A log line is text.
        assert_eq!(got.state("wasm.logged").unwrap(), "a\u{fffd}");
    });
}

#[test]
fn flags_and_metadata_are_read() {
    run(async {
        let number = |path: &str, value: u64| {
            format!(
                r#"(call $say (call $get_property @"{path}" {TO}))
                   (call $say (i64.eq (i64.load (i32.load (i32.const 16))) (i64.const {value})))"#
            )
        };
        let empty = |path: &str| {
            format!(
                r#"(call $say (call $get_property @"{path}" {TO})) (call $say (i32.load (i32.const 20)))"#
            )
        };
        let code = [
            // UF and URX in Envoy's numbers.
            number(r"response\00flags", 0x8020),
            format!(
                r#"(call $say (call $get_property @"metadata\00filter_metadata\00ns\00key" {TO})) (call $show)"#
            ),
            format!(r#"(call $say (call $get_property @"metadata\00filter_metadata\00ns\00none" {TO}))"#),
            empty("route_metadata"),
            empty(r"cluster_metadata\00filter_metadata"),
            format!(r#"(call $say (call $get_property @"route_metadata\00filter_metadata\00istio" {TO}))"#),
            format!(r#"(call $say (call $get_property @"upstream_host_metadata" {TO}))"#),
        ];
        let bench = Setup::default().bench(&in_headers(&code.concat()));
        let mut exchange = bench.exchange(&get("/"));
        exchange.record.flag(Flag::UpstreamConnectFailure);
        exchange.record.flag(Flag::RetriesExhausted);
        exchange.record.set_metadata("ns:key", "value".to_owned());
        let outcome = bench.through(&mut exchange, get("/")).await;
        bench.finish(exchange.record, outcome).await;
        assert_eq!(bench.seen().said(), [0, 1, 0, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(bench.seen().got(), ["value"]);
    });
}

#[test]
fn a_request_takes_so_many_properties() {
    run(async {
        let limits = Limits {
            properties: 3,
            property_bytes: 100,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let calls = [
            r#"(call $set_property @"a" @"1")"#,
            r#"(call $set_property @"trace_span_tag.b" @"1")"#,
            r#"(call $set_property @"b" (i32.const 0) (i32.const 91))"#,
            r#"(call $set_property @"b" (i32.const 0) (i32.const 50))"#,
            r#"(call $set_property @"b" (i32.const 0) (i32.const 51))"#,
            r#"(call $set_property @"c" @"1")"#,
            r#"(call $set_property @"trace_span_tag.c" @"1")"#,
        ];
        let code: Vec<String> = calls.iter().map(|call| format!("(call $say {call})")).collect();
        let bench = setup.bench(&in_headers(&code.join(" ")));
        assert_eq!(bench.ask().await.said(), [0, 0, 10, 0, 0, 10, 10]);
        let mut shown = String::new();
        bench.metrics.render(&mut shown);
        let counted = shown
            .lines()
            .find(|line| line.starts_with("tollgate_wasm_limits_total{"));
        let counted = counted.expect("no refusal was counted");
        assert!(
            counted.contains(r#"limit="wasm_property_limit""#) && counted.ends_with(" 3"),
            "{counted}"
        );
    });
}

#[test]
fn a_module_cannot_raise_the_body_limit_over_its_own_memory() {
    run(async {
        let raise = r#"(drop (call $set_property @"set_decoder_buffer_limit" @"99999999999"))"#;
        let bench = Setup::default().bench(&in_headers(raise));
        let mut exchange = bench.exchange(&get("/"));
        let outcome = bench.through(&mut exchange, get("/")).await;
        assert_eq!(exchange.buffer_limit, Limits::default().memory);
        bench.finish(exchange.record, outcome).await;
    });
}

#[test]
fn streams_are_continued_and_closed_by_their_number() {
    run(async {
        let calls = [
            "(call $continue_stream (i32.const 0))",
            "(call $continue_stream (i32.const 1))",
            "(call $continue_stream (i32.const 2))",
            "(call $continue_stream (i32.const 3))",
            "(call $continue_stream (i32.const 4))",
            "(call $close_stream (i32.const 4))",
        ];
        assert_eq!(said(&calls).await, [0, 0, 0, 12, 2, 2]);
    });
}

#[test]
fn shared_data() {
    run(async {
        let calls = [
            &format!(r#"(call $get_shared_data @"k" {TO} (i32.const 24))"#),
            r#"(call $set_shared_data @"k" @"v1" (i32.const 0))"#,
            &format!(r#"(call $get_shared_data @"k" {TO} (i32.const 24))"#),
            r#"(call $set_shared_data @"k" @"v2" (i32.const 77))"#,
            r#"(call $set_shared_data @"k" @"v2" (i32.load (i32.const 24)))"#,
            &format!(r#"(call $set_shared_data @"k" {WILD} (i32.const 0))"#),
            r#"(call $set_shared_data @"k" (i32.const 0) (i32.const 0) (i32.const 0))"#,
            &format!(r#"(call $get_shared_data @"k" {TO} (i32.const 24))"#),
            "(i32.load (i32.const 20))",
        ];
        assert_eq!(said(&calls).await, [1, 0, 0, 8, 0, 6, 0, 0, 0]);
    });
}

#[test]
fn shared_queues() {
    run(async {
        let calls = [
            r#"(call $resolve_shared_queue @"" @"q" (i32.const 28))"#,
            r#"(call $register_shared_queue @"q" (i32.const 24))"#,
            r#"(call $resolve_shared_queue @"" @"q" (i32.const 28))"#,
            r#"(call $resolve_shared_queue @"another vm" @"q" (i32.const 32))"#,
            "(i32.eq (i32.load (i32.const 24)) (i32.load (i32.const 28)))",
            &format!("(call $dequeue_shared_queue (i32.load (i32.const 24)) {TO})"),
            r#"(call $enqueue_shared_queue (i32.load (i32.const 24)) @"item")"#,
            r#"(call $enqueue_shared_queue (i32.const 99) @"item")"#,
            &format!("(call $dequeue_shared_queue (i32.load (i32.const 24)) {TO})"),
            "(i32.load (i32.const 20))",
            &format!("(call $dequeue_shared_queue (i32.const 99) {TO})"),
        ];
        assert_eq!(said(&calls).await, [1, 0, 0, 1, 1, 7, 0, 1, 0, 4, 1]);
    });
}

#[test]
fn queues_and_shared_data_have_one_limit() {
    run(async {
        let limits = Limits {
            shared_data: 1500,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let queue = "(i32.load (i32.const 24))";
        let calls = [
            r#"(call $register_shared_queue (i32.const 0) (i32.const 2000) (i32.const 24))"#,
            r#"(call $register_shared_queue @"q" (i32.const 24))"#,
            &format!("(call $enqueue_shared_queue {queue} (i32.const 0) (i32.const 700))"),
            &format!("(call $enqueue_shared_queue {queue} (i32.const 0) (i32.const 700))"),
            r#"(call $set_shared_data @"k" (i32.const 0) (i32.const 700) (i32.const 0))"#,
            &format!("(call $dequeue_shared_queue {queue} {TO})"),
            r#"(call $set_shared_data @"k" (i32.const 0) (i32.const 700) (i32.const 0))"#,
            &format!("(call $enqueue_shared_queue {queue} (i32.const 0) (i32.const 700))"),
        ];
        let code: Vec<String> = calls.iter().map(|call| format!("(call $say {call})")).collect();
        let seen = setup.bench(&in_headers(&code.join(" "))).ask().await;
        assert_eq!(seen.said(), [10, 0, 0, 10, 10, 0, 0, 10]);
    });
}

#[test]
fn a_metrics_name_is_so_long() {
    run(async {
        let calls = [
            "(call $define_metric (i32.const 0) (i32.const 65536) (i32.const 4096) (i32.const 16))",
            "(call $define_metric (i32.const 0) (i32.const 65536) (i32.const 4097) (i32.const 16))",
        ];
        assert_eq!(said(&calls).await, [0, 2]);
    });
}

#[test]
fn metrics() {
    run(async {
        let bench = Setup::default().bench(&in_headers(
            r#"(call $say (call $define_metric (i32.const 0) @"route.r.upstream.u.model.m.consumer.c.metric.input_token" (i32.const 16)))
               (call $say (call $define_metric (i32.const 1) @"g" (i32.const 20)))
               (call $say (call $define_metric (i32.const 2) @"h" (i32.const 24)))
               (call $say (call $define_metric (i32.const 3) @"x" (i32.const 28)))
               (call $say (call $increment_metric (i32.load (i32.const 16)) (i64.const 11)))
               (call $say (call $increment_metric (i32.load (i32.const 16)) (i64.const 0)))
               (call $say (call $increment_metric (i32.load (i32.const 20)) (i64.const -1)))
               (call $say (call $increment_metric (i32.load (i32.const 24)) (i64.const 1)))
               (call $say (call $increment_metric (i32.const 999) (i64.const 1)))
               (call $say (call $record_metric (i32.load (i32.const 20)) (i64.const 5)))
               (call $say (call $record_metric (i32.load (i32.const 24)) (i64.const 5)))
               (call $say (call $record_metric (i32.const 999) (i64.const 5)))
               (call $say (call $get_metric (i32.load (i32.const 20)) (i32.const 40)))
               (call $say (i32.load (i32.const 40)))
               (call $say (call $get_metric (i32.load (i32.const 24)) (i32.const 40)))
               (call $say (call $get_metric (i32.const 999) (i32.const 40)))"#,
        ));
        assert_eq!(
            bench.ask().await.said(),
            [0, 0, 0, 2, 0, 2, 0, 2, 1, 0, 0, 1, 0, 5, 2, 1]
        );
        let mut page = String::new();
        bench.metrics.render(&mut page);
        let series = r#"route_upstream_model_consumer_metric_input_token{ai_route="r",ai_cluster="u",ai_model="m",ai_consumer="c"} 11"#;
        assert!(page.contains(series), "{page}");
        assert!(
            page.contains("\ng{} 5\n") && page.contains("\nh_count{} 1\n"),
            "{page}"
        );
    });
}

#[test]
fn foreign_functions() {
    run(async {
        let calls = [
            &format!(r#"(call $call_foreign_function @"get_log_level" @"" {TO})"#),
            "(i32.load (i32.const 20))",
            &format!(r#"(call $call_foreign_function @"unheard_of" @"" {TO})"#),
            r#"(call $call_foreign_function @"get_log_level" @"" (i32.const 0) (i32.const 0))"#,
            &format!(
                r#"(call $call_foreign_function @"set_global_max_requests_per_io_cycle" @"\01\00\00\00\00\00\00\00" {TO})"#
            ),
            &format!(r#"(call $call_foreign_function @"uncompress" @"junk" {TO})"#),
            &format!(r#"(call $call_foreign_function @"inject_encoded_data_to_filter_chain" @"\ff" {TO})"#),
        ];
        assert_eq!(said(&calls).await, [0, 4, 1, 0, 0, 3, 4]);
    });
}

#[test]
fn so_much_is_compressed_and_uncompressed_in_one_call() {
    run(async {
        let limits = Limits {
            compress: 1000,
            uncompress: 2000,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let call = |name: &str, at: &str, size: &str| {
            format!(r#"(call $say (call $call_foreign_function @"{name}" {at} {size} {TO}))"#)
        };
        let zeros = "(i32.const 300000)";
        // What came out last goes in, and is what may be made.
        let packed = "(i32.load (i32.const 16)) (i32.load (i32.const 20))";
        let code = [
            call("compress", zeros, "(i32.const 1001)"),
            call("compress", zeros, "(i32.const 1000)"),
            call("uncompress", packed, ""),
            call(
                "uncompress",
                r#"@"\78\da\63\60\18\05\a3\60\14\8c\82\51\30\0a\46\c1\90\07\00\07\d1\00\01""#,
                "",
            ),
            call("uncompress", zeros, "(i32.const 2001)"),
            call("uncompress", zeros, "(i32.const 2000)"),
        ];
        let bench = setup.bench(&in_headers(&code.concat()));
        assert_eq!(bench.ask().await.said(), [10, 0, 0, 10, 10, 3]);
        assert_eq!(bench.beyond("wasm_compress_limit"), 1);
        assert_eq!(bench.beyond("wasm_uncompress_limit"), 2);
    });
}

#[test]
fn a_line_of_log_is_so_long() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Arc::new(file.reopen().unwrap());
    let to_log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log)
        .finish();
    tracing::subscriber::with_default(to_log, || {
        run(async {
            let bench = Setup::default().bench(&in_headers(
                r#"(memory.fill (i32.const 65536) (i32.const 97) (i32.const 300000))
                   (call $say (call $log (i32.const 2) (i32.const 65536) (i32.const 300000)))
                   (call $say (call $log (i32.const 2) (i32.const 65536) (i32.const 65536)))
                   (call $say (call $log (i32.const 2) (i32.const 524287) (i32.const 300000)))"#,
            ));
            // The Rust SDK takes no other status than 0 for what can be read.
            assert_eq!(bench.ask().await.said(), [0, 0, 6]);
            assert_eq!(bench.beyond("wasm_write_limit"), 1);
        });
    });
    let log = std::fs::read_to_string(file.path()).unwrap();
    let letters = |line: &str| {
        line.split("root: ")
            .nth(1)
            .map_or(0, |text| text.matches('a').count())
    };
    let lengths: Vec<_> = log.lines().map(letters).filter(|length| *length > 1000).collect();
    assert_eq!(lengths, [65_536, 65_536]);
}

#[test]
fn grpc_calls_are_not_there() {
    run(async {
        let zeros = |count| "(i32.const 0) ".repeat(count);
        let calls = [
            format!("(call $grpc_call {})", zeros(12)),
            format!("(call $grpc_stream {})", zeros(9)),
            format!("(call $grpc_send {})", zeros(4)),
            format!("(call $grpc_cancel {})", zeros(1)),
            format!("(call $grpc_close {})", zeros(1)),
            "(call $get_status (i32.const 24) (i32.const 16) (i32.const 20))".to_owned(),
        ];
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        assert_eq!(said(&calls).await, [4, 4, 1, 1, 1, 0]);
    });
}

#[test]
fn upstream_hosts() {
    run(async {
        let calls = [
            &format!("(call $get_upstream_hosts {TO})"),
            "(i32.load (i32.load (i32.const 16)))",
            r#"(call $set_upstream_override_host @"not an address")"#,
        ];
        assert_eq!(said(&calls).await, [0, 1, 2]);
    });
}

#[test]
fn the_host_that_a_module_picks_is_told_to_the_upstream() {
    run(async {
        let picks = r#"(call $say (call $set_upstream_override_host @"10.0.0.2:8080"))"#;
        let bench = Setup::default().bench(&in_headers(picks));
        assert_eq!(bench.ask().await.said(), [0]);
        assert_eq!(bench.seen().address, Some(([10, 0, 0, 2], 8080).into()));
        let bench = Setup::default().bench(&in_headers(""));
        bench.ask().await;
        assert_eq!(bench.seen().address, None);
    });
}

#[test]
fn injected_data_is_refused_outside_of_a_request() {
    run(async {
        // In the plugin context there is no stream: the calls say so, and configuring goes on.
        let bench: Bench = Setup::default().bench(
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
                 (i32.and
                   (i32.eq (call $inject_encoded_data_to_filter_chain @"x" (i32.const 0)) (i32.const 2))
                   (i32.and
                     (i32.eq (call $set_property @"x" @"y") (i32.const 1))
                     (i32.eq (call $send_local_response (i32.const 200) @"" @"" @"" (i32.const 0)) (i32.const 2)))))"#,
        );
        assert_eq!(bench.send(get("/")).await.status, 200);
    });
}

#[test]
fn the_documentation_names_each_host_call_and_a_test_that_exists() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wasm.md");
    let page = std::fs::read_to_string(root).unwrap();
    let tests: String = ["host_calls", "flow", "calls", "life", "faults"]
        .iter()
        .map(|file| {
            std::fs::read_to_string(format!("{}/src/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap()
        })
        .collect();
    for function in functions() {
        let row = format!("| `{function}` |");
        let line = page.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("docs/wasm.md has no row for {function}"));
        let test = line.split('`').nth(3).unwrap_or_default();
        assert!(
            tests.contains(&format!("fn {test}()")),
            "{function}: no test {test}"
        );
    }
}
