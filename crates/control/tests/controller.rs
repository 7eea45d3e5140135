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
