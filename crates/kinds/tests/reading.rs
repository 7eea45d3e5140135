//! Whole files through the front door: text in, objects and diagnostics out.

use std::sync::Arc;

use serde_json::json;
use tollgate_kinds::ingress::{PathType, ResourceBackend};
use tollgate_kinds::mcp_bridge::RegistryType;
use tollgate_kinds::wasm_plugin::Phase;
use tollgate_kinds::{Object, Objects, ReadOptions, Reading, read};

fn read_text(text: &str) -> Reading {
    read(
        text.as_bytes(),
        &Arc::from("conf/a.yaml"),
        &ReadOptions {
            default_namespace: "higress-system",
            substitute: None,
        },
    )
}

fn read_with(text: &str, values: &[(&str, &str)]) -> Reading {
    let lookup = |name: &str| {
        values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let options = ReadOptions {
        default_namespace: "higress-system",
        substitute: Some(&lookup),
    };
    read(text.as_bytes(), &Arc::from("conf/a.yaml"), &options)
}

fn lines(reading: &Reading) -> Vec<String> {
    reading.diagnostics.iter().map(ToString::to_string).collect()
}

fn objects(reading: Reading) -> Objects {
    let mut objects = Objects::new();
    for object in reading.objects {
        assert_eq!(objects.insert(object), Ok(()));
    }
    objects
}

const AI_PROXY: &str = include_str!("../testdata/documents/01-ai-proxy.yaml");

#[test]
fn the_published_ai_proxy_example_is_read_verbatim() {
    let values = [
        ("LLM", "qwen"),
        ("API_TOKEN", "sk-1"),
        ("LLM_DOMAIN", "dashscope.aliyuncs.com"),
    ];
    let reading = read_with(AI_PROXY, &values);
    assert_eq!(lines(&reading), [""; 0]);
    let objects = objects(reading);
    assert_eq!(objects.len(), 3);

    let plugin = objects.wasm_plugin("higress-system", "ai-proxy").unwrap();
    assert_eq!(
        plugin.spec.url,
        "oci://higress-registry.cn-hangzhou.cr.aliyuncs.com/plugins/ai-proxy:1.0.0"
    );
    assert_eq!(
        (plugin.spec.phase, plugin.spec.priority),
        (Phase::Unspecified, Some(100))
    );
    let rule = &plugin.spec.match_rules[0];
    assert_eq!(rule.ingress, ["qwen"]);
    assert_eq!(
        rule.config,
        Some(json!({"provider": {"type": "qwen", "apiTokens": ["sk-1"]}}))
    );
    assert_eq!(plugin.position("").line, 1);
    assert_eq!(
        plugin.position("spec.matchRules[0].config.provider.type").line,
        12
    );
    assert_eq!(
        plugin
            .position("spec.matchRules[0].config.provider.apiTokens[0]")
            .line,
        14
    );

    let ingress = objects.ingress("higress-system", "qwen").unwrap();
    let annotations = &ingress.metadata.annotations;
    assert_eq!(annotations["higress.io/destination"], "qwen.dns");
    assert_eq!(annotations["higress.io/proxy-ssl-server-name"], "on");
    assert_eq!(
        ingress
            .position("metadata.annotations[higress.io/destination]")
            .line,
        24
    );
    assert_eq!(ingress.spec.ingress_class_name.as_deref(), Some("higress"));
    let path = &ingress.spec.rules[0].paths[0];
    assert_eq!(
        (path.path.as_str(), path.path_type),
        ("/", Some(PathType::Prefix))
    );
    let bridge = ResourceBackend {
        api_group: "networking.higress.io".to_owned(),
        kind: "McpBridge".to_owned(),
        name: "default".to_owned(),
    };
    assert_eq!(path.backend.resource.as_ref(), Some(&bridge));

    let registry = &objects
        .mcp_bridge("higress-system", "default")
        .unwrap()
        .spec
        .registries[0];
    assert_eq!(registry.registry_type, Some(RegistryType::Dns));
    assert_eq!(
        (registry.name.as_str(), registry.domain.as_str()),
        ("qwen", "dashscope.aliyuncs.com")
    );
    assert_eq!(registry.port, 443);
}

#[test]
fn without_substitution_the_same_file_says_what_to_do() {
    let reading = read_text(AI_PROXY);
    assert_eq!(
        lines(&reading),
        [
            "conf/a.yaml:29: error: Ingress higress-system/${LLM}: metadata.name: holds a `${NAME}` that was not \
          replaced; `--envsubst` replaces it"
        ]
    );
}

#[test]
fn an_unset_name_refuses_its_own_document_only_and_no_value_is_told() {
    let reading = read_with(AI_PROXY, &[("LLM", "qwen"), ("LLM_DOMAIN", "a.example.com")]);
    assert_eq!(
        lines(&reading),
        [
            "conf/a.yaml:14: error: WasmPlugin higress-system/ai-proxy: the environment variable API_TOKEN is not set"
        ]
    );
    assert_eq!(reading.objects.len(), 2);
}

#[test]
fn one_broken_document_leaves_nine_alone() {
    let mut text = String::new();
    for index in 0..10 {
        let broken = if index == 4 { "  a: [1, 2\n b" } else { "" };
        text.push_str(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m{index}\ndata:\n  a{broken}: x\n---\n"
        ));
    }
    let reading = read_text(&text);
    let names: Vec<String> = reading.objects.iter().map(|object| object.key().name).collect();
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m5", "m6", "m7", "m8", "m9"]);
    let [diagnostic] = reading.diagnostics.as_slice() else {
        panic!("{:?}", reading.diagnostics)
    };
    assert!(diagnostic.is_error());
    assert_eq!((&*diagnostic.kind, &*diagnostic.name), ("ConfigMap", "m4"));
    assert!((34..=36).contains(&diagnostic.line), "{diagnostic}");
    assert!(diagnostic.message.starts_with("invalid YAML: "), "{diagnostic}");
}

#[test]
fn wrong_types_name_field_and_line_but_never_the_value() {
    let text = "apiVersion: networking.higress.io/v1
kind: McpBridge
metadata: {name: default}
spec:
  registries:
    - type: dns
      name: llm
      port: 443
    - type: dns
      name: two
      port: sk-top-secret
---
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: a, namespace: x}
spec:
  phase: sk-top-secret
---
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: b}
spec:
  matchRules:
  - config: {}
    ingress: [a]
  - config: {}
---
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: c}
spec:
  defaultConfig: sk-top-secret
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data:
  tls.key: '-----BEGIN'
";
    assert_eq!(
        lines(&read_text(text)),
        [
            "conf/a.yaml:11: error: McpBridge higress-system/default: spec.registries[1].port: expected a whole number \
             from 0 to 4294967295, found a string",
            "conf/a.yaml:17: error: WasmPlugin x/a: spec.phase: expected one of UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS",
            "conf/a.yaml:26: error: WasmPlugin higress-system/b: spec.matchRules[1]: the rule needs at least one of \
             `ingress`, `domain`, `service`",
            "conf/a.yaml:32: error: WasmPlugin higress-system/c: spec.defaultConfig: expected a mapping",
            "conf/a.yaml:38: error: Secret higress-system/s: data[tls.key]: is not base64; plain text goes to \
             `stringData`",
        ]
    );
}

#[test]
fn what_is_no_object_or_not_ours_is_told_apart() {
    let text = "a: 1
---
- 1
---
kind: Ingress
metadata: {name: a}
---
apiVersion: v1
kind: ConfigMap
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: ns}
---
apiVersion: networking.k8s.io/v2
kind: Ingress
metadata: {name: i}
";
    assert_eq!(
        lines(&read_text(text)),
        [
            "conf/a.yaml:1: error: kind: missing, so this is no Kubernetes object",
            "conf/a.yaml:3: error: the document is not a mapping, so it is no object",
            "conf/a.yaml:5: error: Ingress a: apiVersion: missing",
            "conf/a.yaml:8: error: ConfigMap: metadata.name: missing",
            "conf/a.yaml:11: warning: Deployment ns/d: this kind is not used here, so the object was left out",
            "conf/a.yaml:15: warning: Ingress i: apiVersion: not used; this kind is read as networking.k8s.io/v1, \
             networking.k8s.io/v1beta1, extensions/v1beta1",
        ]
    );
}

#[test]
fn a_second_definition_is_refused_and_both_places_are_named() {
    let reading = read_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    );
    let mut objects = Objects::new();
    let mut refused = Vec::new();
    for object in reading.objects {
        if let Err(diagnostic) = objects.insert(object) {
            refused.push(diagnostic.to_string());
        }
    }
    assert_eq!(
        refused,
        [
            "conf/a.yaml:5: error: ConfigMap higress-system/a: defined twice; conf/a.yaml:1 defines it first and stays in force"
        ]
    );
    assert_eq!(objects.len(), 1);
}

#[test]
fn json_files_and_lists_are_read_with_their_lines() {
    let text = r#"{
  "apiVersion": "v1", "kind": "List",
  "items": [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "\ud83d\ude00"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"},
     "spec": {"ports": [{"name": "http", "port": "80"}, {"port": 70000}]}}
  ]
}"#;
    let reading = read_text(text);
    assert_eq!(
        lines(&reading),
        [
            "conf/a.yaml:6: error: Service higress-system/b: spec.ports[1].port: expected a whole number from 0 to 65535, \
          found another number"
        ]
    );
    let [Object::ConfigMap(map)] = reading.objects.as_slice() else {
        panic!("{:?}", reading.objects)
    };
    assert_eq!(map.spec.data["k"], "😀");
    assert_eq!(map.position("data.k").line, 4);
}

#[test]
fn an_api_servers_typed_list_names_kind_and_version_once() {
    let text = "apiVersion: v1\nkind: SecretList\nitems:\n- metadata: {name: a}\n  data: {k: aGk=}\n  stringData: {s: x}\n";
    let reading = read_text(text);
    assert_eq!(lines(&reading), [""; 0]);
    let [Object::Secret(secret)] = reading.objects.as_slice() else {
        panic!("{:?}", reading.objects)
    };
    assert_eq!(secret.spec.data["k"].expose(), b"hi");
    assert_eq!(secret.spec.data["s"].expose_text(), Some("x"));
    assert_eq!(format!("{:?}", secret.spec.data["k"]), "*** (2 bytes)");
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    let options = ReadOptions {
        default_namespace: "x",
        substitute: None,
    };
    let reading = read(b"a: 1\nb: \xff\xfe\n", &Arc::from("a.yaml"), &options);
    assert_eq!(lines(&reading), ["a.yaml:2: error: the file is not UTF-8 text"]);
}

#[test]
fn fields_that_higress_does_not_have_are_named() {
    let text = "apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {name: a}
spec:
  url: oci://x/a:1
  matchRule: []
  matchRules:
  - ingress: [a]
    config: {anything: {goes: here}}
    domains: [b]
status: {}
---
apiVersion: networking.higress.io/v1
kind: McpBridge
metadata: {name: default}
sepc: {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a}
spec: {rules: [{host: a, whatever: 1}]}
";
    let reading = read_text(text);
    assert_eq!(
        lines(&reading),
        [
            "conf/a.yaml:6: warning: WasmPlugin higress-system/a: spec.matchRule: there is no such field, so it has no \
             effect",
            "conf/a.yaml:10: warning: WasmPlugin higress-system/a: spec.matchRules[0].domains: there is no such field, \
             so it has no effect",
            "conf/a.yaml:13: warning: McpBridge higress-system/default: spec: missing, so the object says nothing",
        ]
    );
    assert_eq!(reading.objects.len(), 3);
}
