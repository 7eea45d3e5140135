//! What a route may be told besides its destination: CORS, redirects, canaries, address lists, plugins that cannot run.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request};
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{Answer, get, send};
use tollgate_testkit::process::Gateway;

use crate::support::{
    Sight, bridge, documents, gateway, higress_config, ingress, ingress_for, mock, raw_server, verbose_log,
    wasm_plugin,
};

async fn with_header(gateway: &Gateway, method: Method, name: &str, value: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri("/echo")
        .header(name, value)
        .body(Bytes::new())
        .unwrap();
    send(gateway.http, request).await.unwrap()
}

#[tokio::test]
async fn cors_preflights_are_answered_here() {
    let mock = mock(Options::default());
    let annotations = [
        ("higress.io/enable-cors", "true"),
        ("higress.io/cors-allow-origin", "https://*.good.example"),
    ];
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &annotations),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let preflight = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri("/echo")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Bytes::new())
            .unwrap()
    };
    let answer = send(gateway.http, preflight("https://a.good.example"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://a.good.example"
    );
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(mock.requests().is_empty(), "the vendor heard of a preflight");
    let answer = with_header(&gateway, Method::GET, "origin", "https://a.good.example").await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://a.good.example"
    );
    let answer = with_header(&gateway, Method::GET, "origin", "https://evil.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn plain_http_is_redirected_where_a_route_says_so() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress_for(
            "shop.example",
            "api",
            "/",
            "mock.static",
            &[("higress.io/ssl-redirect", "true")],
        ),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let answer = send(gateway.http, get("http://shop.example:8080/a?b=c"))
        .await
        .unwrap();
    assert!([301, 308].contains(&answer.status.as_u16()), "{}", answer.status);
    assert_eq!(answer.header("location"), "https://shop.example/a?b=c");
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn a_canary_takes_its_header_and_its_share() {
    let (stable, canary) = (named("stable"), named("canary"));
    let by_header = [
        ("higress.io/canary", "true"),
        ("higress.io/canary-by-header", "x-try"),
        ("higress.io/canary-by-header-value", "yes"),
    ];
    let text = |annotations: &[(&str, &str)]| {
        documents(&[
            bridge(&[("stable", stable.addr()), ("canary", canary.addr())]),
            ingress("api", "/", "stable.static", &[]),
            ingress("api-canary", "/", "canary.static", annotations),
        ])
    };
    let gateway = gateway()
        .file("scene.yaml", &text(&by_header))
        .unwrap()
        .go()
        .unwrap();
    assert_eq!(
        with_header(&gateway, Method::GET, "x-try", "yes").await.json()["server"],
        "canary"
    );
    assert_eq!(
        with_header(&gateway, Method::GET, "x-try", "no").await.json()["server"],
        "stable"
    );
    let weighted = [("higress.io/canary", "true"), ("higress.io/canary-weight", "30")];
    gateway.write("scene.yaml", &text(&weighted)).unwrap();
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let answer = send(gateway.http, get("/echo")).await.unwrap();
        *servers
            .entry(answer.json()["server"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    // Five standard deviations around 90 of 300.
    assert!((50..=130).contains(&servers["canary"]), "{servers:?}");
}

fn named(name: &str) -> tollgate_mock_llm::Handle {
    mock(Options {
        name: name.to_owned(),
        ..Options::default()
    })
}

#[tokio::test]
async fn an_address_list_refuses_with_403() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress(
            "near",
            "/echo/near",
            "mock.static",
            &[("higress.io/whitelist-source-range", "127.0.0.0/8")],
        ),
        ingress(
            "far",
            "/echo/far",
            "mock.static",
            &[("higress.io/whitelist-source-range", "10.0.0.0/8")],
        ),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    assert_eq!(send(gateway.http, get("/echo/near")).await.unwrap().status, 200);
    let answer = send(gateway.http, get("/echo/far")).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (403, "RBAC: access denied")
    );
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test]
async fn a_plugin_that_cannot_run_closes_its_routes_unless_told_otherwise() {
    for (strategy, status) in [
        ("", 500),
        ("  failStrategy: FAIL_CLOSE\n", 500),
        ("  failStrategy: FAIL_OPEN\n", 200),
    ] {
        let mock = mock(Options::default());
        let rule = "  matchRules:\n  - ingress: [guarded]\n    config: { a: 1 }\n";
        let text = documents(&[
            bridge(&[("mock", mock.addr())]),
            ingress("guarded", "/echo/guarded", "mock.static", &[]),
            ingress("other", "/echo/other", "mock.static", &[]),
            // Nobody listens there.
            wasm_plugin("no-such-plugin", &format!("{rule}{strategy}")).replace(
                "oci://higress-registry.cn-hangzhou.cr.aliyuncs.com",
                "oci://127.0.0.1:1",
            ),
        ]);
        let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
        let answer = send(gateway.http, get("/echo/guarded")).await.unwrap();
        assert_eq!(answer.status, status, "{strategy}: {}", answer.text());
        assert_eq!(
            send(gateway.http, get("/echo/other")).await.unwrap().status,
            200,
            "{strategy}"
        );
        let is_diagnostic = |line: &str| line.contains("scene.yaml:") && line.contains("no-such-plugin");
        gateway.errors.wait_for(is_diagnostic).unwrap();
    }
}

#[tokio::test]
async fn envoys_headers_come_when_asked_for() {
    let mock = mock(Options::default());
    let config = higress_config("").replace(
        "disableXEnvoyHeaders: true",
        "disableXEnvoyHeaders: false\n    addXRealIpHeader: true",
    );
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        config,
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let answer = send(gateway.http, get("/echo")).await.unwrap();
    assert!(
        answer
            .header("x-envoy-upstream-service-time")
            .parse::<u64>()
            .is_ok(),
        "{:?}",
        answer.headers
    );
    assert_eq!(
        answer.json()["headers"]["x-real-ip"][0],
        "127.0.0.1",
        "{}",
        answer.text()
    );
    assert_eq!(gateway.admin("/healthz/ready").await.status, 200);
}

/// The Service `pages`, served at this port.
fn pages(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: pages, namespace: higress-system }}\nspec: {{ ports: [{{ name: http, \
         port: 80 }}] }}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: pages-1\n  namespace: \
         higress-system\n  labels: {{ kubernetes.io/service-name: pages }}\naddressType: IPv4\nports: [{{ name: http, port: {port} \
         }}]\nendpoints: [{{ addresses: [127.0.0.1] }}]\n"
    )
}

#[tokio::test]
async fn the_default_backend_answers_in_place_of_an_error() {
    let vendor = raw_server(
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 8\r\nx-from: vendor\r\nconnection: close\r\n\r\nvendor's",
    )
    .await;
    let page_server = mock(Options::default());
    let scene = |errors: &'static str, port: u16| {
        let annotations = [
            ("higress.io/default-backend", "pages"),
            ("higress.io/custom-http-errors", errors),
            ("higress.io/rewrite-path", "/elsewhere"),
            ("higress.io/upstream-vhost", "vendor.example"),
        ];
        let text = documents(&[
            bridge(&[("mock", vendor)]),
            pages(port),
            ingress("api", "/", "mock.static", &annotations),
            verbose_log(),
        ]);
        gateway().file("scene.yaml", &text).unwrap().go().unwrap()
    };
    let ask = async |gateway: &Gateway| {
        let request = Request::post("/v1/chat/completions")
            .header("host", "shop.example")
            .header("authorization", "Bearer secret")
            .header("accept-language", "de")
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        send(gateway.http, request).await.unwrap()
    };
    let with_page = scene("404, 503", page_server.addr().port());
    let answer = ask(&with_page).await;
    let page = send(page_server.addr(), get("/")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (page.status, page.text()));
    assert!(!answer.headers.contains_key("x-from"));
    let asked = page_server.requests().remove(0);
    assert_eq!((asked.method.as_str(), asked.uri.path()), ("GET", "/"));
    assert_eq!(asked.host(), Some("shop.example"));
    assert_eq!(asked.headers["x-envoy-route-name"], "api-fallback");
    assert_eq!(asked.headers["x-envoy-fallback-service"], "higress-system/pages");
    assert_eq!(asked.headers["accept-language"], "de");
    assert!(!asked.headers.contains_key("authorization"));
    assert!(asked.body.is_empty());
    let line = with_page.line_of(answer.header("x-request-id"));
    assert_eq!(
        line["cluster"], "outbound|80||pages.higress-system.svc.cluster.local",
        "{line}"
    );

    // Another status, and a backend that is not there: the vendor's answer stands.
    let closed = tollgate_mock_llm::RefusingPort::new().unwrap();
    for (errors, port) in [("503", page_server.addr().port()), ("404", closed.addr().port())] {
        let gateway = scene(errors, port);
        let answer = ask(&gateway).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (404, "vendor's"),
            "{errors}"
        );
        let line = gateway.line_of(answer.header("x-request-id"));
        assert_eq!(line["cluster"], "outbound|80||mock.static", "{line}");
    }
}

/// The service `mock` at both addresses.
fn both(first: &tollgate_mock_llm::Handle, second: &tollgate_mock_llm::Handle) -> String {
    let one = format!("domain: \"{}\"", first.addr());
    let two = format!("domain: \"{},{}\"", first.addr(), second.addr());
    bridge(&[("mock", first.addr())]).replace(&one, &two)
}

#[tokio::test]
async fn a_client_stays_with_the_endpoint_that_its_cookie_chose() {
    let (first, second) = (named("first"), named("second"));
    let annotations = [
        ("higress.io/affinity", "cookie"),
        ("higress.io/session-cookie-name", "home"),
        ("higress.io/session-cookie-max-age", "60"),
    ];
    let text = documents(&[
        both(&first, &second),
        ingress("api", "/", "mock.static", &annotations),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let mut homes = BTreeMap::new();
    for _ in 0..40 {
        let answer = send(gateway.http, get("/echo")).await.unwrap();
        let cookie = answer.header("set-cookie").to_owned();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=60; Path=/; HttpOnly");
        homes.insert(pair.to_owned(), answer.json()["server"].clone());
    }
    for server in ["first", "second"] {
        assert!(homes.values().any(|home| home == server), "{homes:?}");
    }
    for (pair, home) in &homes {
        let answer = with_header(&gateway, Method::GET, "cookie", &format!("a=b; {pair}")).await;
        assert_eq!(&answer.json()["server"], home, "{pair}");
        assert_eq!(answer.header("set-cookie"), "", "it has one already");
    }
}

#[tokio::test]
async fn requesters_are_told_apart_by_what_a_route_names() {
    let (first, second) = (named("first"), named("second"));
    for (variable, of) in [
        (
            "$http_x-user",
            (|user| ("/echo".to_owned(), user)) as fn(String) -> (String, String),
        ),
        ("$arg_user", |user| (format!("/echo?user={user}"), String::new())),
        ("$request_uri", |user| (format!("/echo/{user}"), String::new())),
    ] {
        let annotations = [("higress.io/upstream-hash-by", variable)];
        let text = documents(&[
            both(&first, &second),
            ingress("api", "/", "mock.static", &annotations),
        ]);
        let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
        let mut homes = BTreeMap::new();
        for number in 0..60 {
            let user = format!("user-{}", number % 20);
            let (path, header) = of(user.clone());
            let request = Request::get(path)
                .header("x-user", header)
                .body(Bytes::new())
                .unwrap();
            let server = send(gateway.http, request).await.unwrap().json()["server"].clone();
            assert_eq!(
                homes.entry(user.clone()).or_insert_with(|| server.clone()),
                &server,
                "{variable} {user}"
            );
        }
        assert!(homes.values().any(|home| home == "first") && homes.values().any(|home| home == "second"));
    }
}
