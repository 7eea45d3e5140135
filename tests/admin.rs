//! The admin listener and the access log, read with what operators read them with.

use std::process::Command;

use serde_json::Value;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::send;

use crate::clients::{python, run_script};
use crate::support::{CHAT, CHAT_STREAM, Scene, Sight, bridge, documents, gateway, ingress, mock, ordered};

/// The keys of Higress's default log line, in its order.
const LOG_KEYS: &[&str] = &[
    "ai_log",
    "authority",
    "bytes_received",
    "bytes_sent",
    "downstream_local_address",
    "downstream_remote_address",
    "duration",
    "istio_policy_status",
    "method",
    "path",
    "protocol",
    "request_id",
    "requested_server_name",
    "response_code",
    "response_flags",
    "route_name",
    "start_time",
    "trace_id",
    "upstream_cluster",
    "upstream_host",
    "upstream_local_address",
    "upstream_service_time",
    "upstream_transport_failure_reason",
    "user_agent",
    "x_forwarded_for",
    "response_code_details",
];

#[tokio::test]
async fn a_log_line_is_json_with_higress_keys_in_order() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let (mut request, id) = ordered("", CHAT);
    request
        .headers_mut()
        .insert("user-agent", "agent \"quoted\"".parse().unwrap());
    let answer = send(gateway.http, request).await.unwrap();
    let line = gateway.line_of(&id);
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, LOG_KEYS);
    let of = |name: &str| {
        line[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {line}"))
            .to_owned()
    };
    assert_eq!(of("method"), "POST");
    assert_eq!(of("path"), "/v1/chat/completions");
    assert_eq!(of("protocol"), "HTTP/1.1");
    assert_eq!(of("response_code"), "200");
    assert_eq!(of("response_flags"), "-");
    assert_eq!(of("route_name"), "api");
    assert_eq!(of("upstream_cluster"), "outbound|80||mock.static");
    assert_eq!(of("upstream_host"), mock.addr().to_string());
    assert_eq!(of("bytes_received"), CHAT.len().to_string());
    assert_eq!(of("bytes_sent"), answer.body.len().to_string());
    assert_eq!(of("user_agent"), "agent \"quoted\"");
    assert_eq!(of("authority"), gateway.http.to_string());
    assert_eq!(of("downstream_local_address"), gateway.http.to_string());
    assert!(of("downstream_remote_address").starts_with("127.0.0.1:"));
    assert!(of("duration").parse::<u64>().is_ok(), "{line}");
    assert_eq!(of("start_time").len(), "2024-09-13T01:56:13.123Z".len());
}

#[tokio::test]
async fn a_stream_is_logged_when_it_ends() {
    let scene = Scene::openai(&[]);
    let (mut stream, id) = scene.open_chat("tokens;n=20,pace;ms=50", CHAT_STREAM).await;
    stream.read_until("data:").await.unwrap();
    assert!(
        scene.gateway.log.all().is_empty(),
        "the line is written at the end"
    );
    let answer = stream.finish().await;
    assert_eq!(answer.cut, None);
    assert_eq!(scene.gateway.line_of(&id)["code"], "200");
    assert_eq!(scene.gateway.log.all().len(), 1, "one line a request");
}

#[tokio::test]
async fn prometheus_own_parser_reads_the_metrics() {
    let scene = Scene::openai(&[]);
    for fault in ["", "500", "cut", "reset"] {
        let (request, id) = ordered(fault, CHAT_STREAM);
        drop(send(scene.gateway.http, request).await);
        scene.gateway.line_of(&id);
    }
    let mut command = Command::new(python());
    command
        .arg("metrics.py")
        .arg(format!("http://{}/stats/prometheus", scene.gateway.admin));
    let printed = run_script(command).await;
    let samples: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let of = |series: &str| {
        samples[series]
            .as_f64()
            .unwrap_or_else(|| panic!("no {series} in {samples:#}"))
    };
    assert_eq!(of("tollgate_requests_total{termination=completed}"), 2.0);
    assert_eq!(of("tollgate_requests_total{termination=upstream_cut}"), 1.0);
    assert_eq!(of("tollgate_requests_total{termination=upstream_error}"), 1.0);
    let cluster = "cluster_name=outbound|80||mock.static";
    assert!(of(&format!("envoy_cluster_upstream_rq_total{{{cluster}}}")) >= 4.0);
    assert_eq!(of("tollgate_config_generation{}"), 1.0);
    assert_eq!(of("envoy_server_live{}"), 1.0);
}

#[tokio::test]
async fn other_paths_of_the_admin_listener_are_404() {
    let gateway = gateway().go().unwrap();
    for path in ["/", "/stats", "/config", "/v1/chat/completions"] {
        assert_eq!(gateway.admin(path).await.status, 404, "{path}");
    }
    let metrics = gateway.admin("/stats/prometheus").await;
    assert!(
        metrics.header("content-type").starts_with("text/plain"),
        "{:?}",
        metrics.headers
    );
}
