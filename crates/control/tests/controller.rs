//! What is in force after each change of a directory: a fault costs only what it names.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use tollgate_control::{Controller, Directory, Options, Status, config_dump};
use tollgate_snapshot::{Live, Snapshot};

const BRIDGE: &str = "
apiVersion: networking.higress.io/v1
kind: McpBridge
metadata: {name: default, namespace: higress-system}
spec:
  registries: [{name: a, type: static, domain: '127.0.0.1:80', port: 80}]
";

fn ingress(name: &str, path: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: higress-system
  annotations: {{higress.io/destination: a.static}}
spec:
  rules:
  - http:
      paths:
      - path: {path}
        pathType: Prefix
        backend: {{resource: {{apiGroup: networking.higress.io, kind: McpBridge, name: default}}}}
"
    )
}

/// An Ingress whose kind and name can be read, and nothing else.
fn misshapen(name: &str) -> String {
    format!(
        "\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: higress-system}}\nspec: {{rules: 5}}\n"
    )
}

struct Gateway {
    root: tempfile::TempDir,
    controller: Controller,
    live: Live,
    status: tokio::sync::watch::Receiver<Status>,
}

impl Gateway {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("bridge.yaml"), BRIDGE).unwrap();
        let live = Live::new(Snapshot::default());
        let options = Options {
            directory: Directory::new(vec![root.path().to_owned()]),
            namespace: "higress-system".to_owned(),
            substitute: None,
            compile: tollgate_compile::Options::default(),
        };
        let (controller, status) = Controller::new(options, live.clone());
        Self {
            root,
            controller,
            live,
            status,
        }
    }

    fn write(&self, file: &str, documents: &[String]) -> &Self {
        fs::write(self.root.path().join(file), documents.concat()).unwrap();
        self
    }

    /// The routes in force, and what was refused.
    fn reload(&mut self) -> (Vec<String>, Vec<String>) {
        let status = self.controller.reload().unwrap();
        (self.routes(), errors(&status, self.root.path()))
    }

    fn routes(&self) -> Vec<String> {
        let hosts = &self.live.load().hosts;
        let routes = hosts.any.iter().flat_map(|host| &host.routes);
        let mut lines: Vec<String> = routes
            .map(|route| format!("{} {:?}", route.name, route.matcher.path))
            .map(|line| line.replace("Prefix(\"", "").replace("\")", ""))
            .collect();
        lines.sort();
        lines
    }
}

fn errors(status: &Status, root: &Path) -> Vec<String> {
    let errors = status.diagnostics.iter().filter(|found| found.is_error());
    errors
        .map(|error| error.to_string().replace(&format!("{}/", root.display()), ""))
        .collect()
}

#[test]
fn a_file_that_does_not_parse_keeps_its_objects_and_the_others_go_on() {
    let mut gateway = Gateway::new();
    gateway.write("a.yaml", &[ingress("one", "/one")]);
    gateway.write("b.yaml", &[ingress("two", "/two")]);
    assert_eq!(gateway.reload().0, ["one /one", "two /two"]);
    gateway.write("a.yaml", &["{ no yaml".to_owned()]);
    gateway.write("b.yaml", &[ingress("two", "/new")]);
    let (routes, errors) = gateway.reload();
    assert_eq!(routes, ["one /one", "two /new"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("a.yaml:1: error"), "{errors:?}");
    fs::remove_file(gateway.root.path().join("a.yaml")).unwrap();
    assert_eq!(gateway.reload().0, ["two /new"]);
}

#[test]
fn an_object_that_has_moved_is_the_new_one_even_if_its_old_file_is_broken() {
    let mut gateway = Gateway::new();
    gateway.write("a.yaml", &[ingress("one", "/one"), ingress("stays", "/stays")]);
    gateway.reload();
    gateway.write("a.yaml", &["{ no yaml".to_owned()]);
    gateway.write("b.yaml", &[ingress("one", "/moved")]);
    let (routes, errors) = gateway.reload();
    assert_eq!(routes, ["one /moved", "stays /stays"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn an_error_that_names_its_object_brings_back_that_one_only() {
    let mut gateway = Gateway::new();
    gateway.write("a.yaml", &[ingress("one", "/one"), ingress("two", "/two")]);
    gateway.reload();
    gateway.write("a.yaml", &[misshapen("one")]);
    let (routes, errors) = gateway.reload();
    assert_eq!(routes, ["one /one"], "{errors:?}");
    assert!(errors[0].contains("Ingress higress-system/one"), "{errors:?}");
}

#[test]
fn one_bad_version_after_the_other_leaves_the_last_good_one() {
    let mut gateway = Gateway::new();
    let annotated = |value: &str| {
        ingress("one", "/(").replace(
            "annotations: {",
            &format!("annotations: {{higress.io/use-regex: \"true\", x: {value}, "),
        )
    };
    gateway.write("a.yaml", &[ingress("one", "/one")]);
    gateway.reload();
    for version in ["first", "second"] {
        gateway.write("a.yaml", &[annotated(version)]);
        let (routes, errors) = gateway.reload();
        assert_eq!(routes, ["one /one"], "{version}");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
    gateway.write("a.yaml", &[ingress("one", "/better")]);
    assert_eq!(gateway.reload(), (vec!["one /better".to_owned()], vec![]));
}

/// The plugin `ai-proxy` with a rule for each route: its name and the vendor.
fn plugin(rules: &[(&str, &str)]) -> String {
    let rule = |(route, vendor): &(&str, &str)| {
        format!("  - ingress: [{route}]\n    config: {{provider: {{type: {vendor}, apiTokens: [k]}}}}\n")
    };
    let rules: String = rules.iter().map(rule).collect();
    format!(
        "
---
apiVersion: extensions.higress.io/v1alpha1
kind: WasmPlugin
metadata: {{name: ai-proxy, namespace: higress-system}}
spec:
  url: oci://x/plugins/ai-proxy:1.0.0
  matchRules:
{rules}"
    )
}

/// Names of the routes that have a plugin.
fn with_plugin(gateway: &Gateway) -> Vec<String> {
    let hosts = &gateway.live.load().hosts;
    let routes = hosts.any.iter().flat_map(|host| &host.routes);
    let mut names: Vec<String> = routes
        .filter(|route| {
            let candidates = route.links.iter().flat_map(|link| &link.candidates);
            candidates.into_iter().any(|candidate| candidate.plugin.is_some())
        })
        .map(|route| route.name.to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn one_bad_rule_keeps_its_last_good_version_and_the_others_are_updated() {
    let mut gateway = Gateway::new();
    let names = ["one", "two", "three"];
    let routes: Vec<String> = names.map(|name| ingress(name, &format!("/{name}"))).into();
    gateway.write("a.yaml", &routes);
    gateway.write("b.yaml", &[plugin(&[("one", "openai"), ("three", "openai")])]);
    assert_eq!(gateway.reload().1, [""; 0]);
    assert_eq!(with_plugin(&gateway), ["one", "three"]);
    // The first is spoilt, the second is new, the third is gone.
    gateway.write("b.yaml", &[plugin(&[("one", "nobody"), ("two", "openai")])]);
    for _ in 0..2 {
        let (_, errors) = gateway.reload();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("spec.matchRules[0]"), "{errors:?}");
        assert_eq!(with_plugin(&gateway), ["one", "two"]);
    }
    // A rule that was never good has nothing to fall back to.
    gateway.write("b.yaml", &[plugin(&[("one", "openai"), ("three", "nobody")])]);
    assert_eq!(gateway.reload().1.len(), 1);
    assert_eq!(with_plugin(&gateway), ["one"]);
}

const SECRET: &str = "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: higress-system}\nstringData: {a: k}\n";

/// Both in a rule and in the config of the whole plugin: neither is better off with its earlier version.
#[test]
fn a_fault_that_lies_elsewhere_does_not_hold_an_object_back() {
    let global = "spec:\n  defaultConfig: {provider: {type: openai, apiTokens: [k]}}";
    for spec in ["spec:", global] {
        let mut gateway = Gateway::new();
        let version = |rules: &[(&str, &str)]| {
            plugin(rules)
                .replace("spec:", spec)
                .replacen("[k]", "['${secret.keys.a}']", 1)
        };
        gateway.write("a.yaml", &[ingress("one", "/one"), ingress("two", "/two")]);
        gateway.write("b.yaml", &[version(&[("one", "openai")])]);
        gateway.write("c.yaml", &[SECRET.to_owned()]);
        assert_eq!(gateway.reload().1, [""; 0]);
        let origins = |gateway: &Gateway| {
            let dump = config_dump(&gateway.live.load(), &gateway.status.borrow());
            let routes = dump["hosts"][0]["routes"].as_array().unwrap().clone();
            let two = routes
                .iter()
                .find(|route| route["name"] == "two")
                .unwrap()
                .clone();
            two["plugins"][0]["configs"][0].to_string()
        };
        let before = origins(&gateway);
        gateway.write("c.yaml", &[]);
        gateway.write("b.yaml", &[version(&[("one", "openai"), ("two", "openai")])]);
        let (_, errors) = gateway.reload();
        assert!(
            errors.iter().all(|error| error.contains("secret.keys.a")),
            "{errors:?}"
        );
        assert_ne!(origins(&gateway), before, "{spec}: {errors:?}");
    }
}

#[test]
fn a_directory_that_is_gone_changes_nothing_but_the_status() {
    let mut gateway = Gateway::new();
    gateway.write("a.yaml", &[ingress("one", "/one")]);
    gateway.reload();
    let away = gateway.root.path().with_extension("away");
    fs::rename(gateway.root.path(), &away).unwrap();
    for _ in 0..2 {
        assert!(gateway.controller.reload().is_err());
    }
    fs::rename(&away, gateway.root.path()).unwrap();
    let status = gateway.status.borrow().clone();
    assert_eq!((status.generation, status.rejected.get("unknown")), (1, Some(&1)));
    assert!(status.diagnostics[0].to_string().starts_with("--config: error: "));
    assert_eq!(gateway.routes(), ["one /one"]);
    assert_eq!(gateway.reload(), (vec!["one /one".to_owned()], vec![]));
}

#[test]
fn the_first_of_two_definitions_counts_and_the_second_is_told_once() {
    let mut gateway = Gateway::new();
    gateway.write("a.yaml", &[ingress("one", "/one")]);
    gateway.write("b.yaml", &[ingress("one", "/other")]);
    for _ in 0..2 {
        let (routes, errors) = gateway.reload();
        assert_eq!(routes, ["one /one"]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("b.yaml"), "{errors:?}");
    }
}

#[test]
fn the_dump_shows_settings_by_name_and_no_inner_form() {
    let mut gateway = Gateway::new();
    let status = gateway.controller.reload().unwrap();
    let dump = config_dump(&gateway.live.load(), &status);
    assert_eq!(dump["settings"]["max_request_head_bytes"], 60 * 1024);
    assert_eq!(dump["clusters"][0]["endpoints"][0], "127.0.0.1:80");
}
