//! Each kind with every field it has, and the sections of Higress's ConfigMaps.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollgate_kinds::endpoint_slice::{Endpoint, EndpointPort};
use tollgate_kinds::higress_config::{Gzip, HigressConfig};
use tollgate_kinds::https_config::HttpsConfig;
use tollgate_kinds::ingress::{PathType, ServicePortRef};
use tollgate_kinds::ledger_config::LedgerConfig;
use tollgate_kinds::mcp_bridge::RegistryType;
use tollgate_kinds::mesh_config::MeshConfig;
use tollgate_kinds::price_table::PriceTable;
use tollgate_kinds::usage_config::UsageConfig;
use tollgate_kinds::wasm_plugin::{EnvSource, FailStrategy, ImagePullPolicy, Phase, RouteType};
use tollgate_kinds::{ConfigMap, KINDS, Objects, ReadOptions, read};

fn objects(text: &str) -> Objects {
    let options = ReadOptions {
        default_namespace: "higress-system",
        substitute: None,
    };
    let reading = read(text.as_bytes(), &Arc::from("a.yaml"), &options);
    assert_eq!(reading.diagnostics, []);
    let mut objects = Objects::new();
    for object in reading.objects {
        assert_eq!(objects.insert(object), Ok(()));
    }
    objects
}

fn every_field() -> Objects {
    objects(include_str!("../testdata/every-field.yaml"))
}

fn config_map(body: &str) -> Option<Arc<ConfigMap>> {
    let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata:\n{body}");
    objects(&text).config_map("higress-system", "m").cloned()
}

#[test]
fn the_example_file_has_every_kind() {
    let objects = every_field();
    for row in KINDS.iter().filter(|row| row.kind != "ConfigMap") {
        assert!(
            objects.iter().any(|object| object.key().kind == row.kind),
            "{}",
            row.kind
        );
    }
}

#[test]
fn ingress_of_both_layouts() {
    let objects = every_field();
    let ingress = objects.ingress("shop", "new").unwrap();
    let annotations = &ingress.metadata.annotations;
    assert_eq!(annotations["higress.io/timeout"], "30");
    assert_eq!(annotations["higress.io/use-regex"], "true");
    assert_eq!(
        annotations["higress.io/proxy-ssl-server-name"], "true",
        "as kubectl sends an unquoted on"
    );
    assert_eq!(ingress.metadata.labels["version"], "3");
    assert_eq!(
        ingress.metadata.creation_timestamp.as_deref(),
        Some("2026-01-02T03:04:05Z")
    );
    let spec = &ingress.spec;
    let fallback = spec
        .default_backend
        .as_ref()
        .and_then(|backend| backend.service.as_ref())
        .unwrap();
    assert_eq!(
        (fallback.name.as_str(), &fallback.port),
        ("fallback", &ServicePortRef::Number(8080))
    );
    assert_eq!(spec.tls[0].hosts, ["shop.example.com"]);
    assert_eq!(
        (spec.tls[1].hosts.len(), spec.tls[1].secret_name.as_str()),
        (0, "rest")
    );
    assert_eq!(spec.rules.len(), 3);
    let [first, second] = spec.rules[0].paths.as_slice() else {
        panic!("two paths expected")
    };
    assert_eq!(
        (first.path.as_str(), first.path_type),
        ("/a", Some(PathType::Exact))
    );
    let port = first.backend.service.as_ref().map(|service| service.port.clone());
    assert_eq!(port, Some(ServicePortRef::Name("http".to_owned())));
    assert_eq!((second.path.as_str(), second.path_type), ("", None));
    assert_eq!(spec.rules[1].paths, []);

    let old = &objects.ingress("higress-system", "old").unwrap().spec;
    assert_eq!(
        old.default_backend
            .as_ref()
            .and_then(|backend| backend.service.as_ref()),
        Some(fallback)
    );
    let service = old.rules[0].paths[0].backend.service.as_ref().unwrap();
    assert_eq!(
        (service.name.as_str(), &service.port),
        ("b", &ServicePortRef::Name("web".to_owned()))
    );

    let names: Vec<&str> = objects
        .ingresses()
        .iter()
        .map(|ingress| ingress.metadata.name.as_str())
        .collect();
    assert_eq!(names, ["old", "new"], "without a creation time comes first");
    assert!(
        objects.ingress_class("", "higress").is_some(),
        "a class has no namespace"
    );
}

#[test]
fn mcp_bridge_with_every_registry() {
    let objects = every_field();
    let bridge = objects.mcp_bridge("higress-system", "default").unwrap();
    let [local, dns, nacos, zookeeper, consul, eureka] = bridge.spec.registries.as_slice() else {
        panic!("six registries expected")
    };
    assert_eq!(
        (local.registry_type, local.port),
        (Some(RegistryType::Static), 80)
    );
    assert_eq!(
        (dns.port, dns.sni.as_str(), dns.proxy_name.as_str()),
        (443, "api.example.com", "squid")
    );
    assert_eq!(nacos.registry_type, Some(RegistryType::Nacos3));
    assert_eq!(
        (nacos.nacos_refresh_interval, nacos.nacos_secret_key.expose()),
        (30_000_000_000, "sk-secret")
    );
    assert!(nacos.enable_mcp_server == Some(true) && nacos.enable_scope_mcp_servers == Some(true));
    let vport = nacos.vport.as_ref().unwrap();
    assert_eq!((vport.default, vport.services[0].value), (80, 8080));
    assert_eq!(zookeeper.zk_services_path, ["/cloud"]);
    assert_eq!(
        (consul.consul_refresh_interval, consul.consul_service_tag.as_str()),
        (10_000_000_000, "blue")
    );
    assert_eq!(eureka.registry_type, Some(RegistryType::Eureka));
    assert_eq!(
        (
            bridge.spec.proxies[0].server_port,
            bridge.spec.proxies[0].connect_timeout
        ),
        (3128, 900)
    );
    assert!(!format!("{:?}", bridge.spec).contains("sk-secret"));
    assert_eq!(
        format!("{bridge:?}"),
        "McpBridge higress-system/default (a.yaml:69)"
    );
}

#[test]
fn wasm_plugin_with_enums_as_names_and_numbers() {
    let objects = every_field();
    let spec = &objects.wasm_plugin("higress-system", "key-auth").unwrap().spec;
    assert_eq!((spec.phase, spec.priority), (Phase::Authn, Some(310)));
    assert_eq!(
        (spec.image_pull_policy, spec.fail_strategy),
        (ImagePullPolicy::Always, FailStrategy::Open)
    );
    assert_eq!(
        (
            spec.vm_config.env[0].value.as_str(),
            spec.vm_config.env[0].value_from
        ),
        ("1", EnvSource::Inline)
    );
    assert_eq!(spec.vm_config.env[1].value_from, EnvSource::Host);
    assert_eq!(
        spec.default_config,
        Some(json!({"z": null, "a": 1, "consumers": []}))
    );
    let keys: Vec<String> = spec
        .default_config
        .iter()
        .filter_map(|config| config.as_object())
        .flat_map(|map| map.keys().cloned())
        .collect();
    assert_eq!(
        keys,
        ["z", "a", "consumers"],
        "configs keep the order of the file"
    );
    assert!(spec.default_config_disable);
    assert_eq!(
        (spec.match_rules[0].route_type, spec.match_rules[1].config_disable),
        (RouteType::Grpc, true)
    );
    assert_eq!(spec.match_rules[1].service, ["llm.dns:443"]);
}

#[test]
fn secret_service_and_endpoints() {
    let objects = every_field();
    let secret = &objects.secret("shop", "shop-cert").unwrap().spec;
    let text = |key: &str| secret.data.get(key).and_then(|value| value.expose_text());
    assert_eq!(
        (text("tls.crt"), text("tls.key"), text("both")),
        (Some("cert"), Some("key"), Some("new"))
    );
    assert_eq!(secret.secret_type, "kubernetes.io/tls");
    assert_eq!(
        secret
            .first(&["cert", "tls.crt"])
            .and_then(|value| value.expose_text()),
        Some("cert")
    );

    let service = &objects.service("shop", "a").unwrap().spec;
    let named = service.port(&ServicePortRef::Name("admin".to_owned())).unwrap();
    assert_eq!(
        (named.port, &named.target_port),
        (81, &ServicePortRef::Name("admin".to_owned()))
    );
    assert_eq!(
        service
            .port(&ServicePortRef::Number(80))
            .map(|port| port.name.as_str()),
        Some("http")
    );
    assert_eq!(service.port(&ServicePortRef::Unset), None);
    assert_eq!(service.cluster_ip, "None");

    let endpoint = |address: &str, ready| Endpoint {
        address: address.to_owned(),
        ready,
    };
    let slice = &objects.endpoint_slice("shop", "a-x1").unwrap().spec;
    assert_eq!(slice.service, "a");
    let [group] = slice.groups.as_slice() else {
        panic!("one group expected")
    };
    assert_eq!(
        group.endpoints,
        [
            endpoint("10.0.0.1", true),
            endpoint("10.0.0.2", false),
            endpoint("10.0.0.3", true)
        ]
    );
    let all = objects.endpoint_slices();
    let old = &all
        .iter()
        .find(|object| object.origin.kind == "Endpoints")
        .unwrap()
        .spec;
    assert_eq!(old.service, "b");
    assert_eq!(
        old.groups[0].endpoints,
        [endpoint("10.0.1.1", true), endpoint("10.0.1.2", false)]
    );
    assert_eq!(
        old.groups[0].ports,
        [EndpointPort {
            port: 9000,
            ..EndpointPort::default()
        }]
    );
}

#[test]
fn higress_config_and_mesh() {
    let objects = objects(include_str!("../testdata/higress-config.yaml"));
    let map = objects.config_map("higress-system", "higress-config").unwrap();
    let (config, diagnostics) = HigressConfig::read(map);
    assert_eq!(diagnostics, []);
    let skywalking = config.tracing.skywalking.as_ref().unwrap();
    assert_eq!(
        (skywalking.port, skywalking.access_token.expose()),
        (11_800, "sk-secret")
    );
    assert!(config.tracing.enable && config.tracing.timeout == 700);
    assert!((config.tracing.sampling - 12.5).abs() < f64::EPSILON);
    assert_eq!(
        (
            config.gzip.enable,
            config.gzip.min_content_length,
            config.gzip.level()
        ),
        (false, 10, Some(3))
    );
    assert_eq!(config.gzip.content_type, Gzip::default().content_type);
    assert_eq!(
        (config.downstream.idle_timeout, config.downstream.route_timeout),
        (0, 5)
    );
    assert_eq!(
        (
            config.downstream.max_request_headers_kb,
            config.downstream.connection_buffer_limits
        ),
        (128, 32_768)
    );
    assert_eq!(config.downstream.http2.max_concurrent_streams, 7);
    assert_eq!(config.downstream.http2.initial_stream_window_size, 65_535);
    assert_eq!(
        (
            config.upstream.idle_timeout,
            config.upstream.connection_buffer_limits
        ),
        (20, 10_485_760)
    );
    assert!(config.disable_x_envoy_headers == Some(true) && config.add_x_real_ip_header);
    let mcp = &config.mcp_server;
    assert_eq!(
        (mcp.sse_path_suffix.as_str(), mcp.servers[0].server_type.as_str()),
        ("/events", "weather")
    );
    assert_eq!(mcp.match_list[0].path_rewrite_prefix, "/");
    assert_eq!(mcp.rate_limit.as_ref().map(|limit| limit.window), Some(60));
    assert!(!format!("{config:?}").contains("sk-secret"));

    let (mesh, diagnostics) = MeshConfig::read(map);
    assert_eq!(diagnostics, []);
    assert_eq!(mesh.dns_refresh_rate, Some(Duration::from_secs(200)));
    assert_eq!(
        mesh.access_log_format,
        "{\"ai_log\":\"%FILTER_STATE(wasm.ai_log:PLAIN)%\"}"
    );
    assert!(mesh.enable_proxy_protocol && mesh.disable_alpn_h2 && !mesh.enable_h3);

    let (https, diagnostics) =
        HttpsConfig::read(objects.config_map("higress-system", "higress-https").unwrap());
    assert_eq!(diagnostics, []);
    let https = https.unwrap();
    assert_eq!(https.secret_for("API.example.com"), Some("acme"));
    assert_eq!(https.secret_for("b.example.com"), Some("certs/wild"));
    assert_eq!(https.secret_for("example.org"), None);
    assert!(https.fallback_for_invalid_secret && https.renew_before_days == 30);
}

#[test]
fn a_missing_key_means_defaults() {
    let map = config_map("  other: x\n").unwrap();
    assert_eq!(HigressConfig::read(&map), (HigressConfig::default(), Vec::new()));
    assert_eq!(MeshConfig::read(&map), (MeshConfig::default(), Vec::new()));
    assert_eq!(HttpsConfig::read(&map), (None, Vec::new()));
    assert!(HigressConfig::default().gzip.enable);
    assert_eq!(
        HigressConfig::read(&config_map("  higress: ''\n").unwrap()),
        (HigressConfig::default(), Vec::new())
    );
}

#[test]
fn a_wrong_section_is_named_with_its_line_and_the_others_stay() {
    let map = config_map(
        "  higress: |
    tracing:
      enable: true
    gzip:
      memoryLevel: 10
    downstream:
      idleTimeout: never
      routeTimeout: 5
    upstream:
      idleTimeout: 20
    mcpServer:
      match_list:
      - match_rule_type: exact
      - match_rule_type: fuzzy
",
    )
    .unwrap();
    let (config, diagnostics) = HigressConfig::read(&map);
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "a.yaml:7: error: ConfigMap higress-system/m: data[higress].tracing.enable: one of zipkin, skywalking, \
             opentelemetry must say where to; the whole section is ignored",
            "a.yaml:9: error: ConfigMap higress-system/m: data[higress].gzip.memoryLevel: must be from 1 to 9; the \
             whole section is ignored",
            "a.yaml:11: error: ConfigMap higress-system/m: data[higress].downstream.idleTimeout: expected a whole \
             number from 0 to 4294967295, found a string",
            "a.yaml:18: error: ConfigMap higress-system/m: data[higress].mcpServer.match_list[1].match_rule_type: \
             must be one of exact, prefix, suffix, contains, regex; the whole section is ignored",
        ]
    );
    assert_eq!(config.upstream.idle_timeout, 20);
    assert_eq!(config.gzip, Gzip::default());
}

#[test]
fn what_tracing_may_not_say() {
    let fault = |section: &str| {
        let text = format!("  higress: |\n    tracing:\n      enable: true\n{section}");
        let (config, diagnostics) = HigressConfig::read(&config_map(&text).unwrap());
        assert!(
            !config.tracing.enable || diagnostics.is_empty(),
            "{diagnostics:?}"
        );
        let first = diagnostics.first().map(ToString::to_string).unwrap_or_default();
        first
            .split_once("tracing.")
            .map_or(String::new(), |(_, told)| told.to_owned())
    };
    let good = "      zipkin: { service: z.dns, port: 9411 }\n";
    for (section, told) in [
        (good, ""),
        (
            "      opentelemetry: { service: o.dns, port: '4318', protocol: http/protobuf }\n",
            "",
        ),
        (
            "      opentelemetry: { service: o.dns, port: 4318, protocol: json }\n",
            "opentelemetry.protocol: must be grpc",
        ),
        (
            "      zipkin: { service: z.dns, port: 9411, protocol: grpc }\n",
            "zipkin.protocol: only opentelemetry",
        ),
        ("      zipkin: { port: 9411 }\n", "zipkin.service: missing"),
        (
            "      skywalking: { service: s.dns }\n",
            "skywalking.port: missing",
        ),
        (
            &format!("{good}      skywalking: {{ service: s.dns, port: 1 }}\n"),
            "skywalking: only one of",
        ),
        (
            &format!("      sampling: 101\n{good}"),
            "sampling: must be from 0 to 100",
        ),
        (
            &format!("      timeout: 0\n{good}"),
            "timeout: must be more than 0",
        ),
    ] {
        let found = fault(section);
        assert!(
            found.starts_with(told) && found.is_empty() == told.is_empty(),
            "{section}: {found}"
        );
    }
    // What the chart writes while tracing is off.
    let off =
        "  higress: |\n    tracing:\n      enable: false\n      skywalking: { service: '', port: 11800 }\n";
    assert!(HigressConfig::read(&config_map(off).unwrap()).1.is_empty());
}

#[test]
fn broken_text_in_a_config_map_is_named_with_its_line() {
    let (_, diagnostics) = HigressConfig::read(&config_map("  higress: |\n    a: 1\n    b: [\n").unwrap());
    let [diagnostic] = diagnostics.as_slice() else {
        panic!("{diagnostics:?}")
    };
    assert!((7..=8).contains(&diagnostic.line), "{diagnostic}");
    assert!(diagnostic.message.starts_with("invalid YAML"), "{diagnostic}");
    let (_, diagnostics) = MeshConfig::read(&config_map("  mesh: '[]'\n").unwrap());
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["a.yaml:5: error: ConfigMap higress-system/m: data[mesh]: expected a mapping"]
    );
    let (https, diagnostics) = HttpsConfig::read(&config_map("  cert: '{automaticHttps: true}'\n").unwrap());
    assert_eq!(https, None);
    assert!(
        diagnostics[0]
            .message
            .starts_with("automatic HTTPS needs an issuer"),
        "{}",
        diagnostics[0]
    );
}

#[test]
fn prices_are_read_exactly_and_a_wrong_row_hurts_only_itself() {
    let map = config_map(
        "  tollgate-prices: |
    currency: CNY
    models:
    - { model: gpt-4o, input: 2.5, output: '10', cached: 1.25, currency: CNY }
    - { model: 'qwen-*', input: 0.0000001, output: -1 }
    - { model: 'qwen-*', input: 0.0000001, reasoning: 1e-9, cacheWritten: 3 }
    - { model: 'qwen-*', input: 1 }
    - { model: '*-max', input: 1 }
    - { model: free }
    - { model: x, input: 1, currency: USD }
    - { model: y, input: [1] }
    - 7
",
    )
    .unwrap();
    let (table, diagnostics) = PriceTable::read(&map);
    let rows: Vec<_> = table
        .models
        .iter()
        .map(|row| {
            let parts = [
                Some(row.input),
                Some(row.output),
                row.cached,
                row.cache_written,
                row.reasoning,
            ];
            (
                row.model.as_str(),
                parts.map(|amount| amount.map(|amount| amount.to_string())),
            )
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(table.currency, "CNY");
    assert_eq!(
        rows,
        [
            ("gpt-4o", [some("2.5"), some("10"), some("1.25"), None, None]),
            (
                "qwen-*",
                [some("0.0000001"), some("0"), None, some("3"), some("0.000000001")]
            ),
        ]
    );
    let told: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            format!(
                "{}: {}: {}",
                diagnostic.line, diagnostic.field, diagnostic.message
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "15: data[tollgate-prices].models[7].input: expected a string, found a list",
            "16: data[tollgate-prices].models[8]: expected a mapping, found a number",
            "9: data[tollgate-prices].models[1].output: must be an amount for a million tokens: a decimal number from 0, \
             at most 9 decimal places; the row is ignored",
            "11: data[tollgate-prices].models[3].model: models[2] is for the same model; this row is ignored",
            "12: data[tollgate-prices].models[4].model: `*` may stand at the end only; the row is ignored",
            "13: data[tollgate-prices].models[5].input: missing; the row is ignored",
            "14: data[tollgate-prices].models[6].currency: a table has one currency, and this one's is CNY; the row is \
             ignored",
        ]
    );
    assert_eq!(PriceTable::read(&config_map("  other: x\n").unwrap()).1, []);
}

#[test]
fn a_tokenizer_is_one_that_there_is() {
    let read = |text: &str| {
        let (config, diagnostics) = UsageConfig::read(&config_map(text).unwrap());
        let told: Vec<_> = diagnostics
            .iter()
            .map(|diagnostic| format!("{}: {}", diagnostic.field, diagnostic.message))
            .collect();
        (config.openai_tokenizer, told.join("; "))
    };
    assert_eq!(
        read("  tollgate-usage: '{tokenizer: openai}'\n"),
        (true, String::new())
    );
    assert_eq!(
        read("  tollgate-usage: '{tokenizer: none}'\n"),
        (false, String::new())
    );
    assert_eq!(read("  other: x\n"), (false, String::new()));
    let wrong = "data[tollgate-usage].tokenizer: must be openai or none; tokens are estimated";
    assert_eq!(
        read("  tollgate-usage: '{tokenizer: qwen}'\n"),
        (false, wrong.to_owned())
    );
    assert_eq!(
        read("  tollgate-usage: '{tokenizer: [openai]}'\n"),
        (
            false,
            "data[tollgate-usage].tokenizer: expected a string, found a list".to_owned()
        )
    );
}

#[test]
fn the_ledgers_settings_and_each_sink_stand_alone() {
    let map = config_map(
        "  tollgate-ledger: |
    retention: { rows: 12h, hours: 4w }
    sinks:
    - { type: file, path: /var/log/usage.jsonl }
    - { type: file }
    - { type: http, url: 'http://clickhouse:8123/?query=x', headers: { x-clickhouse-key: secret } }
    - { type: http, name: http-2, url: 'ftp://x' }
    - { type: otlp, url: 'https://collector/v1/logs', headers: { 'a b': c } }
    - { type: kafka }
    - { type: file, name: file-0, path: x }
    - 7
",
    )
    .unwrap();
    let (config, diagnostics) = LedgerConfig::read(&map);
    let hours = |hours| Duration::from_hours(hours);
    let kept = config.retention;
    assert_eq!(
        (kept.rows, kept.hours, kept.days),
        (hours(12), hours(24 * 28), hours(24 * 730))
    );
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!((config.enable, names), (true, vec!["file-0", "http-2"]));
    assert!(!format!("{config:?}").contains("secret"));
    let told: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| {
            format!(
                "{}: {}: {}",
                diagnostic.line, diagnostic.field, diagnostic.message
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "15: data[tollgate-ledger].sinks[7]: expected a mapping, found a number",
            "9: data[tollgate-ledger].sinks[1].path: missing; the sink is left out",
            "11: data[tollgate-ledger].sinks[3].name: another sink is called http-2; the sink is left out",
            "12: data[tollgate-ledger].sinks[4].headers: must be names and values of HTTP headers; the sink is left out",
            "13: data[tollgate-ledger].sinks[5].type: must be file, http or otlp; the sink is left out",
            "14: data[tollgate-ledger].sinks[6].name: another sink is called file-0; the sink is left out",
        ]
    );
    for (bad, field) in [
        ("{ rows: 5y }", "rows"),
        ("{ rows: 0h }", "rows"),
        ("{ rows: 100d }", "hours"),
        ("{ hours: 800d }", "days"),
        ("{ days: 31d, hours: 1d, rows: 1d }", "days"),
    ] {
        let map = config_map(&format!(
            "  tollgate-ledger: |\n    enable: false\n    retention: {bad}\n"
        ))
        .unwrap();
        let (config, diagnostics) = LedgerConfig::read(&map);
        let fields: Vec<_> = diagnostics
            .iter()
            .map(|diagnostic| diagnostic.field.to_string())
            .collect();
        assert_eq!(
            fields,
            [format!("data[tollgate-ledger].retention.{field}")],
            "{bad}"
        );
        assert!(!config.enable && config.retention == Default::default(), "{bad}");
    }
}
