//! The plugin through its front door: what the service is asked, and what becomes of each of its answers.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tollgate_body::{Body, Response};
use tollgate_plugin::Plugin;

use crate::test_chain::{Behind, Got, Went, get, global, parse, run, run_before, send};

const NAME: &str = "ext-auth";
const DETAILS: &str = "ext-auth.unauthorized";

/// The mode envoy towards `auth.static`, with more fields at the top and in `http_service`.
fn envoy(top: &Value, service: &Value) -> Value {
    let mut config =
        json!({"http_service": {"endpoint": {"service_name": "auth.static", "path_prefix": "/auth"}}});
    let extend = |into: &mut Value, from: &Value| {
        into.as_object_mut()
            .unwrap()
            .extend(from.as_object().unwrap().clone());
    };
    extend(&mut config["http_service"], service);
    extend(&mut config, top);
    config
}

fn forward(service: &Value) -> Value {
    let mut config = envoy(
        &json!({}),
        &json!({"endpoint": {"service_name": "auth.static", "path": "/check?a=1"}}),
    );
    config["http_service"]["endpoint_mode"] = json!("forward_auth");
    let more = service.as_object().unwrap().clone();
    config["http_service"].as_object_mut().unwrap().extend(more);
    config
}

fn compiled(config: &Value) -> Arc<dyn Plugin> {
    global(NAME, config).unwrap()
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let mut response = Response::new(Body::bytes(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::try_from(*name).unwrap();
        response
            .headers_mut()
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    response
}

/// One request, with the service's one answer.
async fn ask(plugin: &Arc<dyn Plugin>, request: tollgate_body::Request, answered: Response) -> Went {
    let behind = Behind::default();
    behind.services.answers.borrow_mut().push_back(Ok(answered));
    run_before(plugin, request, &behind).await
}

fn only(calls: &[Got]) -> &Got {
    assert_eq!(calls.len(), 1);
    &calls[0]
}

#[tokio::test]
async fn in_the_mode_envoy_the_request_itself_is_asked_about() {
    let plugin = compiled(&envoy(&json!({}), &json!({})));
    let headers = [("authorization", "xxx"), ("foo", "bar"), ("cookie", "a=b")];
    let went = ask(
        &plugin,
        send("POST", "/users?apikey=9", &headers, "body"),
        answer(200, &[], ""),
    )
    .await;
    assert_eq!(went.status, 200);
    let upstream = went.upstream.unwrap();
    assert_eq!((&*upstream.body, upstream.uri.path()), (&b"body"[..], "/users"));
    let call = only(&went.calls);
    assert_eq!(
        (&*call.cluster, call.timeout),
        ("outbound|80||auth.static", Duration::from_secs(1))
    );
    assert_eq!(
        (call.method.as_str(), call.uri.to_string()),
        ("POST", "http://auth.static/auth/users?apikey=9".into())
    );
    assert_eq!(
        (call.header("host"), call.header("authorization")),
        ("auth.static".into(), "xxx".into())
    );
    assert!(
        call.body.is_empty() && call.headers.len() == 2,
        "{:?}",
        call.headers
    );
}

#[tokio::test]
async fn in_the_mode_forward_auth_it_is_described() {
    let endpoint = json!({
        "service_name": "auth.ns.svc.cluster.local", "service_port": 8090, "service_host": "my-domain.local:81",
        "path": "/check?a=1", "request_method": "post",
    });
    let plugin = compiled(&forward(&json!({"endpoint": endpoint, "timeout": 50})));
    let request = send(
        "PUT",
        "/a/../b?c=d",
        &[("x-forwarded-proto", "https"), ("x-forwarded-uri", "/forged")],
        "",
    );
    let went = ask(&plugin, request, answer(200, &[], "")).await;
    let call = only(&went.calls);
    assert_eq!(call.cluster, "outbound|8090||auth.ns.svc.cluster.local");
    assert_eq!(call.timeout, Duration::from_millis(50));
    assert_eq!(
        (call.method.as_str(), call.uri.to_string()),
        ("POST", "http://my-domain.local:81/check?a=1".into())
    );
    for (name, value) in [
        ("host", "my-domain.local:81"),
        ("x-original-method", "PUT"),
        ("x-original-uri", "/a/../b?c=d"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-uri", "/a/../b?c=d"),
        ("x-forwarded-host", "gateway"),
    ] {
        assert_eq!(call.header(name), value, "{name}");
    }
    assert_eq!(call.headers.len(), 7);
}

#[tokio::test]
async fn the_service_is_told_the_headers_that_the_config_names() {
    let request = json!({
        "allowed_headers": [{"exact": "X-One"}, {"prefix": "x-pre"}, {"suffix": "-suf"}, {"contains": "mid"}, {"regex": "^y-\\d+$"}],
        "headers_to_add": {"x-one": "ours", "x-flag": true, "authorization": "ours"},
    });
    let plugin = compiled(&envoy(&json!({}), &json!({"authorization_request": request})));
    let headers = [
        ("x-one", "theirs"),
        ("x-pre-1", "a"),
        ("x-pre-1", "b"),
        ("a-suf", "1"),
        ("amidb", "1"),
        ("y-12", "1"),
        ("y-a", "no"),
        ("x-suf-", "no"),
        ("content-length", "3"),
        ("authorization", "first"),
        ("authorization", "second"),
    ];
    let went = ask(&plugin, get("/", &headers), answer(200, &[], "")).await;
    let call = only(&went.calls);
    for (name, value) in [
        ("x-one", "ours"),
        ("x-pre-1", "a|b"),
        ("a-suf", "1"),
        ("amidb", "1"),
        ("y-12", "1"),
        ("x-flag", "true"),
        ("authorization", "first|second"),
        ("y-a", ""),
        ("x-suf-", ""),
        ("content-length", ""),
    ] {
        assert_eq!(call.header(name), value, "{name}");
    }
    let went = ask(&plugin, get("/", &[]), answer(200, &[], "")).await;
    assert_eq!(only(&went.calls).header("authorization"), "ours");
    // However much a pattern takes in, a message keeps its own frame.
    let all = json!({"authorization_request": {"allowed_headers": [{"regex": "."}]}});
    let all = compiled(&envoy(&json!({}), &all));
    let headers = [
        ("host", "gateway"),
        ("te", "trailers"),
        ("connection", "x"),
        ("expect", "100-continue"),
        ("x", "1"),
    ];
    let went = ask(&all, get("/", &headers), answer(200, &[], "")).await;
    let call = only(&went.calls);
    assert_eq!(
        (call.header("host"), call.header("x"), call.headers.len()),
        ("auth.static".into(), "1".into(), 2)
    );
}

#[tokio::test]
async fn the_body_is_told_up_to_its_limit() {
    let request = json!({"authorization_request": {"with_request_body": true, "max_request_body_bytes": 4}});
    let plugin = compiled(&envoy(&json!({"failure_mode_allow": true}), &request));
    let went = ask(&plugin, send("POST", "/", &[], "four"), answer(200, &[], "")).await;
    assert_eq!(&*only(&went.calls).body, b"four");
    assert_eq!(&*went.upstream.unwrap().body, b"four");
    let went = ask(&plugin, send("POST", "/", &[], "fives"), answer(200, &[], "")).await;
    assert_eq!(went.status, 413);
    assert!(went.calls.is_empty() && went.upstream.is_none());
    let went = ask(&plugin, get("/", &[]), answer(200, &[], "")).await;
    assert!(went.status == 200 && only(&went.calls).body.is_empty());
}

#[tokio::test]
async fn what_the_service_says_goes_on_as_far_as_the_config_says() {
    let response = json!({"allowed_upstream_headers": [{"exact": "X-User-Id"}, {"exact": "x-mse-consumer"}, {"exact": "content-length"}]});
    let plugin = compiled(&envoy(&json!({}), &json!({"authorization_response": response})));
    let answered = answer(
        200,
        &[
            ("x-user-id", "7"),
            ("x-user-id", "8"),
            ("x-mse-consumer", "ann"),
            ("x-other", "1"),
            ("content-length", "0"),
        ],
        "",
    );
    let went = ask(
        &plugin,
        get("/", &[("x-user-id", "1"), ("x-other", "2")]),
        answered,
    )
    .await;
    assert_eq!(went.consumer.as_deref(), Some("ann"));
    let upstream = went.upstream.unwrap();
    for (name, value) in [
        ("x-user-id", "7"),
        ("x-mse-consumer", "ann"),
        ("x-other", "2"),
        ("content-length", ""),
    ] {
        assert_eq!(upstream.header(name), value, "{name}");
    }
    let silent = compiled(&envoy(&json!({}), &json!({})));
    let went = ask(&silent, get("/", &[]), answer(200, &[("x-user-id", "7")], "")).await;
    assert_eq!(went.upstream.unwrap().header("x-user-id"), "");
}

#[tokio::test]
async fn only_200_lets_a_request_pass() {
    let plugin = compiled(&envoy(&json!({}), &json!({})));
    for status in [201, 204, 301, 302, 400, 401, 403, 404, 429] {
        let headers = [
            ("location", "/login"),
            ("x-why", "a"),
            ("x-why", "b"),
            ("content-length", "9"),
        ];
        let went = ask(&plugin, get("/", &[]), answer(status, &headers, "not today")).await;
        assert_eq!(went.line(), format!("{status} [not today] {DETAILS}"));
        assert_eq!(
            (went.header("location"), went.header("x-why")),
            ("/login".into(), "a|b".into())
        );
        assert_eq!(
            (went.header("content-type"), went.header("content-length")),
            ("text/plain".into(), String::new())
        );
        assert!(went.upstream.is_none());
    }
    let page = answer(401, &[("content-type", "text/html")], "<p>");
    assert_eq!(
        ask(&plugin, get("/", &[]), page).await.header("content-type"),
        "text/html"
    );
    let response = json!({"authorization_response": {"allowed_client_headers": [{"prefix": "X-"}]}});
    let some = compiled(&envoy(&json!({}), &response));
    let went = ask(
        &some,
        get("/", &[]),
        answer(
            403,
            &[("x-why", "a"), ("set-cookie", "b"), ("content-type", "text/html")],
            "no",
        ),
    )
    .await;
    assert_eq!(
        (went.header("x-why"), went.header("set-cookie")),
        ("a".into(), String::new())
    );
    assert_eq!(went.header("content-type"), "text/plain");
}

#[tokio::test]
async fn a_service_that_fails_opens_no_door() {
    let plugin = compiled(&envoy(&json!({}), &json!({})));
    let other = compiled(&envoy(&json!({"status_on_error": 503}), &json!({})));
    for (plugin, status) in [(plugin, 403), (other, 503)] {
        let went = ask(
            &plugin,
            get("/", &[]),
            answer(500, &[("x-why", "a")], "stack trace"),
        )
        .await;
        assert_eq!(went.line(), format!("{status} [] {DETAILS}"));
        assert_eq!(went.header("x-why"), "a");
        assert!(went.upstream.is_none());
        // Nobody is there, or nobody answers in time.
        let went = run(&plugin, get("/", &[])).await;
        assert_eq!(went.line(), format!("{status} [] {DETAILS}"));
        let endless = answer(200, &[], &"x".repeat(2 * 1024 * 1024));
        assert_eq!(ask(&plugin, get("/", &[]), endless).await.status, status);
    }
}

#[tokio::test]
async fn it_opens_one_if_the_config_says_so() {
    let open = compiled(&envoy(&json!({"failure_mode_allow": true}), &json!({})));
    let told = json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true});
    let told = compiled(&envoy(&told, &json!({})));
    for (plugin, header) in [(open, ""), (told, "true")] {
        let forged = || get("/", &[("x-envoy-auth-failure-mode-allowed", "forged")]);
        let sent = |went: Went| went.upstream.unwrap().header("x-envoy-auth-failure-mode-allowed");
        assert_eq!(sent(ask(&plugin, forged(), answer(503, &[], "")).await), header);
        assert_eq!(sent(run(&plugin, forged()).await), header);
        assert_eq!(sent(ask(&plugin, forged(), answer(200, &[], "")).await), "");
        assert_eq!(
            ask(&plugin, forged(), answer(401, &[], "")).await.status,
            401,
            "it does not fail"
        );
    }
}

/// Whether the service is asked about a request.
async fn asks(plugin: &Arc<dyn Plugin>, method: &str, uri: &str) -> bool {
    let went = ask(plugin, send(method, uri, &[], ""), answer(200, &[], "")).await;
    assert_eq!(went.status, 200);
    !went.calls.is_empty()
}

#[tokio::test]
async fn lists_of_requests() {
    let list = json!([
        {"match_rule_domain": "api.example.com", "match_rule_path": "/public", "match_rule_type": "prefix"},
        {"match_rule_domain": "*.images.com", "match_rule_method": ["GET"]},
        {"match_rule_method": ["head"], "match_rule_path": "/health", "match_rule_type": "exact"},
        {"match_rule_path": ".css", "match_rule_type": "suffix"},
        {"match_rule_path": "/docs/", "match_rule_type": "contains"},
        {"match_rule_path": "^/v[12]/free$", "match_rule_type": "regex"},
        {"match_rule_domain": "a.com:81"},
        // Names nothing, means nobody.
        {"match_rule_domain": "", "match_rule_method": []},
    ]);
    let white = compiled(&envoy(&json!({"match_list": list}), &json!({})));
    let black = compiled(&envoy(
        &json!({"match_type": "blacklist", "match_list": list}),
        &json!({}),
    ));
    for (method, uri, is_listed) in [
        ("POST", "http://api.example.com/public/a?x=/b", true),
        ("POST", "http://API.example.com/public", true),
        ("POST", "http://www.example.com/public/a", false),
        ("POST", "http://api.example.com/private?x=/public", false),
        ("GET", "http://b.images.com/a", true),
        ("GET", "http://images.com/a", false),
        ("GET", "http://b.images.com.evil/a", false),
        ("POST", "http://b.images.com/a", false),
        ("HEAD", "/health", true),
        ("GET", "/health", false),
        ("HEAD", "/health/a", false),
        ("GET", "/a/b.css", true),
        ("GET", "/a/docs/b", true),
        ("GET", "/v1/free", true),
        ("GET", "/v3/free", false),
        ("GET", "/", false),
    ] {
        assert_eq!(
            asks(&white, method, uri).await,
            !is_listed,
            "white {method} {uri}"
        );
        assert_eq!(asks(&black, method, uri).await, is_listed, "black {method} {uri}");
    }
    let all = compiled(&envoy(
        &json!({"match_type": "whitelist", "match_list": []}),
        &json!({}),
    ));
    let none = compiled(&envoy(&json!({"match_type": "blacklist"}), &json!({})));
    assert!(asks(&all, "GET", "/").await && !asks(&none, "GET", "/").await);
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_list() {
    let rule = |path: &str| json!([{"match_rule_path": path, "match_rule_type": "prefix"}]);
    let white = compiled(&envoy(&json!({"match_list": rule("/public")}), &json!({})));
    let black = compiled(&envoy(
        &json!({"match_type": "blacklist", "match_list": rule("/admin")}),
        &json!({}),
    ));
    for uri in [
        "/public/../admin",
        "/public/..%2fadmin",
        "/public/%2e%2e/admin",
        "/public/%252e%252e/admin",
        "/public//../../admin/x",
        "/public\\..\\..\\admin",
        "/public/..;a=b/admin",
    ] {
        assert!(asks(&white, "GET", uri).await, "white {uri}");
        assert!(asks(&black, "GET", uri).await, "black {uri}");
    }
    for uri in ["/%61dmin", "//admin", "/./admin"] {
        assert!(asks(&black, "GET", uri).await, "black {uri}");
    }
    assert!(!asks(&white, "GET", "/public/%61/b").await);
}

#[tokio::test]
async fn a_rule_stands_alone() {
    let rule = envoy(&json!({"match_type": "blacklist"}), &json!({}));
    let plugin = parse(NAME, Some(&json!("broken")), Some(&rule), true).unwrap().0;
    assert!(!asks(&plugin, "GET", "/").await);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let endpoint = |value: Value| envoy(&json!({}), &json!({"endpoint": value}));
    let request = |value: Value| envoy(&json!({}), &json!({"authorization_request": value}));
    let mut no_path = forward(&json!({}));
    no_path["http_service"]["endpoint"] = json!({"service_name": "a"});
    let with_body = forward(&json!({"authorization_request": {"with_request_body": true}}));
    for (config, message) in [
        (json!([]), "must be an object"),
        (json!({}), "http_service: is required"),
        (json!({"http_service": {}}), "http_service.endpoint: is required"),
        (
            envoy(&json!({}), &json!({"endpoint_mode": "grpc"})),
            "http_service.endpoint_mode: must be envoy or forward_auth",
        ),
        (
            endpoint(json!({"path_prefix": "/"})),
            "http_service.endpoint.service_name: is required",
        ),
        (
            endpoint(json!({"service_name": "a"})),
            "http_service.endpoint.path_prefix: is required in the mode envoy",
        ),
        (
            endpoint(json!({"service_name": "a", "path_prefix": "/a?b"})),
            "http_service.endpoint.path_prefix: is no path",
        ),
        (
            endpoint(json!({"service_name": "a", "path_prefix": "/", "service_port": 70000})),
            "http_service.endpoint.service_port: is no port",
        ),
        (
            endpoint(json!({"service_name": "a b", "path_prefix": "/"})),
            "http_service.endpoint.service_name: is no name of a host",
        ),
        (
            endpoint(json!({"service_name": "a", "path_prefix": "/", "service_host": "a\nb"})),
            "http_service.endpoint.service_host: is no name of a host",
        ),
        (
            no_path,
            "http_service.endpoint.path: is required in the mode forward_auth",
        ),
        (
            with_body,
            "http_service.authorization_request.with_request_body: cannot be true with request_method GET",
        ),
        (
            envoy(&json!({}), &json!({"timeout": -1})),
            "http_service.timeout: must not be negative",
        ),
        (
            request(json!({"allowed_headers": [{"exact": "a", "prefix": "b"}]})),
            "http_service.authorization_request.allowed_headers[0]: must have one of exact, prefix, suffix, contains, regex",
        ),
        (
            request(json!({"allowed_headers": [{"exact": ""}]})),
            "http_service.authorization_request.allowed_headers[0].exact: is required",
        ),
        (
            request(json!({"headers_to_add": {"host": "a"}})),
            "http_service.authorization_request.headers_to_add.host: cannot be set",
        ),
        (
            request(json!({"headers_to_add": {"a": "b\nc"}})),
            "http_service.authorization_request.headers_to_add.a: is no value of a header",
        ),
        (
            request(json!({"max_request_body_bytes": -1})),
            "http_service.authorization_request.max_request_body_bytes: must not be negative",
        ),
    ] {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let ignored = endpoint(json!({"service_name": "a", "path_prefix": "/", "path": "/b"}));
    assert_eq!(
        parse(NAME, Some(&ignored), None, false).unwrap().1,
        ["http_service.endpoint.path: does not count in this endpoint_mode"]
    );
}

#[test]
fn what_is_wrong_with_the_rest_is_told_too() {
    let good = envoy(&json!({}), &json!({}));
    let top = |name: &str, value: Value| {
        let mut config = good.clone();
        config[name] = value;
        config
    };
    let list = |value: Value| top("match_list", json!([value]));
    for (config, message) in [
        (
            top("match_type", json!("grey")),
            "match_type: must be whitelist or blacklist",
        ),
        (
            list(json!({"match_rule_path": "/a"})),
            "match_list[0].match_rule_type: is required next to a path",
        ),
        (
            list(json!({"match_rule_type": "exact"})),
            "match_list[0].match_rule_path: is required next to a type",
        ),
        (
            list(json!({"match_rule_path": "/a", "match_rule_type": "glob"})),
            "match_list[0].match_rule_type: must be one of exact, prefix, suffix, contains, regex",
        ),
        (
            top("status_on_error", json!(99)),
            "status_on_error: must be a status from 200 to 599",
        ),
        (
            top("failure_mode_allow", json!("yes")),
            "failure_mode_allow: must be true or false",
        ),
    ] {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let broken = global(
        NAME,
        &list(json!({"match_rule_path": "(", "match_rule_type": "regex"})),
    )
    .err()
    .unwrap();
    assert!(
        broken.starts_with("match_list[0].match_rule_path: is no regular expression"),
        "{broken}"
    );
}
