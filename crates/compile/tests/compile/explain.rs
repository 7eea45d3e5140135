//! The text and the JSON of `explain`, on the scenarios' documents.

use std::path::Path;

use crate::support::{Scenario, with_head};

fn explained(name: &str, request: &str) -> tollgate_compile::Explanation {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let scenario = Scenario::load(&directory, name);
    with_head(request, |head| {
        tollgate_compile::explain(scenario.snapshot(), head)
    })
}

#[test]
fn the_first_document() {
    let explanation = explained(
        "first_document.yaml",
        "POST http://127.0.0.1:10000/v1/chat/completions",
    );
    insta::assert_snapshot!(explanation);
}

#[test]
fn routes_that_lost_say_why() {
    insta::assert_snapshot!(explained(
        "precedence.yaml",
        "PATCH http://foo.com/x?q=a | x-a: 2"
    ));
}

#[test]
fn hosts_are_tried_from_exact_to_any() {
    insta::assert_snapshot!(explained("hosts.yaml", "GET http://www.foo.com/any"));
    insta::assert_snapshot!(explained("plugins.yaml", "GET http://x.one.com/nowhere"));
}

#[test]
fn canaries_fallbacks_and_redirects() {
    insta::assert_snapshot!(explained("canary.yaml", "GET http://weight.com/"));
    insta::assert_snapshot!(explained("policies.yaml", "GET http://tls.com/x"));
    insta::assert_snapshot!(explained("policies.yaml", "GET http://rewrite.com/svc/x"));
}

#[test]
fn the_json_form_has_what_the_text_has() {
    let explanation = explained("registries.yaml", "GET http://split.com/");
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["route"]["name"], "split");
    assert_eq!(
        json["route"]["destinations"][2]["upstream"],
        serde_json::Value::Null
    );
    assert_eq!(json["hosts"][0]["routes"][0]["lost"], serde_json::Value::Null);
}
