//! What a wrong command line gets: one clear line on standard error, and 2 for usage or 1 for a failure.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::process::Command;

struct Ended {
    code: Option<i32>,
    lines: Vec<String>,
}

fn tollgate(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    Ended {
        code: output.status.code(),
        lines: text.lines().map(str::to_owned).collect(),
    }
}

fn refuses(arguments: &[&str], code: i32, part: &str) {
    let ended = tollgate(arguments, &[]);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {:?}", ended.lines);
    assert_eq!(ended.lines.len(), 1, "{arguments:?}: {:?}", ended.lines);
    assert!(ended.lines[0].contains(part), "{arguments:?}: {:?}", ended.lines);
}

#[test]
fn usage_is_2_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().to_str().unwrap();
    for command in ["run", "check"] {
        refuses(&[command], 2, "give --config DIR");
    }
    let cases: &[(&[&str], &str)] = &[
        (&["--workers", "0"], "--workers"),
        (&["--log", "loud"], "error, warn, info"),
        (&["--http", "nowhere"], "IP:PORT or `off`"),
        (&["--resolve", "nonsense"], "--resolve nonsense"),
        (&["--drain", "soon"], "--drain"),
        (&["--confg", "x"], "--config"),
    ];
    for (more, part) in cases {
        let all = [&["run", "--config", config, "--access-log", "off"], *more].concat();
        refuses(&all, 2, part);
    }
    refuses(
        &["explain", "--config", config, "/no-host"],
        2,
        "expected http://HOST/PATH",
    );
}

#[test]
fn a_failure_is_1_and_names_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().to_str().unwrap();
    let off = [
        "--http",
        "off",
        "--https",
        "off",
        "--admin",
        "off",
        "--console",
        "off",
    ];
    let run = |more: &[&str], part: &str| refuses(&[&["run"], more, &off].concat(), 1, part);
    run(
        &["--config", "/nonexistent/conf", "--access-log", "off"],
        "/nonexistent/conf",
    );
    run(
        &["--config", config, "--access-log", "/nonexistent/log"],
        "/nonexistent/log",
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listener in ["--http", "--admin"] {
        let arguments = ["run", "--config", config, "--access-log", "off", "--https", "off"];
        let other = if listener == "--http" { "--admin" } else { "--http" };
        let all = [&arguments[..], &[listener, &address, other, "off"]].concat();
        refuses(&all, 1, &address);
    }
}

#[test]
fn a_switch_may_be_a_variable_with_any_usual_word() {
    let directory = tempfile::tempdir().unwrap();
    let document =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nstringData: {x: '${NOT_SET}'}\n";
    std::fs::write(directory.path().join("a.yaml"), document).unwrap();
    let config = directory.path().to_str().unwrap();
    for (value, code) in [("1", 1), ("true", 1), ("0", 0), ("false", 0)] {
        let ended = tollgate(&["check", "--config", config], &[("TOLLGATE_ENVSUBST", value)]);
        assert_eq!(ended.code, Some(code), "{value}: {:?}", ended.lines);
    }
}
