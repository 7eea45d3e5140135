//! `ext-auth` through the binary, with a real service that is asked: what it is told, what its answers do, and what
//! happens while it is slow or gone.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body_util::Full;
use tollgate_base::clock;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{Answer, get, send};
use tollgate_testkit::process::Gateway;

use crate::service::Service;
use crate::support::{Sight, bridge, documents, gateway, ingress, mock, verbose_log, wasm_plugin};

/// The service: lets in who says `letmein`, and does what the header `x-order` says.
async fn service(address: &str) -> Service {
    Service::start(address, |asked: &Parts| {
        let said = |name: &str, value: &str| asked.headers.get(name).is_some_and(|found| found == value);
        let (status, text) = match () {
            () if said("x-order", "hang") => return None,
            () if said("x-order", "fail") => (500, "stack trace"),
            () if said("authorization", "letmein") => (200, ""),
            () => (401, "who are you?"),
        };
        let answer = Response::builder()
            .status(status)
            .header("x-user", "ann")
            .header("x-why", "because");
        Some(answer.body(Full::from(text)).unwrap())
    })
    .await
}

/// A route that the service guards, with more of the plugin's config.
fn start(service: &Service, vendor: SocketAddr, config: &str) -> Gateway {
    let spec = format!(
        "  defaultConfig:\n    match_list: [{{ match_rule_path: /status/, match_rule_type: prefix }}]\n    http_service:\n      \
         endpoint: {{ service_name: auth.static, path_prefix: /auth }}\n      timeout: 300\n      authorization_request: {{ \
         allowed_headers: [{{ exact: x-order }}], with_request_body: true, max_request_body_bytes: 10 }}\n      \
         authorization_response: {{ allowed_upstream_headers: [{{ exact: x-user }}] }}\n{config}"
    );
    let text = documents(&[
        bridge(&[("mock", vendor), ("auth", service.address)]),
        ingress("api", "/", "mock.static", &[]),
        wasm_plugin("ext-auth", &spec).replace("UNSPECIFIED_PHASE", "AUTHN"),
        verbose_log(),
    ]);
    gateway().file("scene.yaml", &text).unwrap().go().unwrap()
}

async fn ask(gateway: &Gateway, path: &str, body: &'static str, headers: &[(&'static str, &str)]) -> Answer {
    let mut request = get(path).map(|_| Bytes::from_static(body.as_bytes()));
    if !body.is_empty() {
        *request.method_mut() = http::Method::POST;
    }
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_str(value).unwrap());
    }
    send(gateway.http, request).await.unwrap()
}

const LETMEIN: (&str, &str) = ("authorization", "letmein");

#[tokio::test]
async fn the_service_decides_and_is_told_what_it_needs() {
    let (service, mock) = (service("127.0.0.1:0").await, mock(Options::default()));
    let gateway = start(&service, mock.addr(), "");
    let seen = ask(
        &gateway,
        "/echo/a//b?c=d",
        "ten bytes!",
        &[LETMEIN, ("x-user", "root"), ("x-request-id", "in")],
    )
    .await;
    assert_eq!(seen.status, 200);
    let told = mock.requests().pop().unwrap();
    assert_eq!(
        (&*told.body, told.uri.to_string()),
        (&b"ten bytes!"[..], "/echo/a//b?c=d".to_owned())
    );
    assert!(told.headers["x-user"] == "ann" && told.headers["authorization"] == "letmein");
    let (head, body) = service.last();
    assert_eq!(
        (head.method.as_str(), head.uri.to_string()),
        ("POST", "/auth/echo/a/b?c=d".to_owned())
    );
    assert!(head.headers["host"] == "auth.static" && &*body == b"ten bytes!");

    let refused = ask(&gateway, "/echo", "", &[("x-request-id", "out")]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.text()),
        (401, "who are you?".to_owned())
    );
    assert_eq!(
        (refused.header("x-why"), refused.header("content-type")),
        ("because", "text/plain")
    );
    assert_eq!(gateway.line_of("out")["details"], "ext-auth.unauthorized");
    service.last();

    let long = ask(&gateway, "/echo", "eleven byte", &[LETMEIN]).await;
    assert_eq!(long.status, 413);
    assert_eq!(ask(&gateway, "/status/204", "", &[]).await.status, 204);
    assert!(
        service.asked.lock().unwrap().is_empty(),
        "neither was asked about"
    );
    assert_eq!(ask(&gateway, "/status/../echo", "", &[]).await.status, 401);
}

#[tokio::test]
async fn a_service_that_is_slow_or_gone_opens_no_door_and_is_told_once() {
    let (service, mock) = (service("127.0.0.1:0").await, mock(Options::default()));
    let gateway = start(&service, mock.addr(), "    status_on_error: 503\n");
    assert_eq!(ask(&gateway, "/echo", "", &[LETMEIN]).await.status, 200);
    let begun = clock::now();
    let slow = ask(&gateway, "/echo", "", &[LETMEIN, ("x-order", "hang")]).await;
    assert_eq!((slow.status.as_u16(), slow.text()), (503, String::new()));
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    let failed = ask(&gateway, "/echo", "", &[LETMEIN, ("x-order", "fail")]).await;
    assert_eq!((failed.status.as_u16(), failed.text()), (503, String::new()));
    service.stop();
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/echo", "", &[LETMEIN]).await.status, 503);
    }
    let again = self::service(&service.address.to_string()).await;
    assert_eq!(ask(&gateway, "/echo", "", &[LETMEIN]).await.status, 200);
    assert_eq!(again.asked.lock().unwrap().len(), 1);
    gateway
        .errors
        .wait_for(|line| line.contains("authorization service is back"))
        .unwrap();
    let told = gateway.errors.all();
    let told: Vec<_> = told
        .iter()
        .filter(|line| line.contains("authorization service"))
        .collect();
    assert_eq!(told.len(), 2, "{told:#?}");
}

#[tokio::test]
async fn it_opens_one_where_the_config_says_so() {
    let (service, mock) = (service("127.0.0.1:0").await, mock(Options::default()));
    let open = "    failure_mode_allow: true\n    failure_mode_allow_header_add: true\n";
    let gateway = start(&service, mock.addr(), open);
    let seen = ask(&gateway, "/echo", "", &[("x-order", "fail")]).await;
    assert_eq!(
        seen.json()["headers"]["x-envoy-auth-failure-mode-allowed"],
        serde_json::json!(["true"])
    );
    assert_eq!(ask(&gateway, "/echo", "", &[]).await.status, 401);
    service.stop();
    assert_eq!(ask(&gateway, "/echo", "", &[]).await.status, 200);
}
