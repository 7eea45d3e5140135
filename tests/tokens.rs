//! `jwt-auth` and `simple-jwt-auth` through the binary: whose token gets in, who gets to see it, and keys that change
//! while requests run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_mock_llm::{Handle, Options};
use tollgate_testkit::client::{Answer, get, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::service::Service;
use crate::support::{
    CHAT, CHAT_PATH, PATIENCE, Sight, ai_proxy, bridge, documents, gateway, higress_config, ingress, mock,
    wasm_plugin,
};

/// A minute after which no test runs any more.
const FAR: u64 = 4_102_444_800;

/// A secret of 64 bytes.
fn secret(number: u8) -> [u8; 64] {
    [number; 64]
}

fn jwks(numbers: &[u8]) -> String {
    let keys: Vec<_> = numbers
        .iter()
        .map(|number| json!({"kty": "oct", "kid": number.to_string(), "k": URL_SAFE_NO_PAD.encode(secret(*number))}))
        .collect();
    json!({"keys": keys}).to_string()
}

fn token(number: u8, claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": number.to_string()});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret(number));
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn claims() -> Value {
    json!({"iss": "issuer", "sub": "ann", "exp": FAR})
}

/// `jwt-auth` with two consumers, of which the route `chat` lets in the first; all others need any.
fn jwt_auth(first: &str, second: &str) -> String {
    let spec = format!(
        "  defaultConfig:\n    global_auth: true\n    consumers:\n    - name: consumer1\n      issuer: issuer\n      jwks: '{first}'\n      \
         claims_to_headers: [{{ claim: sub, header: x-user }}]\n    - name: consumer2\n      issuer: issuer\n      jwks: '{second}'\n      \
         keep_token: false\n  matchRules:\n  - ingress: [chat]\n    config: {{ allow: [consumer1] }}\n  - ingress: [free]\n    config: \
         {{ _disable_: true }}\n"
    );
    authn("jwt-auth", &spec, 340)
}

fn authn(name: &str, spec: &str, priority: u32) -> String {
    wasm_plugin(name, spec)
        .replace("UNSPECIFIED_PHASE", "AUTHN")
        .replace("priority: 100", &format!("priority: {priority}"))
}

/// Three routes, one of which `ai-proxy` serves, and a log line that shows what could leak.
fn world(mock: &Handle, plugin: &str) -> String {
    let log = higress_config("").replace(
        r#""flags""#,
        r#""consumer":"%REQ(X-MSE-CONSUMER)%","token":"%REQ(AUTHORIZATION)%","flags""#,
    );
    documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("chat", "/v1", "mock.static", &[]),
        ingress("plain", "/echo", "mock.static", &[]),
        ingress("free", "/status", "mock.static", &[]),
        ai_proxy("chat", "{ type: openai, apiTokens: [sk-gateway] }"),
        log,
        plugin.to_owned(),
    ])
}

fn start(mock: &Handle, plugin: &str) -> Gateway {
    let start = gateway().file("scene.yaml", &world(mock, plugin)).unwrap();
    start.go().unwrap()
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Answer {
    let mut request = match path.starts_with(CHAT_PATH) {
        true => post_json(path, CHAT),
        false => get(path),
    };
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_str(value).unwrap());
    }
    send(gateway.http, request).await.unwrap()
}

/// The status of a request with this token.
async fn status(gateway: &Gateway, path: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    ask(gateway, path, &[("authorization", &bearer)])
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn each_route_lets_in_its_consumers_and_nobody_sees_a_token() {
    let mock = mock(Options::default());
    let gateway = start(&mock, &jwt_auth(&jwks(&[1]), &jwks(&[2])));
    let (first, second) = (token(1, &claims()), token(2, &claims()));
    for (path, statuses) in [
        (CHAT_PATH, [401, 200, 403]),
        ("/echo", [401, 200, 200]),
        ("/status/204", [204; 3]),
    ] {
        for (token, expected) in ["a.b.c", &first, &second].into_iter().zip(statuses) {
            assert_eq!(status(&gateway, path, token).await, expected, "{path} {token}");
        }
    }
    let missing = ask(&gateway, "/echo?a=b", &[]).await;
    assert_eq!(
        (missing.status.as_u16(), missing.text()),
        (401, "Jwt is missing".to_owned())
    );
    let realm = format!("Bearer realm=\"http://{}/echo\"", gateway.http);
    assert_eq!(missing.header("www-authenticate"), realm);

    // A service behind is told who it is, by the gateway alone.
    let bearer = format!("Bearer {first}");
    let forged = [
        ("authorization", bearer.as_str()),
        ("x-user", "root"),
        ("x-mse-consumer", "consumer2"),
    ];
    let seen = ask(&gateway, "/echo", &forged).await.json();
    let headers = &seen["headers"];
    assert_eq!(
        (&headers["x-user"], &headers["x-mse-consumer"]),
        (&json!(["ann"]), &json!(["consumer1"]))
    );
    assert_eq!(headers["authorization"], json!([bearer]));
    let path = format!("/echo?access_token={second}&a=1");
    let seen = ask(&gateway, &path, &[]).await.json().to_string();
    assert!(seen.contains("consumer2") && !seen.contains(&second), "{seen}");

    let path = format!("{CHAT_PATH}?access_token={first}&a=1");
    assert_eq!(
        ask(&gateway, &path, &[("x-request-id", "in-query")]).await.status,
        200
    );
    let told = format!("{:?}", mock.requests().pop().unwrap());
    assert!(!told.contains(&first) && told.contains("a=1"), "{told}");
    let wrong = format!("{CHAT_PATH}?access_token={first}x");
    for (id, path, expected, consumer) in [("in-query", &path, 200, "consumer1"), ("wrong", &wrong, 401, "-")]
    {
        assert_eq!(
            ask(&gateway, path, &[("x-request-id", id)]).await.status.as_u16(),
            expected
        );
        let line = gateway.line_of(id);
        assert_eq!(line["consumer"], consumer, "{line}");
        assert!(!line.to_string().contains(&first), "{line}");
    }
    ask(
        &gateway,
        CHAT_PATH,
        &[("x-request-id", "expired"), ("authorization", "Bearer x.y.z")],
    )
    .await;
    let line = gateway.line_of("expired");
    assert_eq!(line["token"], "***", "{line}");
    assert_eq!(
        line["details"],
        "jwt_authn_access_denied{Jwt_header_is_an_invalid_Base64url_encoded}"
    );
}

#[tokio::test]
async fn keys_change_under_way_and_a_mistake_keeps_the_last_good_ones() {
    let mock = mock(Options::default());
    let gateway = start(&mock, &jwt_auth(&jwks(&[1]), &jwks(&[9])));
    let change = |keys: &str| {
        let text = world(&mock, &jwt_auth(keys, &jwks(&[9])));
        gateway.write("scene.yaml", &text).unwrap();
    };
    let (old, new) = (token(1, &claims()), token(2, &claims()));
    let both = async || {
        (
            status(&gateway, CHAT_PATH, &old).await,
            status(&gateway, CHAT_PATH, &new).await,
        )
    };
    assert_eq!(both().await, (200, 401));
    change(&jwks(&[1, 2]));
    assert_eq!(
        both().await,
        (200, 200),
        "the new key is there before the old one goes"
    );
    change(&jwks(&[2]));
    assert_eq!(both().await, (401, 200));
    change("hunter2");
    let line = gateway
        .errors
        .wait_for(|line| line.contains("is no JSON"))
        .unwrap();
    assert!(
        line.contains("consumers[0].jwks") && !line.contains("hunter2"),
        "{line}"
    );
    assert_eq!(both().await, (401, 200));
}

/// Keys of a real server: fetched once for all, again when a token names one that is new, kept while the server is gone.
#[tokio::test]
async fn published_keys_are_fetched_and_change() {
    let published = Arc::new(Mutex::new(jwks(&[1])));
    let set = published.clone();
    let server = Service::start("127.0.0.1:0", move |_| {
        Some(Response::new(Full::from(set.lock().unwrap().clone())))
    })
    .await;
    let mock = mock(Options::default());
    let spec = "  defaultConfig:\n    consumers:\n    - name: everybody\n      issuer: issuer\n      claims_to_headers: [{ claim: sub, header: x-user \
        }]\n      remote_jwks: { service_name: idp.static, service_host: idp.example, path: /certs, timeout: 500 }\n";
    let world = world(&mock, &authn("jwt-auth", spec, 340));
    let with_idp = world.replace(
        "  registries:\n",
        &format!(
            "  registries:\n  - {{ name: idp, type: static, domain: \"{}\", port: 80 }}\n",
            server.address
        ),
    );
    let gateway = gateway().file("scene.yaml", &with_idp).unwrap().go().unwrap();
    let (old, new) = (token(1, &claims()), token(2, &claims()));
    let first = (0..50).map(|_| status(&gateway, "/echo", &old));
    assert_eq!(futures_util::future::join_all(first).await, [200; 50]);
    let (asked, _) = server.last();
    assert!(asked.uri == "/certs" && asked.headers["host"] == "idp.example");
    assert!(
        server.asked.lock().unwrap().is_empty(),
        "one fetch is enough for all"
    );

    *published.lock().unwrap() = jwks(&[2]);
    let rotated = async { while status(&gateway, "/echo", &new).await != 200 {} };
    tokio::time::timeout(Duration::from_secs(3), rotated)
        .await
        .unwrap();
    assert_eq!(status(&gateway, "/echo", &old).await, 401);
    assert_eq!(status(&gateway, "/echo", "").await, 401);
    // Tokens that name whatever keys make nobody fetch at each request.
    server.asked.lock().unwrap().clear();
    let begun = clock::now();
    for number in 3..200 {
        assert_eq!(status(&gateway, "/echo", &token(number, &claims())).await, 401);
    }
    let most = begun.elapsed().as_secs() as usize + 2;
    assert!(server.asked.lock().unwrap().len() <= most);

    server.stop();
    assert_eq!(status(&gateway, "/echo", &new).await, 200);
    let told = async {
        while !said(&gateway, "fails") {
            status(&gateway, "/echo", &old).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(
        status(&gateway, "/echo", &new).await,
        200,
        "the last good keys stay in force"
    );
}

fn said(gateway: &Gateway, what: &str) -> bool {
    let lines = gateway.errors.all();
    lines
        .iter()
        .any(|line| line.contains("the service that publishes keys") && line.contains(what))
}

#[tokio::test]
async fn one_shared_secret_is_enough_for_the_simple_one() {
    let mock = mock(Options::default());
    let key = String::from_utf8(secret(b'k').to_vec()).unwrap();
    let spec = format!(
        "  matchRules:\n  - ingress: [plain]\n    config: {{ token_secret_key: {key}, token_headers: Token }}\n"
    );
    let gateway = start(&mock, &authn("simple-jwt-auth", &spec, 200));
    let good = token(b'k', &claims());
    let answer = ask(&gateway, "/echo", &[("token", &good)]).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["headers"]["token"]),
        (200, &json!([good]))
    );
    for headers in [&[][..], &[("token", "x")], &[("token", &token(1, &claims()))]] {
        let refused = ask(&gateway, "/echo", headers).await;
        assert_eq!(
            (refused.status.as_u16(), refused.text()),
            (401, r#"{"code":401,"msg":"认证失败"}"#.to_owned())
        );
    }
    assert_eq!(ask(&gateway, "/status/204", &[]).await.status, 204);
}
