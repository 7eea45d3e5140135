//! The third document's scenario: `chatgpt-proxy`, `key-auth`, `request-block` and `key-rate-limit` on one route, against
//! a TLS vendor of the real name, and the usage of each consumer from the ledger.

use std::path::Path;
use std::process::Command;

use http::HeaderValue;
use serde_json::Value;
use tollgate_mock_llm::{Handle, Options, Tls};
use tollgate_testkit::client::{Answer, get, send};
use tollgate_testkit::process::Gateway;

use crate::support::{BINARY, gateway, mock};

const DOCUMENTS: &str = include_str!("../examples/chatgpt-proxy/002-who-may-ask.yaml");
const VENDOR: &str = "api.openai.com";
const FILE: &str = "002.yaml";

fn scene(data: &Path) -> (Handle, Gateway) {
    let vendor = mock(Options {
        tls: Some(Tls::new(&[VENDOR]).unwrap()),
        ..Options::default()
    });
    let start = gateway().file(FILE, DOCUMENTS).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, vendor.authority_pem().unwrap()).unwrap();
    let gateway = start
        .flag("--envsubst")
        .option("--resolve", format!("{VENDOR}:443:{}", vendor.addr()))
        .option("--data", data.display())
        .variable("SSL_CERT_FILE", roots.display())
        .variable("API_KEY", "sk-of-the-gateway")
        .go()
        .unwrap();
    (vendor, gateway)
}

async fn ask(gateway: &Gateway, uri: &str, key: &str) -> Answer {
    let mut request = get(uri);
    if !key.is_empty() {
        let value = HeaderValue::from_str(key).unwrap();
        request.headers_mut().insert("apikey", value);
    }
    send(gateway.http, request).await.unwrap()
}

#[tokio::test]
async fn the_documents_requests_and_what_they_cost() {
    let data = tempfile::tempdir().unwrap();
    let (vendor, gateway) = scene(data.path());
    let hello = "/?text=Say,hello";

    // As printed there.
    for (key, status) in [("", 401), ("zzzzzz", 401), ("yyyyyy", 403)] {
        assert_eq!(ask(&gateway, hello, key).await.status.as_u16(), status, "{key}");
    }
    assert!(vendor.requests().is_empty());
    let answer = ask(&gateway, hello, "xxxxxx").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(answer.json()["object"], "text_completion", "{answer:?}");
    for uri in [
        "/?text=Mypassword=xxxxxx",
        "/?text=pw=xxxxxx",
        "/?text=My%50assword",
    ] {
        let refused = ask(&gateway, uri, "xxxxxx").await;
        assert_eq!(
            (refused.status.as_u16(), refused.text()),
            (404, String::new()),
            "{uri}"
        );
    }

    let [seen] = vendor.requests().try_into().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.uri.path()),
        ("POST", "/v1/completions")
    );
    assert_eq!(seen.headers["authorization"], "Bearer sk-of-the-gateway");
    let told = format!("{seen:?}");
    assert!(!told.contains("xxxxxx") && !told.contains("consumer1"), "{told}");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        (&body["model"], &body["prompt"]),
        (&"curie".into(), &"Say,hello".into())
    );

    // The limit of consumer1 is three; then consumer2 is let in too, once.
    for status in [200, 200, 429] {
        assert_eq!(ask(&gateway, hello, "xxxxxx").await.status.as_u16(), status);
    }
    let both = DOCUMENTS.replace("allow: [consumer1]", "allow: [consumer1, consumer2]");
    gateway.write(FILE, &both).unwrap();
    for status in [200, 429] {
        assert_eq!(ask(&gateway, hello, "yyyyyy").await.status.as_u16(), status);
    }

    gateway.signal("TERM").unwrap();
    assert!(gateway.wait().unwrap().success());
    let output = Command::new(BINARY)
        .args(["usage", "--by", "consumer", "--json", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    let used: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |consumer: &str| {
        let row = used.iter().find(|row| row["consumer"] == *consumer);
        let row = row.unwrap_or_else(|| panic!("{used:#?}"));
        (row["input"].as_u64().unwrap(), row["output"].as_u64().unwrap())
    };
    let (first, second) = (of("consumer1"), of("consumer2"));
    assert!(second.0 > 0 && second.1 > 0, "{used:#?}");
    assert_eq!(
        first,
        (second.0 * 3, second.1 * 3),
        "three answers against one: {used:#?}"
    );
}
