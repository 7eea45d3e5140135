//! `key-auth` through the binary: the four scopes of a rule, what the vendor and the log get to see of a key, and what
//! a mistake in the consumers does.

use http::{HeaderValue, Request};
use serde_json::Value;
use tollgate_mock_llm::{Handle, Options};
use tollgate_testkit::client::{Answer, get, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{
    CHAT, CHAT_PATH, Sight, ai_proxy, bridge, documents, gateway, higress_config, ingress, ingress_for, mock,
    wasm_plugin,
};

const CONSUMERS: &str = "    consumers:\n    - { name: consumer1, credential: xxxxxx }\n    - { name: consumer2, credential: yyyyyy }\n    keys: [apikey]\n";

/// Four routes, one of which `ai-proxy` serves, and a log line that shows what could leak.
fn world(mock: &Handle) -> Vec<String> {
    let log = higress_config("").replace(
        r#""flags""#,
        r#""consumer":"%REQ(X-MSE-CONSUMER)%","key":"%REQ(APIKEY)%","flags""#,
    );
    vec![
        bridge(&[("mock", mock.addr()), ("other", mock.addr())]),
        ingress("chat", "/v1", "mock.static", &[]),
        ingress("plain", "/plain", "mock.static", &[]),
        ingress_for("keys.example", "host", "/", "mock.static", &[]),
        ingress("service", "/service", "other.static", &[]),
        ai_proxy("chat", "{ type: openai, apiTokens: [sk-gateway] }"),
        log,
    ]
}

fn key_auth(global: &str, rules: &str) -> String {
    let spec = format!("  defaultConfig:\n{global}  matchRules:\n{rules}");
    wasm_plugin("key-auth", &spec)
        .replace("UNSPECIFIED_PHASE", "AUTHN")
        .replace("priority: 100", "priority: 310")
}

fn start(mock: &Handle, plugin: &str) -> Gateway {
    let mut parts = world(mock);
    parts.push(plugin.to_owned());
    gateway()
        .file("scene.yaml", &documents(&parts))
        .unwrap()
        .go()
        .unwrap()
}

async fn ask(gateway: &Gateway, host: &str, path: &str, key: &str) -> Answer {
    let mut request = match path == CHAT_PATH {
        true => post_json(path, CHAT),
        false => get(path),
    };
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_str(host).unwrap());
    if !key.is_empty() {
        headers.insert("apikey", HeaderValue::from_str(key).unwrap());
    }
    send(gateway.http, request).await.unwrap()
}

#[tokio::test]
async fn every_scope_has_consumers_of_its_own_choice() {
    let mock = mock(Options::default());
    let rules = "  - ingress: [chat]\n    config: { allow: [consumer1] }\n\
                 \x20 - domain: [\"*.example\"]\n    config: { allow: [consumer2] }\n\
                 \x20 - service: [other.static]\n    config: { allow: [consumer1, consumer2] }\n";
    let gateway = start(
        &mock,
        &key_auth(&format!("{CONSUMERS}    global_auth: true\n"), rules),
    );
    let expected = [
        ("any", CHAT_PATH, [401, 401, 403, 200]),
        ("keys.example", "/", [401, 401, 200, 403]),
        ("any", "/service", [401, 401, 200, 200]),
        // No rule: global_auth asks for a key, any consumer's.
        ("any", "/plain", [401, 401, 200, 200]),
    ];
    for (host, path, statuses) in expected {
        for (key, status) in ["", "zzzzzz", "yyyyyy", "xxxxxx"].into_iter().zip(statuses) {
            let answer = ask(&gateway, host, path, key).await;
            // The mock answers 404 where it knows no path: the request came through.
            let came_through = answer.status.as_u16() == 404 && status == 200;
            assert!(
                answer.status.as_u16() == status || came_through,
                "{host}{path} {key}: {answer:?}"
            );
        }
    }
    let refused = ask(&gateway, "any", CHAT_PATH, "yyyyyy").await;
    assert_eq!(
        (refused.text(), refused.header("www-authenticate")),
        (String::new(), "Basic realm=MSE Gateway")
    );
}

#[tokio::test]
async fn a_key_is_shown_to_nobody_and_a_consumer_is_not_believed() {
    let mock = mock(Options::default());
    let gateway = start(
        &mock,
        &key_auth(
            CONSUMERS,
            "  - ingress: [chat]\n    config: { allow: [consumer1] }\n",
        ),
    );
    let with = |path: &str, id: &str, headers: &[(&str, &str)]| {
        let mut request: Request<bytes::Bytes> = post_json(path, CHAT);
        for (name, value) in [("x-request-id", id), ("x-mse-consumer", "forged")]
            .iter()
            .chain(headers)
        {
            let name = http::HeaderName::try_from(*name).unwrap();
            request
                .headers_mut()
                .insert(name, HeaderValue::from_str(value).unwrap());
        }
        request
    };
    let line = async |request: Request<bytes::Bytes>, id: &str, status: u16| -> Value {
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        gateway.line_of(id)
    };

    let path = format!("{CHAT_PATH}?apikey=xxxxxx&a=1");
    let logged = line(with(&path, "in-query", &[]), "in-query", 200).await;
    assert_eq!(
        logged["path"],
        format!("{CHAT_PATH}?a=1"),
        "as it went to the vendor"
    );
    assert_eq!(logged["consumer"], "consumer1");
    let logged = line(
        with(CHAT_PATH, "in-header", &[("apikey", "xxxxxx")]),
        "in-header",
        200,
    )
    .await;
    assert_eq!(
        (&logged["key"], &logged["consumer"]),
        (&"-".into(), &"consumer1".into())
    );
    for seen in mock.requests() {
        let seen = format!("{seen:?}");
        assert!(
            !seen.contains("xxxxxx") && !seen.contains("mse-consumer"),
            "{seen}"
        );
    }

    let logged = line(
        with(CHAT_PATH, "mistyped", &[("apikey", "xxxxxxx")]),
        "mistyped",
        401,
    )
    .await;
    assert_eq!(
        (&logged["key"], &logged["consumer"]),
        (&"***".into(), &"-".into())
    );
    assert_eq!(
        logged["details"],
        "Request_denied_by_Key_Auth_check._Invalid_API_key"
    );
    let path = format!("{CHAT_PATH}?apikey=xxxxxxx");
    let logged = line(with(&path, "mistyped-query", &[]), "mistyped-query", 401).await;
    assert_eq!(logged["path"], format!("{CHAT_PATH}?apikey=***"));
    let logged = line(with(CHAT_PATH, "other", &[("apikey", "yyyyyy")]), "other", 403).await;
    assert_eq!(logged["consumer"], "consumer2");
    assert_eq!(
        logged["details"],
        "Request_denied_by_Key_Auth_check._Unauthorized_consumer"
    );
    // Without a rule nobody is asked, and nobody is believed.
    line(with("/plain", "nobody", &[]), "nobody", 404).await;
    let last = mock.requests().pop().unwrap();
    assert!(!format!("{last:?}").contains("forged"), "{last:?}");
    let page = gateway.admin("/config_dump").await.text();
    assert!(!page.contains("xxxxxx") && !page.contains("yyyyyy"), "{page}");
}

#[tokio::test]
async fn a_mistake_in_the_consumers_lets_nobody_in() {
    let mock = mock(Options::default());
    let twice = CONSUMERS.replace("yyyyyy", "xxxxxx");
    let rules = "  - ingress: [chat]\n    config: { allow: [consumer1] }\n";
    let gateway = start(&mock, &key_auth(&twice, rules));
    let said = gateway
        .errors
        .wait_for(|line| line.contains("the same credential stands here twice"))
        .unwrap();
    assert!(
        said.contains("consumers[1].credential") && !said.contains("xxxxxx"),
        "{said}"
    );
    for path in [CHAT_PATH, "/plain"] {
        assert_eq!(
            ask(&gateway, "any", path, "xxxxxx").await.status.as_u16(),
            500,
            "{path}"
        );
    }
    // Mended, then broken again: the good version stays.
    let mut parts = world(&mock);
    parts.push(key_auth(CONSUMERS, rules));
    gateway.write("scene.yaml", &documents(&parts)).unwrap();
    assert_eq!(
        ask(&gateway, "any", CHAT_PATH, "xxxxxx").await.status.as_u16(),
        200
    );
    parts.pop();
    parts.push(key_auth(&twice, rules));
    gateway.write("scene.yaml", &documents(&parts)).unwrap();
    assert_eq!(
        ask(&gateway, "any", CHAT_PATH, "yyyyyy").await.status.as_u16(),
        403
    );
    assert_eq!(
        ask(&gateway, "any", CHAT_PATH, "xxxxxx").await.status.as_u16(),
        200
    );
}
