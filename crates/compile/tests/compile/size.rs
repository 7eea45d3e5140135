//! Many objects: the work grows with their number, not with its square. Prints what it took, asserts no time.

use std::fmt::Write;

use tollgate_base::clock;
use tollgate_kinds::{Objects, ReadOptions, read};

use crate::support::fake_options;

const INGRESSES: usize = 1000;

fn documents() -> String {
    let mut text = String::new();
    let mut rules = String::new();
    for index in 0..INGRESSES {
        write!(
            text,
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{index}}}\nspec: {{rules: [{{host: \
             h{index}.com, http: {{paths: [{{path: /a, pathType: Prefix, backend: {{service: {{name: a, port: {{number: \
             80}}}}}}}}, {{path: /b, pathType: Exact, backend: {{service: {{name: a, port: {{number: 80}}}}}}}}]}}}}]}}\n---\n"
        )
        .unwrap();
        writeln!(rules, "    - {{ingress: [i{index}], config: {{x: {index}}}}}").unwrap();
    }
    for name in ["ai-proxy", "key-auth", "ai-statistics"] {
        write!(
            text,
            "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\nspec:\n  url: \
             oci://hub/plugins/{name}:1\n  matchRules:\n{rules}---\n"
        )
        .unwrap();
    }
    text + "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}\n"
}

#[test]
fn a_thousand_ingresses_with_three_plugins_of_a_thousand_rules() {
    let options = fake_options();
    let read_options = ReadOptions {
        default_namespace: &options.system_namespace,
        substitute: None,
    };
    let reading = read(documents().as_bytes(), &"many.yaml".into(), &read_options);
    let mut objects = Objects::new();
    for object in reading.objects {
        objects.insert(object).unwrap();
    }
    let started = clock::now();
    let (snapshot, diagnostics) = tollgate_compile::compile(&objects, &options);
    println!("{INGRESSES} ingresses: {:?}", started.elapsed());
    assert_eq!(diagnostics, []);
    assert_eq!(snapshot.hosts.exact.len(), INGRESSES);
    let links = |name: &str| snapshot.hosts.exact[name].routes[1].links.len();
    assert_eq!((links("h0.com"), links("h999.com")), (3, 3));
}
