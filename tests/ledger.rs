//! The usage ledger through the binary: exactly one row a request, however it ends, and a disk that does as it likes.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tollgate_base::clock::{self, Instant};
use tollgate_testkit::client::{get, open, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::collectors::Collector;
use crate::support::{
    BINARY, CHAT, CHAT_PATH, CHAT_STREAM, PATIENCE, Scene, Sight, ai_proxy, bridge, documents, gateway,
    ingress, mock, ordered, verbose_log, wasm_plugin,
};

/// What `tollgate usage` prints for a data directory.
fn usage(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(BINARY)
        .arg("usage")
        .arg("--data")
        .arg(data)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

fn json(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = usage(data, &[arguments, &["--json"]].concat()).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Ends the gateway as an orderly stop does, then reads the rows.
fn rows_at_end(scene: Gateway, data: &Path) -> Vec<Value> {
    scene.signal("TERM").unwrap();
    assert!(scene.wait().unwrap().success());
    json(data, &["--rows"])
}

/// Waits until the gateway has written this many rows.
async fn written(gateway: &Gateway, rows: f64) {
    let wait = async {
        while gateway.metric("tollgate_ledger_rows_total{}").await < rows {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("rows are not written");
}

const PRICES: &str = "  tollgate-prices: |
    models:
    - { model: \"gpt-4o*\", input: 2.5, output: 10 }
";

/// The route `api` with `ai-proxy`, `ai-statistics` and prices; every ledger in its own directory.
fn priced(data: &Path, annotations: &[(&str, &str)]) -> Scene {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/v1", "mock.static", annotations),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin("ai-statistics", "  defaultConfig: {}\n"),
        verbose_log() + PRICES,
    ]);
    let gateway = gateway()
        .option("--data", data.display())
        .file("scene.yaml", &text)
        .unwrap()
        .go()
        .unwrap();
    Scene { gateway, mock }
}

#[tokio::test]
async fn every_end_is_one_row_that_says_how() {
    let directory = tempfile::tempdir().unwrap();
    let timers = [
        ("tollgate.dev/timeout-response-head", "2s"),
        ("tollgate.dev/timeout-first-event", "1s"),
        ("tollgate.dev/timeout-silence", "1s"),
        ("tollgate.dev/timeout-total", "20s"),
    ];
    let scene = priced(directory.path(), &timers);
    let http = scene.gateway.http;
    let mut wanted = Vec::new();
    for (fault, ends) in [
        ("", "completed"),
        ("cut;after=2", "upstream_cut"),
        ("reset", "upstream_error"),
        ("stall-between;after=2", "timeout_silence"),
        ("stall-head", "timeout_response_head"),
        ("stall-first", "timeout_first_event"),
        ("status;code=429", "completed"),
    ] {
        let (request, id) = ordered(fault, CHAT_STREAM);
        drop(send(http, request).await);
        let line = scene.gateway.line_of(&id);
        assert_eq!(line["termination"], ends, "{fault}: {line}");
        wanted.push((id, ends.to_owned(), line["code"].clone()));
    }
    let (request, id) = ordered("pace;ms=20,tokens;n=200", CHAT_STREAM);
    let mut stream = open(http, request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    let refused = send(http, get("/nowhere")).await.unwrap();
    let line = scene.gateway.line_of(&id);
    wanted.push((id, "client_gone".to_owned(), line["code"].clone()));
    assert_eq!(refused.status, 404);
    wanted.push((
        refused.header("x-request-id").to_owned(),
        "refused".to_owned(),
        "404".into(),
    ));
    let rows = rows_at_end(scene.gateway, directory.path());
    assert_eq!(rows.len(), wanted.len(), "{rows:#?}");
    for (id, ends, code) in &wanted {
        let row = rows
            .iter()
            .find(|row| row["request_id"] == **id)
            .unwrap_or_else(|| panic!("no row of {id}"));
        assert_eq!(row["termination"], **ends, "{row}");
        assert_eq!(row["status"].to_string(), code.as_str().unwrap(), "{row}");
        assert_eq!(row["requests"], 1);
    }
    let whole = rows.iter().find(|row| row["request_id"] == *wanted[0].0).unwrap();
    assert_eq!(
        (&whole["route"], &whole["vendor"], &whole["source"]),
        (&"api".into(), &"openai".into(), &"provider".into())
    );
    let tokens = |name: &str| whole[name].as_i64().unwrap();
    let cost = (tokens("input") * 2_500 + tokens("output") * 10_000) as f64 / 1e9;
    assert!(tokens("input") > 0 && tokens("output") > 0);
    assert!((whole["cost"].as_f64().unwrap() - cost).abs() < 1e-12, "{whole}");
    assert!(
        whole["first_token_ms"].is_i64() && whole["currency"] == "USD",
        "{whole}"
    );
    assert_eq!(whole["model_requested"], "gpt-4o");
}

#[tokio::test]
async fn a_retry_and_a_stop_in_the_middle_are_one_row_each() {
    let directory = tempfile::tempdir().unwrap();
    let annotations = [
        ("higress.io/proxy-next-upstream", "error,http_503,non_idempotent"),
        ("higress.io/proxy-next-upstream-tries", "3"),
    ];
    let scene = priced(directory.path(), &annotations);
    let (request, retried) = ordered("status;code=503", CHAT);
    send(scene.gateway.http, request).await.unwrap();
    let (request, open_at_end) = ordered("stall-between;after=2", CHAT_STREAM);
    let mut stream = open(scene.gateway.http, request).await.unwrap();
    stream.read_until("data:").await.unwrap();
    scene.gateway.signal("TERM").unwrap();
    scene.gateway.signal("TERM").unwrap();
    assert!(scene.gateway.wait().unwrap().success());
    let rows = json(directory.path(), &["--rows"]);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    let row = |id: &str| rows.iter().find(|row| row["request_id"] == *id).unwrap();
    assert!(row(&retried)["attempts"].as_i64().unwrap() > 1, "{rows:#?}");
    assert_eq!(row(&open_at_end)["termination"], "shutdown");
}

#[tokio::test]
async fn sums_while_it_runs_are_those_of_the_rows() {
    let directory = tempfile::tempdir().unwrap();
    let scene = priced(directory.path(), &[]);
    for _ in 0..20 {
        assert_eq!(
            send(scene.gateway.http, post_json(CHAT_PATH, CHAT))
                .await
                .unwrap()
                .status,
            200
        );
    }
    written(&scene.gateway, 20.0).await;
    let data = directory.path();
    let rows = json(data, &["--rows", "--since", "1h"]);
    let all = &json(data, &[])[0];
    let by = json(data, &["--by", "consumer,model,route,vendor,day"]);
    assert_eq!((rows.len(), by.len()), (20, 1));
    for name in ["requests", "input", "output", "cached", "reasoning", "total"] {
        let sum: i64 = rows.iter().map(|row| row[name].as_i64().unwrap()).sum();
        assert_eq!(
            (all[name].as_i64(), by[0][name].as_i64()),
            (Some(sum), Some(sum)),
            "{name}"
        );
    }
    assert_eq!(
        (&by[0]["vendor"], &by[0]["route"], &by[0]["consumer"]),
        (&"openai".into(), &"api".into(), &Value::Null)
    );
    let csv = usage(data, &["--by", "model", "--csv"]).unwrap();
    assert!(
        csv.starts_with(
            "model,requests,input,output,cached,reasoning,duration_ms,first_token_ms,cost,total,"
        ),
        "{csv}"
    );
    assert!(
        usage(data, &["--until", "2020-01-01", "--rows"])
            .unwrap()
            .lines()
            .count()
            <= 1
    );
}

#[tokio::test]
async fn a_killed_gateway_leaves_a_ledger_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let first = priced(data, &[]);
    for _ in 0..10 {
        send(first.gateway.http, post_json(CHAT_PATH, CHAT))
            .await
            .unwrap();
    }
    written(&first.gateway, 10.0).await;
    // Some are on their way when it is killed.
    for _ in 0..5 {
        send(first.gateway.http, post_json(CHAT_PATH, CHAT))
            .await
            .unwrap();
    }
    first.gateway.signal("KILL").unwrap();
    first.gateway.wait().unwrap();
    let left = json(data, &["--rows"]).len();
    assert!((10..=15).contains(&left), "{left}");
    let second = priced(data, &[]);
    send(second.gateway.http, post_json(CHAT_PATH, CHAT))
        .await
        .unwrap();
    let rows = rows_at_end(second.gateway, data);
    assert_eq!(rows.len(), left + 1);
    assert_eq!(json(data, &["--by", "day"])[0]["requests"], left + 1);
}

/// Chats one after the other for so long: the id of each, and when its answer was there.
async fn chats(gateway: &Gateway, length: Duration) -> Vec<(String, Instant)> {
    let began = clock::now();
    let mut finished = Vec::new();
    while began.elapsed() < length {
        let (request, id) = ordered("", CHAT);
        assert_eq!(send(gateway.http, request).await.unwrap().status, 200);
        finished.push((id, clock::now()));
    }
    finished
}

/// What SQLite itself says of the file.
fn integrity(data: &Path) -> String {
    let file = rusqlite::Connection::open(data.join("usage.db")).unwrap();
    file.query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn a_killed_gateway_has_written_all_but_its_last_second_and_broken_nothing() {
    const MAY_BE_LOST: Duration = Duration::from_secs(1);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let (mut finished, mut safe) = (HashSet::new(), HashSet::new());
    // Rows are gathered for a moment before they are written: each time it is killed at another one.
    for length in [1_450, 1_600, 1_850] {
        let scene = priced(data, &[]);
        let told = chats(&scene.gateway, Duration::from_millis(length)).await;
        let killed = clock::now();
        scene.gateway.signal("KILL").unwrap();
        scene.gateway.wait().unwrap();
        let before = safe.len();
        for (id, at) in told {
            if at + MAY_BE_LOST < killed {
                safe.insert(id.clone());
            }
            finished.insert(id);
        }
        assert!(safe.len() > before, "none was old enough");
        assert_eq!(integrity(data), "ok");
        let rows = json(data, &["--rows"]);
        let ids: HashSet<String> = rows
            .iter()
            .map(|row| row["request_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), rows.len(), "none is there twice");
        let lost: Vec<_> = safe.difference(&ids).collect();
        assert!(
            lost.is_empty(),
            "of {} that were over for a second these are lost: {lost:?}",
            safe.len()
        );
        assert!(ids.is_subset(&finished), "none is there that was not over");
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_costs_rows_and_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::write(&data, "in the way").unwrap();
    let scene = priced(&data, &[]);
    for _ in 0..20 {
        assert_eq!(
            send(scene.gateway.http, post_json(CHAT_PATH, CHAT))
                .await
                .unwrap()
                .status,
            200
        );
    }
    scene
        .gateway
        .errors
        .wait_for(|line| line.contains("the usage ledger cannot be written"))
        .unwrap();
    // Repaired while it runs: what waited is written.
    std::fs::remove_file(&data).unwrap();
    written(&scene.gateway, 20.0).await;
    assert_eq!(json(&data, &["--rows"]).len(), 20);
    let told = scene
        .gateway
        .errors
        .all()
        .iter()
        .filter(|line| line.contains("cannot be written"))
        .count();
    assert_eq!(told, 1, "it is told once");
}

#[test]
fn no_ledger_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let told = usage(directory.path(), &[]).unwrap_err();
    assert!(told.starts_with("tollgate: no usage ledger in "), "{told}");
    std::fs::write(
        directory.path().join("usage.db"),
        "this is something else, and long enough to be looked at",
    )
    .unwrap();
    let told = usage(directory.path(), &[]).unwrap_err();
    assert!(
        told.starts_with("tollgate: the usage ledger in ") && told.lines().count() == 1,
        "{told}"
    );
    assert!(
        usage(directory.path(), &["--by", "nonsense"])
            .unwrap_err()
            .contains("expected one of consumer")
    );
}

#[tokio::test]
async fn a_conversation_is_a_tree_of_its_turns_and_tools() {
    let directory = tempfile::tempdir().unwrap();
    let scene = priced(directory.path(), &[]);
    let user = |text: &str| serde_json::json!({"role": "user", "content": text});
    let call = serde_json::json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]});
    let result = serde_json::json!({"role": "tool", "tool_call_id": "1", "content": "rain"});
    let (mut ids, mut log) = (Vec::new(), Vec::new());
    for messages in [
        vec![user("Will it rain?")],
        vec![user("Will it rain?"), call.clone(), result],
        // The first answer once more, with another question behind it.
        vec![user("Will it rain?"), call, user("never mind")],
        vec![user("Something else")],
    ] {
        let body = serde_json::json!({"model": "gpt-4o", "messages": messages});
        let (request, id) = ordered("", &body.to_string());
        assert_eq!(send(scene.gateway.http, request).await.unwrap().status, 200);
        log.push(scene.gateway.line_of(&id));
        ids.push(id);
    }
    let rows = rows_at_end(scene.gateway, directory.path());
    let conversations: Vec<_> = rows
        .iter()
        .map(|row| row["conversation"].as_str().unwrap())
        .collect();
    let [first, second, third, other] = conversations[..] else {
        panic!("{rows:#?}")
    };
    assert!(
        first == second && second == third && third != other,
        "{conversations:?}"
    );
    let run = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .arg("conversation")
            .args(arguments)
            .arg("--data")
            .arg(directory.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, tree) = run(&[first]);
    let lines: Vec<_> = tree.lines().collect();
    assert_eq!(code, Some(0), "{tree}");
    assert!(lines[0].starts_with(&format!("{first}: 3 requests, ")), "{tree}");
    assert!(
        lines[1].starts_with("└─ ") && lines[1].ends_with(&ids[0]),
        "{tree}"
    );
    assert!(
        lines[2].starts_with("   ├─ ") && lines[2].ends_with(&ids[1]),
        "{tree}"
    );
    assert_eq!(lines[3], "   │     with the results of get_weather", "{tree}");
    assert!(
        lines[4].starts_with("   └─ ") && lines[4].ends_with(&ids[2]),
        "{tree}"
    );
    let (code, json) = run(&[other, "--json"]);
    let turns: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, turns.len(), &turns[0]["request_id"]),
        (Some(0), 1, &Value::from(ids[3].as_str()))
    );
    let (code, told) = run(&["no-such\u{1b}"]);
    assert_eq!((code, told.contains('\u{1b}')), (Some(1), false), "{told}");
}

/// An HTTP server that answers with these statuses in turn, the last one for ever; hands out the requests' texts.
async fn receiver(
    statuses: &'static [u16],
) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    drop(tollgate_base::task::spawn("receiver", async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut text = String::new();
            let is_whole = |text: &str| {
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse::<usize>()
                        .ok()
                })?;
                (body.len() >= length).then_some(())
            };
            while is_whole(&text).is_none() {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece).await.unwrap();
                assert!(length > 0, "a request that ends too early");
                text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
            }
            let status = statuses[number.min(statuses.len() - 1)];
            stream
                .write_all(
                    format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .as_bytes(),
                )
                .await
                .unwrap();
            if sender.send(text).is_err() {
                return;
            }
        }
    }));
    (address, requests)
}

#[tokio::test]
async fn the_same_rows_go_to_a_file_an_endpoint_and_a_collector() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let (endpoint, mut posts) = receiver(&[500, 200]).await;
    let collector = Collector::start();
    let scene = priced(data, &[]);
    let file = data.join("rows.jsonl");
    let sinks = format!(
        "  tollgate-ledger: |
    retention: {{ rows: 7d }}
    sinks:
    - {{ type: file, path: {} }}
    - {{ type: http, url: 'http://{endpoint}/?query=INSERT', headers: {{ x-clickhouse-key: k3y }} }}
    - {{ type: otlp, url: 'http://{}/v1/logs' }}
",
        file.display(),
        collector.http
    );
    let text = documents(&[
        bridge(&[("mock", scene.mock.addr())]),
        ingress("api", "/v1", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        verbose_log() + PRICES + &sinks,
    ]);
    scene.gateway.write("scene.yaml", &text).unwrap();
    for _ in 0..3 {
        assert_eq!(
            send(scene.gateway.http, post_json(CHAT_PATH, CHAT))
                .await
                .unwrap()
                .status,
            200
        );
    }
    let first = posts.recv().await.unwrap();
    let again = posts.recv().await.unwrap();
    assert_eq!(first, again, "what failed comes again");
    assert!(
        again.starts_with("POST /?query=INSERT HTTP/1.1\r\n") && again.contains("x-clickhouse-key: k3y"),
        "{again}"
    );
    let records = collector.records(3);
    let rows = rows_at_end(scene.gateway, data);
    let body = |text: &str| text.split_once("\r\n\r\n").unwrap().1.to_owned();
    let ids = |lines: &str| -> Vec<Value> {
        let line = |line| serde_json::from_str::<Value>(line).unwrap();
        lines
            .lines()
            .map(|text| line(text)["request_id"].clone())
            .collect()
    };
    let wanted: Vec<_> = rows.iter().map(|row| row["request_id"].clone()).collect();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(ids(&written), wanted);
    assert_eq!(ids(&body(&again)), wanted);
    let row: Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    for name in [
        "input",
        "output",
        "cost",
        "status",
        "termination",
        "model",
        "vendor",
        "conversation",
    ] {
        assert_eq!(row[name], rows[0][name], "{name}");
    }
    assert_eq!(records.len(), 3);
    for (record, row) in records.iter().zip(&rows) {
        assert_eq!(record["request_id"], row["request_id"]);
        assert_eq!(record["input"], format!("#{}", row["input"]));
        assert_eq!(record["model"], row["model"]);
    }
}
