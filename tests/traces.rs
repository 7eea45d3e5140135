//! Traces through the binary: real collectors get the spans, both neighbours join the trace, nothing waits for it.

use std::net::SocketAddr;

use http::HeaderValue;
use serde_json::Value;
use tollgate_mock_llm::{Handle, Options, Recorded};
use tollgate_testkit::client::{self, Answer, post_json};
use tollgate_testkit::process::Gateway;

use crate::clients::run_script;
use crate::collectors::{Collector, Receiver, Seen, TracedUpstream, python};
use crate::support::{
    CHAT, CHAT_PATH, CHAT_STREAM, Sight, ai_proxy, bridge, documents, gateway, higress_config, ingress, mock,
    ordered, wasm_plugin,
};

const OPENAI: &str = "{ type: openai, apiTokens: [sk-gateway] }";
const EXAMPLE: &str = include_str!("../examples/tracing/higress-config.yaml");
/// The statistics of the first document.
const STATISTICS: &str = "  defaultConfig:\n    enable: true\n    tracing_span:\n    - key: user_content\n      value_source: request_body\n      value: messages.-1.content\n    - key: llm_model\n      value_source: request_body\n      value: model\n";

/// `tracing` towards the service `collector.static`.
fn tracing(backend: &str, more: &str) -> String {
    higress_config(&format!(
        "    tracing:\n      enable: true\n{more}      {backend}:\n        service: collector.static\n        port: 80\n"
    ))
}

fn scene(vendor: SocketAddr, collector: SocketAddr, config: &str, annotations: &[(&str, &str)]) -> String {
    documents(&[
        bridge(&[("mock", vendor), ("collector", collector)]),
        ingress("api", "/", "mock.static", annotations),
        ai_proxy("api", OPENAI),
        wasm_plugin("ai-statistics", STATISTICS),
        config.to_owned(),
    ])
}

fn start(text: &str) -> Gateway {
    gateway().file("scene.yaml", text).unwrap().go().unwrap()
}

/// Sends a chat with these headers; the request's id.
async fn chat(
    gateway: &Gateway,
    fault: &str,
    body: &str,
    headers: &[(&'static str, &str)],
) -> (Answer, String) {
    let (mut request, id) = ordered(fault, body);
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let answer = client::send(gateway.http, request).await.unwrap();
    (answer, id)
}

fn entry(spans: &[Seen]) -> &Seen {
    spans.iter().find(|span| span.kind == 2).unwrap()
}

/// The spans of attempts, in the order of the vendor's requests.
fn attempts<'s>(spans: &'s [Seen], vendor: &[Recorded]) -> Vec<&'s Seen> {
    let sent = vendor.iter().filter_map(|request| request.header("traceparent"));
    sent.map(|parent| {
        let id = parent.split('-').nth(2).unwrap();
        spans
            .iter()
            .find(|span| span.id == id)
            .unwrap_or_else(|| panic!("no span {id}: {spans:#?}"))
    })
    .collect()
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn opentelemetry_over_grpc_and_over_http() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    for (address, protocol, last) in [
        (collector.grpc, "grpc", "c"),
        (collector.http, "http/protobuf", "d"),
    ] {
        let parent = PARENT.replace("319c", &format!("319{last}"));
        let config = tracing("opentelemetry", "").replace(
            "        port: 80\n",
            &format!("        port: 80\n        protocol: {protocol}\n"),
        );
        let gateway = start(&scene(vendor.addr(), address, &config, &[]));
        let known = [
            ("traceparent", &*parent),
            ("tracestate", "a=b"),
            ("authorization", "Bearer sk-of-the-client"),
            ("user-agent", "curl/8"),
        ];
        let (answer, id) = chat(&gateway, "", CHAT_STREAM, &known).await;
        assert_eq!(answer.status, 200);
        let spans = collector.trace_of(&id, 2);
        let [span] = attempts(&spans, &vendor.requests()[vendor.requests().len() - 1..])[..] else {
            panic!("{spans:#?}")
        };
        let entry = entry(&spans);
        assert_eq!(
            (entry.trace.as_str(), entry.parent.as_str()),
            (&parent[3..35], &parent[36..52])
        );
        assert_eq!(entry.service, "higress-gateway.higress-system");
        assert_eq!(
            (entry.name.as_str(), span.parent.as_str()),
            ("POST api", entry.id.as_str())
        );
        assert_eq!(
            (span.name.as_str(), span.kind),
            ("router outbound|80||mock.static egress", 3)
        );
        for (name, value) in [
            ("http.method", "POST"),
            ("http.status_code", "200"),
            ("http.response.status_code", "#200"),
            ("user_agent", "curl/8"),
            ("url.path", CHAT_PATH),
            ("upstream_cluster", "outbound|80||mock.static"),
            ("user_content", "Who are you?"),
            ("llm_model", "gpt-4o"),
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai"),
            ("gen_ai.request.model", "gpt-4o"),
            ("gen_ai.response.model", "gpt-4o"),
            ("gen_ai.span.kind", "LLM"),
            ("tollgate.termination", "completed"),
        ] {
            assert_eq!(entry.get(name), value, "{name} of {entry:#?}");
        }
        assert!(
            entry.get("gen_ai.usage.input_tokens").starts_with('#'),
            "{entry:#?}"
        );
        assert!(
            entry.get("gen_ai.usage.output_tokens").starts_with('#'),
            "{entry:#?}"
        );
        assert!(
            !entry.failed && !span.failed && entry.took >= span.took,
            "{spans:#?}"
        );
        let sent = vendor.requests().pop().unwrap();
        assert_eq!(sent.header("tracestate"), Some("a=b"));
        assert_eq!(span.get("upstream_address"), vendor.addr().to_string());
        let text = collector.text();
        assert!(
            !text.contains("sk-of-the-client") && !text.contains("sk-gateway"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn attributes_of_ai_statistics_are_tags_by_the_names_that_they_were_given() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let attributes = "  defaultConfig:\n    attributes:\n    \
        - { key: asked, value_source: request_body, value: messages.-1.content, apply_to_span: true, trace_span_key: app.question }\n    \
        - { key: said, value_source: response_streaming_body, value: choices.0.delta.content, rule: append, apply_to_span: true }\n    \
        - { key: kept_out, value_source: fixed_value, value: x, apply_to_log: true, trace_span_key: app.kept_out }\n    \
        - { key: credential, value_source: request_header, value: x-api-key, apply_to_span: true, trace_span_key: app.credential }\n";
    let text = documents(&[
        bridge(&[("mock", vendor.addr()), ("collector", collector.grpc)]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", OPENAI),
        wasm_plugin("ai-statistics", attributes).replace("priority: 100", "priority: 200"),
        tracing("opentelemetry", ""),
    ]);
    let gateway = start(&text);
    let (answer, id) = chat(&gateway, "", CHAT_STREAM, &[("x-api-key", "sk-of-the-client")]).await;
    let pieces = answer.events().into_iter().filter_map(|event| {
        let event: Value = serde_json::from_str(&event).ok()?;
        event["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    });
    let said: String = pieces.collect();
    let spans = collector.trace_of(&id, 2);
    let entry = entry(&spans);
    for (name, value) in [
        ("app.question", "Who are you?"),
        ("said", &*said),
        ("app.credential", "***"),
        // By the name that was given, and by no other; and only where a span was asked for.
        ("asked", ""),
        ("credential", ""),
        ("kept_out", ""),
        ("app.kept_out", ""),
    ] {
        assert_eq!(entry.get(name), value, "{name} of {entry:#?}");
    }
    assert!(!said.is_empty());
    // The vendor's attempt is another span.
    let attempt = spans.iter().find(|span| span.kind == 3).unwrap();
    assert_eq!(attempt.get("app.question"), "");
}

#[tokio::test]
async fn retries_and_call_outs_are_children_of_the_request() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let provider = "{ type: openai, apiTokens: [sk-gateway], context: { fileUrl: 'http://files/v1/models', serviceName: \
                    files.static, servicePort: 80 } }";
    let retries = [
        ("higress.io/proxy-next-upstream", "error,http_503,non_idempotent"),
        ("higress.io/proxy-next-upstream-tries", "3"),
    ];
    let files = mock(Options::default());
    let text = documents(&[
        bridge(&[
            ("mock", vendor.addr()),
            ("files", files.addr()),
            ("collector", collector.grpc),
        ]),
        ingress("api", "/", "mock.static", &retries),
        ai_proxy("api", provider),
        tracing("opentelemetry", ""),
    ]);
    let gateway = start(&text);
    let (_, id) = chat(&gateway, "503;first=1", CHAT, &[("x-mock-key", "retried")]).await;
    let spans = collector.trace_of(&id, 4);
    let entry = entry(&spans);
    let found = attempts(&spans, &vendor.requests());
    let statuses: Vec<_> = found
        .iter()
        .map(|span| (span.get("http.status_code"), span.failed))
        .collect();
    assert_eq!(statuses, [("503", true), ("200", false)], "{spans:#?}");
    let call = spans
        .iter()
        .find(|span| span.name == "async outbound|80||files.static egress")
        .unwrap();
    let asked = files.requests().pop().unwrap();
    assert_eq!(
        asked.header("traceparent"),
        Some(&*format!("00-{}-{}-01", entry.trace, call.id))
    );
    assert!(
        spans
            .iter()
            .filter(|span| span.kind == 3)
            .all(|span| span.parent == entry.id),
        "{spans:#?}"
    );
    assert!(!entry.failed);
}

#[tokio::test]
async fn failures_say_why() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let timers = [("tollgate.dev/timeout-response-head", "200ms")];
    let gateway = start(&scene(
        vendor.addr(),
        collector.grpc,
        &tracing("opentelemetry", ""),
        &timers,
    ));
    let (_, id) = chat(&gateway, "stall-head;ms=60000", CHAT, &[]).await;
    let spans = collector.trace_of(&id, 2);
    for span in &spans {
        assert_eq!(
            (span.get("error.type"), span.failed),
            ("timeout_response_head", true),
            "{spans:#?}"
        );
    }
    let (_, id) = chat(&gateway, "cut;after=3;how=reset", CHAT_STREAM, &[]).await;
    let spans = collector.trace_of(&id, 2);
    for span in &spans {
        assert_eq!(
            (span.get("error.type"), span.failed),
            ("upstream_cut", true),
            "{spans:#?}"
        );
    }
}

/// Whether the vendor's newest request was told that its trace is recorded.
fn last_sampled(vendor: &Handle) -> bool {
    vendor
        .requests()
        .pop()
        .unwrap()
        .header("traceparent")
        .unwrap()
        .ends_with("-01")
}

#[tokio::test]
async fn the_callers_decision_counts_and_chance_decides_for_the_rest() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let unsampled = PARENT.replace("-01", "-00");
    for (sampling, without_parent) in [("0", false), ("100", true)] {
        let config = tracing("opentelemetry", &format!("      sampling: {sampling}\n"));
        let gateway = start(&scene(vendor.addr(), collector.grpc, &config, &[]));
        let mut ids = Vec::new();
        for (headers, expected) in [
            (&[][..], without_parent),
            (&[("traceparent", unsampled.as_str())][..], false),
            (&[("traceparent", PARENT)][..], true),
            (&[("traceparent", "00-zz")][..], without_parent),
        ] {
            let (_, id) = chat(&gateway, "", CHAT, headers).await;
            assert_eq!(
                last_sampled(&vendor),
                expected,
                "sampling {sampling}, {headers:?}"
            );
            ids.push((id, expected));
        }
        // The last that is recorded has come: so have those before it.
        let last = ids.iter().rfind(|(_, expected)| *expected).unwrap();
        collector.trace_of(&last.0, 2);
        let came: Vec<_> = collector
            .all()
            .iter()
            .map(|span| span.get("guid:x-request-id").to_owned())
            .collect();
        for (id, expected) in &ids {
            assert_eq!(came.contains(id), *expected, "sampling {sampling}, {id}");
        }
    }
}

#[tokio::test]
async fn zipkin_joins_by_b3() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let log = r#""trace":"%TRACE_ID%","span":"%SPAN_ID%","b3":"%REQ(X-B3-TRACEID)%","id":"#;
    let config = tracing("zipkin", "").replace("\"id\":", log);
    let gateway = start(&scene(vendor.addr(), collector.zipkin, &config, &[]));
    let many = [
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-sampled", "1"),
    ];
    let one = [("b3", "463ac35c9f6413ad48485a3953bb6125-a2fb4a1d1a96d312-1")];
    for headers in [&many[..], &one[..]] {
        let (_, id) = chat(&gateway, "", CHAT, headers).await;
        let spans = collector.trace_of(&id, 2);
        let entry = entry(&spans);
        let sent = vendor.requests().pop().unwrap();
        let trace = headers[0].1.split('-').next().unwrap();
        assert_eq!(
            (entry.trace.as_str(), entry.parent.as_str()),
            (trace, "a2fb4a1d1a96d312")
        );
        assert_eq!(sent.header("x-b3-traceid"), Some(trace));
        let line = gateway.line_of(&id);
        assert_eq!((&line["trace"], &line["b3"]), (&trace.into(), &trace.into()));
        assert_eq!(line["span"], entry.id);
        assert_eq!(sent.header("x-b3-parentspanid"), Some(entry.id.as_str()));
        let child = spans.iter().find(|span| span.kind == 3).unwrap();
        assert_eq!(sent.header("x-b3-spanid"), Some(child.id.as_str()));
        let single = format!("{trace}-{}-1-{}", child.id, entry.id);
        assert_eq!(sent.header("b3"), (headers.len() == 1).then_some(&*single));
    }
}

/// The tags of a SkyWalking span.
fn tag<'v>(span: &'v Value, name: &str) -> &'v str {
    let tags = span["tags"].as_array().unwrap().iter();
    tags.clone()
        .find(|tag| tag["key"] == name)
        .map_or("", |tag| tag["value"].as_str().unwrap())
}

/// A Kubernetes Service with one endpoint.
fn service(namespace: &str, name: &str, port: u16, address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  ports:\n  - {{ name: grpc, port: \
         {port} }}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
         labels: {{ kubernetes.io/service-name: {name} }}\naddressType: IPv4\nports:\n- {{ name: grpc, port: {} }}\nendpoints:\n- \
         addresses: [{}]\n",
        address.port(),
        address.ip()
    )
}

#[tokio::test]
async fn the_first_documents_skywalking_gets_its_segments() {
    let (vendor, receiver) = (mock(Options::default()), Receiver::start());
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress("qwen", "/", "mock.static", &[]),
        ai_proxy("qwen", OPENAI),
        wasm_plugin("ai-statistics", STATISTICS),
        service("op-system", "skywalking-oap-server", 11800, receiver.address),
        EXAMPLE.to_owned(),
    ]);
    let gateway = start(&text);
    let (_, id) = chat(&gateway, "", CHAT, &[("sw8-correlation", "YQ==:Yg==")]).await;
    let (segment, token) = receiver.segment("higress-gateway.higress-system", |segment| {
        tag(&segment["spans"][0], "guid:x-request-id") == id
    });
    assert_eq!(token, "");
    let [entry, exit] = segment["spans"].as_array().unwrap().as_slice() else {
        panic!("{segment:#}")
    };
    assert_eq!(
        (&entry["spanType"], &exit["spanType"]),
        (&"Entry".into(), &"Exit".into())
    );
    assert_eq!(
        (&entry["parentSpanId"], &exit["parentSpanId"]),
        (&(-1).into(), &0.into())
    );
    assert_eq!(entry["operationName"], CHAT_PATH);
    // The tags that the document shows.
    assert_eq!(tag(entry, "user_content"), "Who are you?");
    assert_eq!(tag(entry, "llm_model"), "gpt-4o");
    assert!(
        !tag(entry, "input_tokens").is_empty() && !tag(entry, "output_tokens").is_empty(),
        "{entry:#}"
    );
    let sent = vendor.requests().pop().unwrap();
    assert!(sent.header("sw8").unwrap().starts_with("1-"));
    assert_eq!(sent.header("sw8-correlation"), Some("YQ==:Yg=="));
}

#[tokio::test]
async fn skywalkings_own_agent_is_our_parent_and_our_child() {
    let receiver = Receiver::start();
    let upstream = TracedUpstream::start(&receiver);
    let config = tracing("skywalking", "").replace(
        "        port: 80\n",
        "        port: '80'\n        access_token: token-of-ours\n",
    );
    let gateway = start(&documents(&[
        bridge(&[("mock", upstream.address), ("collector", receiver.address)]),
        ingress("api", "/", "mock.static", &[]),
        config,
    ]));
    let url = format!("http://{}{CHAT_PATH}", gateway.http);
    let printed = run_script(python(
        "skywalking_agent.py",
        &["client", &receiver.address.to_string(), &url, CHAT],
    ))
    .await;
    assert!(printed.contains("status 200"), "{printed}");
    let (client, _) = receiver.segment("python-client", |_| true);
    let (ours, token) = receiver.segment("higress-gateway.higress-system", |_| true);
    let (theirs, _) = receiver.segment("python-upstream", |_| true);
    assert_eq!(token, "token-of-ours");
    assert_eq!(
        (&ours["traceId"], &theirs["traceId"]),
        (&client["traceId"], &client["traceId"])
    );
    let reference = &ours["spans"][0]["refs"][0];
    assert_eq!(reference["parentTraceSegmentId"], client["traceSegmentId"]);
    assert_eq!(reference["parentSpanId"], client["spans"][0]["spanId"]);
    assert_eq!(reference["parentService"], "python-client");
    let reference = &theirs["spans"][0]["refs"][0];
    assert_eq!(reference["parentTraceSegmentId"], ours["traceSegmentId"]);
    assert_eq!(reference["parentSpanId"], ours["spans"][1]["spanId"]);
    assert_eq!(reference["parentService"], "higress-gateway.higress-system");
    assert_eq!(reference["parentEndpoint"], CHAT_PATH);
    assert_eq!(reference["networkAddressUsedAtPeer"], ours["spans"][1]["peer"]);
    assert_eq!(ours["spans"][1]["isError"], false);
    assert!(
        !gateway
            .errors
            .all()
            .iter()
            .any(|line| line.contains("token-of-ours"))
    );
    let dump = gateway.admin("/config_dump").await.text();
    assert!(!dump.contains("token-of-ours"));
}

#[tokio::test]
async fn a_collector_that_is_dead_slow_or_restarted_hurts_nobody() {
    let (vendor, collector) = (mock(Options::default()), Collector::start());
    let ports = collector.ports();
    let config = tracing("opentelemetry", "");
    let gateway = start(&scene(vendor.addr(), collector.grpc, &config, &[]));
    // Stopped: connections are taken by the kernel, nothing answers.
    collector.signal("STOP");
    let mut slow = Vec::new();
    for _ in 0..20 {
        let (answer, id) = chat(&gateway, "", CHAT, &[]).await;
        assert_eq!(answer.status, 200);
        slow.push(id);
    }
    gateway
        .errors
        .wait_for(|line| line.contains("reports do not arrive"))
        .unwrap();
    drop(collector);
    let (answer, dead) = chat(&gateway, "", CHAT, &[]).await;
    assert_eq!(answer.status, 200);
    let collector = Collector::on(ports);
    for id in slow.iter().chain([&dead]) {
        collector.trace_of(id, 2);
    }
    gateway
        .errors
        .wait_for(|line| line.contains("reports arrive again"))
        .unwrap();
    let exported = gateway
        .metric("tollgate_trace_spans_exported_total{exporter=\"otlp_grpc\"}")
        .await;
    assert_eq!(exported, 42.0);
    for reason in ["queue_full", "unreachable", "refused", "shutdown"] {
        let series =
            format!("tollgate_trace_spans_dropped_total{{exporter=\"otlp_grpc\",reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&series).await, 0.0, "{series}");
    }
}

#[tokio::test]
async fn a_reload_switches_the_backend_and_streams_under_way_keep_theirs() {
    let vendor = mock(Options::default());
    let (first, second) = (Collector::start(), Collector::start());
    let text = |collector, more: &str| {
        let extra = ingress(more, &format!("/{more}"), "mock.static", &[]);
        documents(&[
            scene(vendor.addr(), collector, &tracing("opentelemetry", ""), &[]),
            extra,
        ])
    };
    let gateway = start(&text(first.grpc, "a"));
    let (request, open) = ordered("pace;ms=300", CHAT_STREAM);
    let mut stream = client::open(gateway.http, request).await.unwrap();
    stream.read_until("data:").await.unwrap();
    let generation = "tollgate_config_generation{}";
    let before = gateway.metric(generation).await;
    gateway.write("scene.yaml", &text(second.grpc, "b")).unwrap();
    assert!(gateway.metric(generation).await > before);
    let (_, fresh) = chat(&gateway, "", CHAT, &[]).await;
    second.trace_of(&fresh, 2);
    stream.finish().await;
    first.trace_of(&open, 2);
    // And what is left at the end is sent.
    let (_, last) = chat(&gateway, "", CHAT, &[]).await;
    gateway.signal("TERM").unwrap();
    second.trace_of(&last, 2);
}

#[tokio::test]
async fn a_collector_that_does_not_exist_is_told_and_nothing_is_traced() {
    let vendor = mock(Options::default());
    let config = tracing("opentelemetry", "").replace("collector.static", "nowhere.static");
    let gateway = start(&scene(vendor.addr(), vendor.addr(), &config, &[]));
    gateway
        .errors
        .wait_for(|line| line.contains("no service nowhere.static has the port 80: nothing is traced"))
        .unwrap();
    let answer = client::send(gateway.http, post_json(CHAT_PATH, CHAT))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(vendor.requests().pop().unwrap().header("traceparent"), None);
}
