//! `cargo xtask differential`: a module that does what a built-in does, and one that does it differently.

use std::process::Command;

use crate::support::BINARY;

/// `request-block` with `block_urls: [swagger.html]`, which answers with this status.
fn mimic(status: u16) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 16) ":path")
        (data (i32.const 32) "swagger.html")
        (func (export "proxy_abi_version_0_2_100"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func $is_at (param $at i32) (result i32) (local $i i32)
          (loop $next
            (if (i32.ne (i32.load8_u (i32.add (local.get $at) (local.get $i)))
                        (i32.load8_u (i32.add (i32.const 32) (local.get $i))))
              (then (return (i32.const 0))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 12))))
          (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $at i32) (local $end i32)
          (drop (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 64) (i32.const 68)))
          (local.set $at (i32.load (i32.const 64)))
          (local.set $end (i32.add (local.get $at) (i32.load (i32.const 68))))
          (block $none
            (loop $next
              (br_if $none (i32.gt_u (i32.add (local.get $at) (i32.const 12)) (local.get $end)))
              (if (call $is_at (local.get $at))
                (then
                  (drop (call $reply (i32.const {status}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
                  (return (i32.const 1))))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br $next)))
          (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Exit code and report.
fn compare(module: &[u8]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("request-block.wasm"), module).unwrap();
    let config = "block_urls:\n- swagger.html\n";
    std::fs::write(directory.path().join("request-block.yaml"), config).unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "xtask",
            "--",
            "differential",
        ])
        .arg(directory.path())
        .args(["--binary", BINARY])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said + &complaints)
}

#[test]
fn a_module_that_does_the_same_shows_no_difference_and_one_that_does_not_is_told_by_request() {
    let (code, report) = compare(&mimic(403));
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains(" requests, 0 differences"), "{report}");
    let (code, report) = compare(&mimic(404));
    assert_eq!(code, Some(1), "{report}");
    let expected = "GET /swagger.html [] \"\": answer, first line: built-in HTTP/1.1 403 Forbidden, module HTTP/1.1 404 Not Found";
    assert!(report.contains(expected), "{report}");
}
