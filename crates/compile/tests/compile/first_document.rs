//! The first document as it stands, its variables replaced, with the real plugins.

use tollgate_compile::{Options, compile};
use tollgate_kinds::{Objects, ReadOptions, read};

const DOCUMENT: &str = include_str!("../../testdata/first_document.yaml");

#[test]
fn compiles_without_a_word() {
    // The variables stand where the document has them.
    let written = DOCUMENT
        .replace("dashscope.aliyuncs.com", "${LLM_DOMAIN}")
        .replace("qwen", "${LLM}")
        .replace("sk-test", "${API_TOKEN}");
    let lookup = |name: &str| {
        let value = match name {
            "LLM" => "qwen",
            "LLM_DOMAIN" => "dashscope.aliyuncs.com",
            "API_TOKEN" => "sk-test",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let options = Options::default();
    let read_options = ReadOptions {
        default_namespace: &options.system_namespace,
        substitute: Some(&lookup),
    };
    let reading = read(written.as_bytes(), &"01-ai-proxy.yaml".into(), &read_options);
    assert_eq!(reading.diagnostics, []);
    let mut objects = Objects::new();
    for object in reading.objects {
        objects.insert(object).unwrap();
    }
    let (snapshot, diagnostics) = compile(&objects, &options);
    assert_eq!(diagnostics, []);
    let route = &snapshot.hosts.any.as_ref().unwrap().routes[0];
    assert_eq!((&*route.name, route.links.len()), ("qwen", 1));
    let candidate = &route.links[0].candidates[0];
    assert!(candidate.plugin.is_some());
    assert_eq!(&*candidate.origin.place, "01-ai-proxy.yaml:10");
    assert!(snapshot.unrouted.is_empty());
}

#[test]
fn a_vendor_that_nobody_knows_is_refused_with_its_place() {
    let written = DOCUMENT.replace("type: qwen", "type: qwenn");
    let (snapshot, diagnostics) =
        crate::support::compile_text(written.as_bytes(), "01-ai-proxy.yaml", &Options::default());
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let start = "01-ai-proxy.yaml:12: error: WasmPlugin higress-system/ai-proxy: \
                 spec.matchRules[0].config.provider.type: ";
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    // Its requests are refused, not sent without the plugin.
    let route = &snapshot.hosts.any.as_ref().unwrap().routes[0];
    assert!(route.links[0].candidates[0].plugin.is_some());
}
