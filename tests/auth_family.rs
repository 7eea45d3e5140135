//! The plugins that let in or keep out, through the binary: signatures, passwords, addresses, origins and crawlers; what
//! the vendor and the log get to see of a credential, and what a mistake does.

use http::{HeaderName, HeaderValue, Method, Request};
use serde_json::Value;
use tollgate_mock_llm::{Handle, Options};
use tollgate_testkit::client::{Answer, get, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{
    CHAT, CHAT_PATH, Sight, ai_proxy, bridge, documents, gateway, ingress, ingress_for, mock, verbose_log,
    wasm_plugin,
};

/// Routes `/NAME` with nothing but these plugins and the log.
fn start(mock: &Handle, routes: &[&str], plugins: &[String]) -> Gateway {
    let mut parts = vec![bridge(&[("mock", mock.addr())]), verbose_log()];
    for name in routes {
        parts.push(ingress(name, &format!("/{name}"), "mock.static", &[]));
    }
    parts.extend_from_slice(plugins);
    let text = documents(&parts);
    gateway().file("scene.yaml", &text).unwrap().go().unwrap()
}

fn plugin(name: &str, phase: &str, priority: i32, spec: &str) -> String {
    wasm_plugin(name, spec)
        .replace("UNSPECIFIED_PHASE", phase)
        .replace("priority: 100", &format!("priority: {priority}"))
}

fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<bytes::Bytes> {
    let mut request = get(path);
    *request.method_mut() = method;
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).unwrap();
        request
            .headers_mut()
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

/// The answer and the log line of a request; where it came through, the mock has answered 404.
async fn ask(gateway: &Gateway, id: &str, mut request: Request<bytes::Bytes>) -> (Answer, Value) {
    request
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_str(id).unwrap());
    let answer = send(gateway.http, request).await.unwrap();
    (answer, gateway.line_of(id))
}

/// Signs `POST\n\n\napplication/json\n\n/v1/chat/completions` with `appSecret`.
const CA_SIGNATURE: &str = "XlrDnsDlxMeumNZQj1k73fGBvuQNl933oyNueAB6a8g=";
/// Signs `consumer1-key\nPOST /v1/chat/completions\n` with the secret `consumer1-secret`.
const APISIX_SIGNATURE: &str = "Nani6txnzR/SGxdjYnurUMQMSO1xv/2fcBDH2+M9iYM=";

/// A vendor behind two routes, with a plugin for signatures on each, and a log that shows what could leak.
fn signature_world(mock: &Handle) -> String {
    let vendor = |route: &str| ai_proxy(route, "{ type: openai, apiTokens: [sk-gateway] }");
    let ca = plugin(
        "hmac-auth",
        "AUTHN",
        330,
        "  defaultConfig:\n    consumers:\n    - { name: consumer1, key: appKey, secret: appSecret }\n    \
         - { name: consumer2, key: otherKey, secret: otherSecret }\n  matchRules:\n\
         \x20 - ingress: [ca]\n    config: { allow: [consumer1] }\n",
    );
    let apisix = plugin(
        "hmac-auth-apisix",
        "AUTHN",
        330,
        "  defaultConfig:\n    clock_skew: 0\n    signed_headers: [\"@request-target\"]\n    consumers:\n    \
         - { name: consumer1, access_key: consumer1-key, secret_key: consumer1-secret }\n  matchRules:\n\
         \x20 - ingress: [apisix]\n    config: { allow: [consumer1] }\n",
    );
    let log = verbose_log().replace(
        r#""flags""#,
        r#""consumer":"%REQ(X-MSE-CONSUMER)%","sig":"%REQ(X-CA-SIGNATURE)%%REQ(AUTHORIZATION)%","flags""#,
    );
    documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress_for("ca.example", "ca", "/", "mock.static", &[]),
        ingress_for("apisix.example", "apisix", "/", "mock.static", &[]),
        vendor("ca").replacen("name: ai-proxy", "name: ai-proxy-ca", 1),
        vendor("apisix"),
        ca,
        apisix,
        log,
    ])
}

/// Both kinds of signatures towards a vendor: who gets in, and what vendor and log get to see.
#[tokio::test]
async fn signatures_of_two_generations() {
    let mock = mock(Options::default());
    let text = signature_world(&mock);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let chat = |host: &str, headers: &[(&str, &str)]| {
        let mut request = post_json(CHAT_PATH, CHAT);
        let all = [&[("host", host), ("x-mse-consumer", "forged")], headers].concat();
        for (name, value) in all {
            let name = HeaderName::try_from(name).unwrap();
            request
                .headers_mut()
                .insert(name, HeaderValue::from_str(value).unwrap());
        }
        request
    };
    let authorization = format!(
        r#"Signature keyId="consumer1-key",algorithm="hmac-sha256",headers="@request-target",signature="{APISIX_SIGNATURE}""#
    );
    let own = [("x-ca-key", "appKey"), ("x-ca-signature", CA_SIGNATURE)];
    let other = [("x-ca-key", "otherKey"), ("x-ca-signature", CA_SIGNATURE)];
    let wrong = [("x-ca-key", "appKey"), ("x-ca-signature", APISIX_SIGNATURE)];
    let moved = authorization.replace("request-target", "request");
    for (id, host, headers, status, consumer, details) in [
        ("ca", "ca.example", &own[..], 200, "consumer1", "via_upstream"),
        ("ca-none", "ca.example", &[], 401, "-", "Invalid_Key"),
        (
            "ca-other",
            "ca.example",
            &other,
            403,
            "-",
            "Unauthorized_Consumer",
        ),
        ("ca-wrong", "ca.example", &wrong, 400, "-", "Invalid_Signature"),
        (
            "apisix",
            "apisix.example",
            &[("authorization", &*authorization)],
            200,
            "consumer1",
            "via_upstream",
        ),
        ("apisix-none", "apisix.example", &[], 401, "-", "direct_response"),
        (
            "apisix-moved",
            "apisix.example",
            &[("authorization", &*moved)],
            401,
            "-",
            "direct_response",
        ),
    ] {
        let (answer, line) = ask(&gateway, id, chat(host, headers)).await;
        assert_eq!(answer.status.as_u16(), status, "{id}: {answer:?}");
        assert_eq!(
            (&line["consumer"], &line["details"]),
            (&consumer.into(), &details.into()),
            "{id}"
        );
        let line = line.to_string();
        assert!(
            !line.contains(CA_SIGNATURE) && !line.contains(APISIX_SIGNATURE),
            "{line}"
        );
    }
    assert_eq!(mock.requests().len(), 2);
    for seen in mock.requests() {
        let seen = format!("{seen:?}").to_ascii_lowercase();
        for kept in ["x-ca-key", "x-ca-signature", "keyid", "mse-consumer", "forged"] {
            assert!(!seen.contains(kept), "{kept}: {seen}");
        }
    }
    let page = gateway.admin("/config_dump").await.text();
    assert!(
        !page.contains("appSecret") && !page.contains("consumer1-secret"),
        "{page}"
    );
}

#[tokio::test]
async fn names_and_passwords() {
    let mock = mock(Options::default());
    let spec = "  defaultConfig:\n    encrypted: true\n    global_auth: true\n    consumers:\n    \
        - { name: consumer1, credential: \"admin:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\" }\n    \
        - { name: consumer2, credential: \"guest:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\" }\n  matchRules:\n\
        \x20 - ingress: [one]\n    config: { allow: [consumer1] }\n\
        \x20 - ingress: [own]\n    config: { credentials: [\"a:b\"], realm: here }\n\
        \x20 - ingress: [broken]\n    config: { encrypted: true, credentials: [\"a:s3cret\"] }\n";
    let routes = ["any", "one", "own", "broken"];
    let gateway = start(&mock, &routes, &[plugin("basic-auth", "AUTHN", 320, spec)]);
    let said = gateway
        .errors
        .wait_for(|line| line.contains("is no hash"))
        .unwrap();
    assert!(
        said.contains("credentials[0]") && !said.contains("s3cret"),
        "{said}"
    );
    let (nobody, details) = ("", "Request_denied_by_Basic_Auth_check._");
    // The base64 of admin:secret, guest:secret, admin:guest and a:b.
    let (admin, guest) = ("Basic YWRtaW46c2VjcmV0", "Basic Z3Vlc3Q6c2VjcmV0");
    let (wrong, own) = ("Basic YWRtaW46Z3Vlc3Q=", "Basic YTpi");
    for (number, (path, credentials, status, reason)) in [
        ("/any", nobody, 401, "No_Basic_Authentication_information_found."),
        ("/any", wrong, 401, "Invalid_username_and/or_password"),
        ("/any", guest, 404, ""),
        ("/one", admin, 404, ""),
        ("/one", guest, 403, "Unauthorized_consumer"),
        ("/own", own, 404, ""),
        ("/own", admin, 401, "Invalid_username_and/or_password"),
        ("/broken", own, 500, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = [("authorization", credentials)];
        let headers = &headers[..usize::from(!credentials.is_empty())];
        let (answer, line) = ask(
            &gateway,
            &format!("basic-{number}"),
            request(Method::GET, path, headers),
        )
        .await;
        assert_eq!(answer.status.as_u16(), status, "{path} {credentials}: {answer:?}");
        if !reason.is_empty() {
            let realm = if path == "/own" { "here" } else { "MSE Gateway" };
            assert_eq!(answer.header("www-authenticate"), format!("Basic realm={realm}"));
            assert_eq!(line["details"], format!("{details}{reason}"));
            assert_eq!(answer.text(), "");
        }
    }
    let seen = format!("{:?}", mock.requests());
    assert!(seen.contains("consumer1") && seen.contains("consumer2"), "{seen}");
    let page = gateway.admin("/config_dump").await.text();
    assert!(
        !page.contains("2r9OfJnf") && !page.contains("5en6G6Mez"),
        "{page}"
    );
}

#[tokio::test]
async fn addresses_by_connection_and_by_header() {
    let mock = mock(Options::default());
    let rules = "  matchRules:\n\
        \x20 - ingress: [here]\n    config: { allow: [127.0.0.0/8] }\n\
        \x20 - ingress: [elsewhere]\n    config: { deny: [\"127.0.0.1\"], status: 401, message: \"not \\\"here\\\"\" }\n\
        \x20 - ingress: [proxied]\n    config: { ip_source_type: header, allow: [10.0.0.0/8] }\n\
        \x20 - ingress: [broken]\n    config: { allow: [10.0.0.0/33] }\n";
    let routes = ["here", "elsewhere", "proxied", "broken", "free"];
    let gateway = start(&mock, &routes, &[plugin("ip-restriction", "AUTHN", 210, rules)]);
    let said = gateway
        .errors
        .wait_for(|line| line.contains("10.0.0.0/33"))
        .unwrap();
    assert!(said.contains("allow[0]"), "{said}");

    let forged = [("x-forwarded-for", "10.0.0.1")];
    for (number, (path, headers, status, details)) in [
        ("/here", &forged[..], 404, "via_upstream"),
        ("/elsewhere", &forged[..], 401, "key-auth.ip_denied"),
        ("/proxied", &forged[..], 404, "via_upstream"),
        // What the gateway itself adds: the connection's other end.
        ("/proxied", &[][..], 403, "key-auth.ip_not_allowed"),
        (
            "/proxied",
            &[("x-forwarded-for", "unknown")][..],
            403,
            "key-auth.get_ip_failed",
        ),
        ("/broken", &[][..], 500, "plugin_unavailable"),
        ("/free", &[][..], 404, "via_upstream"),
    ]
    .into_iter()
    .enumerate()
    {
        let (answer, line) = ask(
            &gateway,
            &format!("ip-{number}"),
            request(Method::GET, path, headers),
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), line["details"].as_str()),
            (status, Some(details)),
            "{path}"
        );
        if status == 401 {
            assert_eq!(answer.json()["message"], "not \"here\"");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_and_their_preflights() {
    let mock = mock(Options::default());
    let config = "  defaultConfig:\n    allow_origin_patterns: [\"https://*.a.com\"]\n    allow_methods: [GET]\n    \
        allow_credentials: true\n";
    let nowhere = ingress("gone", "/gone", "nowhere.static", &[]);
    let gateway = start(&mock, &["api"], &[plugin("cors", "AUTHZ", 340, config), nowhere]);
    let evil = [("origin", "https://x.a.com.evil")];
    let (refused, line) = ask(&gateway, "evil", request(Method::GET, "/api", &evil)).await;
    assert_eq!(
        (refused.status.as_u16(), refused.text().as_str()),
        (403, "Invalid CORS request")
    );
    assert_eq!(
        (refused.header("content-type"), &line["details"]),
        ("text/plain", &"cors.forbidden".into())
    );
    let preflight = [
        ("origin", "https://x.a.com"),
        ("access-control-request-method", "GET"),
    ];
    let (answer, line) = ask(
        &gateway,
        "preflight",
        request(Method::OPTIONS, "/api", &preflight),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("access-control-allow-origin"), "https://x.a.com");
    assert_eq!(line["details"], "cores.preflight");
    assert!(mock.requests().is_empty());
    let (answer, _) = ask(&gateway, "page", request(Method::GET, "/api", &preflight[..1])).await;
    assert_eq!(answer.status.as_u16(), 404);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    // What the gateway answers itself can be read by the page too.
    let (answer, _) = ask(&gateway, "gone", request(Method::GET, "/gone", &preflight[..1])).await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(answer.header("access-control-allow-origin"), "https://x.a.com");
    assert_eq!(answer.header("vary"), "Origin");
    let (answer, _) = ask(&gateway, "gone-own", request(Method::GET, "/gone", &[])).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("access-control-allow-origin")
        ),
        (503, "")
    );
    let host = gateway.http.to_string();
    let own = [("host", host.as_str()), ("origin", &format!("http://{host}"))];
    let (answer, _) = ask(&gateway, "own", request(Method::POST, "/api", &own)).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("access-control-allow-origin")
        ),
        (404, "")
    );
}

#[tokio::test]
async fn crawlers_and_lists_of_them() {
    let mock = mock(Options::default());
    let spec = "  defaultConfig: { blocked_code: 401, blocked_message: go away }\n  matchRules:\n\
        \x20 - ingress: [open]\n    config: { allow: [\".*Googlebot.*\", Tailsweep], deny: [Go-Client] }\n\
        \x20 - ingress: [broken]\n    config: { deny: [\"(\"] }\n";
    let gateway = start(
        &mock,
        &["any", "open", "broken"],
        &[plugin("bot-detect", "AUTHZ", 310, spec)],
    );
    let said = gateway
        .errors
        .wait_for(|line| line.contains("regex parse error"))
        .unwrap();
    assert!(said.contains("deny[0]"), "{said}");
    let google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for (number, (path, agent, status)) in [
        ("/any", google, 401),
        ("/any", "BaiduMobaider/1.1.0", 401),
        ("/any", "Mozilla/5.0 (X11; Linux x86_64)", 404),
        ("/any", "Go-Client", 404),
        ("/open", google, 404),
        ("/open", "Tailsweep", 404),
        ("/open", "Go-Client", 403),
        ("/broken", "Go-Client", 500),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = [("user-agent", agent)];
        let (answer, _) = ask(
            &gateway,
            &format!("bot-{number}"),
            request(Method::GET, path, &headers),
        )
        .await;
        assert_eq!(answer.status.as_u16(), status, "{path} {agent}: {answer:?}");
        if status == 401 {
            assert_eq!(answer.text(), "go away");
        }
    }
}
