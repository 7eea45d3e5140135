//! Who may ask across origins, what preflights and answers say. The gateway is `http://gateway` here.

use http::HeaderValue;
use serde_json::{Value, json};
use tollgate_body::{Body, Request, Response};

use crate::test_chain::{Behind, Went, global, parse, rule, run, run_before, send};

const NAME: &str = "cors";
const FORBIDDEN: &str = "403 [Invalid CORS request] cors.forbidden";

fn ask(method: &str, headers: &[(&str, &str)]) -> Request {
    send(method, "/", headers, "")
}

async fn went(config: &Value, method: &str, headers: &[(&str, &str)]) -> Went {
    run(&global(NAME, config).unwrap(), ask(method, headers)).await
}

/// Whether a GET of a page of this origin passes.
async fn passes(config: &Value, origin: &str) -> bool {
    let went = went(config, "GET", &[("origin", origin)]).await;
    match went.status {
        200 => {
            assert_eq!(went.header("access-control-allow-origin"), origin);
            true
        }
        _ => {
            assert_eq!(went.line(), FORBIDDEN, "{origin}");
            assert_eq!(went.header("access-control-allow-origin"), "");
            false
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_here() {
    let config = json!({
        "allow_origin_patterns": ["http://*.example.com", "http://*.example.org:[8080,9090]"],
        "allow_methods": ["get", "POST", "PATCH"],
        "allow_headers": ["Content-Type", "Token", "Authorization"],
        "expose_headers": ["X-Custom-Header", "X-Env-UTM"],
        "allow_credentials": true,
        "max_age": 3600,
    });
    let preflight = [
        ("origin", "http://httpbin.example.org:9090"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type, token"),
    ];
    let answer = went(&config, "OPTIONS", &preflight).await;
    assert_eq!(answer.line(), "200 [] cores.preflight");
    assert!(answer.upstream.is_none());
    for (name, value) in [
        ("access-control-allow-origin", "http://httpbin.example.org:9090"),
        ("access-control-allow-methods", "GET,POST,PATCH"),
        ("access-control-allow-headers", "Content-Type,Token,Authorization"),
        ("access-control-expose-headers", "X-Custom-Header,X-Env-UTM"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "3600"),
        ("x-cors-version", "1.0.0"),
        ("vary", "Origin"),
        ("content-type", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    for changed in [
        ("origin", "http://httpbin.example.org"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "TokenView"),
        ("access-control-request-headers", "token,x-ключ"),
    ] {
        let headers = preflight.map(|header| if header.0 == changed.0 { changed } else { header });
        let refused = went(&config, "OPTIONS", &headers).await;
        assert_eq!(refused.line(), FORBIDDEN, "{changed:?}");
        assert_eq!(refused.header("x-cors-version"), "1.0.0");
        assert!(
            !refused
                .headers
                .keys()
                .any(|name| name.as_str().starts_with("access-control"))
        );
    }
}

#[tokio::test]
async fn defaults_let_every_origin_ask_without_credentials() {
    let preflight = [
        ("origin", "https://a.com"),
        ("access-control-request-method", "PUT"),
    ];
    let answer = went(&json!({}), "OPTIONS", &preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-methods"),
        "GET, PUT, POST, DELETE, PATCH, OPTIONS"
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .starts_with("DNT,X-CustomHeader,")
    );
    assert_eq!(answer.header("access-control-max-age"), "86400");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    assert_eq!(answer.header("access-control-expose-headers"), "");
    assert!(passes(&json!({}), "null").await);
    for method in ["HEAD", "TRACE", "BREW"] {
        let refused = went(&json!({}), method, &[("origin", "https://a.com")]).await;
        assert_eq!(refused.line(), FORBIDDEN, "{method}");
    }
    let zero = went(&json!({"max_age": 0}), "OPTIONS", &preflight).await;
    assert_eq!(zero.header("access-control-max-age"), "86400");
}

#[tokio::test]
async fn a_star_is_every_method_and_header() {
    let config = json!({"allow_methods": ["GET", "*"], "allow_headers": ["*"], "expose_headers": ["a", "*"]});
    let asked = [
        ("origin", "https://a.com"),
        ("access-control-request-method", "BREW"),
        ("access-control-request-headers", "x-a, x-b"),
    ];
    let answer = went(&config, "OPTIONS", &asked).await;
    assert_eq!(
        answer.header("access-control-allow-methods"),
        "GET, PUT, POST, DELETE, PATCH, OPTIONS, HEAD, TRACE, CONNECT"
    );
    assert_eq!(answer.header("access-control-allow-headers"), "x-a, x-b");
    assert_eq!(answer.header("access-control-expose-headers"), "*");
    let none = went(&config, "OPTIONS", &asked[..2]).await;
    assert_eq!(none.header("access-control-allow-headers"), "*");
}

#[tokio::test]
async fn origins_are_compared_whole_and_without_case() {
    let exact = json!({"allow_origins": ["https://A.com/", " http://b.com:8081 "]});
    for origin in ["https://a.com", "HTTPS://a.COM", "http://b.com:8081"] {
        assert!(passes(&exact, origin).await, "{origin}");
    }
    for origin in [
        "http://a.com",
        "https://a.com:8443",
        "http://b.com",
        "https://a.com.evil",
        "null",
        "*",
    ] {
        assert!(!passes(&exact, origin).await, "{origin}");
    }
    let slash = went(&exact, "GET", &[("origin", "https://a.com/")]).await;
    assert_eq!(slash.header("access-control-allow-origin"), "https://a.com");
}

#[tokio::test]
async fn patterns_match_from_end_to_end() {
    let config = json!({"allow_origin_patterns": ["https://*.a.com", "http://*.b.com:[8080,9090]", "http://c.com:[*]", "http://d.com:[x]"]});
    for origin in [
        "https://x.a.com",
        "https://X.Y.A.com",
        "http://x.b.com:8080",
        "http://x.b.com:9090",
        "http://c.com",
        "http://c.com:1",
        "http://d.com:[x]",
    ] {
        assert!(passes(&config, origin).await, "{origin}");
    }
    for origin in [
        "https://x.a.com.evil",
        "https://x.a.com:8443",
        "https://a.com",
        "https://xaacom",
        "evil https://x.a.com",
        "http://x.a.com",
        "http://x.b.com",
        "http://x.b.com:80809",
        "http://c.com:x",
        "http://c.com:80.evil",
        "https://x.a.com\u{fffd}",
    ] {
        assert!(!passes(&config, origin).await, "{origin}");
    }
    let all = json!({"allow_origin_patterns": ["*"], "allow_credentials": true});
    let answer = went(&all, "GET", &[("origin", "https://any.where")]).await;
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
}

#[tokio::test]
async fn what_is_no_request_across_origins_passes() {
    let config = json!({"allow_origins": ["https://a.com"]});
    for (method, headers) in [
        ("GET", &[][..]),
        ("GET", &[("origin", "")]),
        ("GET", &[("origin", "http://gateway")]),
        ("GET", &[("origin", "HTTP://Gateway:80")]),
        ("DELETE", &[("origin", "http://gateway/")]),
        ("OPTIONS", &[("access-control-request-method", "PUT")]),
        (
            "OPTIONS",
            &[
                ("origin", "http://gateway"),
                ("access-control-request-method", "BREW"),
            ],
        ),
    ] {
        let answer = went(&config, method, headers).await;
        assert_eq!(answer.line(), "200 [from upstream] ", "{method} {headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(answer.header("x-cors-version"), "1.0.0");
    }
    for origin in [
        "https://gateway",
        "http://gateway:8080",
        "http://gateway:x",
        "http://other",
        "http://",
        "gateway",
    ] {
        assert!(!passes(&config, origin).await, "{origin}");
    }
    // OPTIONS without the header that makes it a preflight is a request like others.
    let options = went(&config, "OPTIONS", &[("origin", "https://a.com")]).await;
    assert_eq!(options.line(), "200 [from upstream] ");
}

#[tokio::test]
async fn odd_origins_may_not_ask() {
    let any = json!({"allow_origins": ["*"]});
    let twice = [("origin", "https://a.com"), ("origin", "https://b.com")];
    assert_eq!(went(&any, "GET", &twice).await.line(), FORBIDDEN);
    assert_eq!(
        went(&any, "GET", &[("origin", "https://ключ")]).await.line(),
        FORBIDDEN
    );
    let long = format!("https://{}", "a".repeat(8192));
    assert!(passes(&any, &long).await);
    assert!(!passes(&json!({"allow_origin_patterns": ["https://*b"]}), &long).await);
}

#[tokio::test]
async fn what_the_upstream_says_of_cors_does_not_count() {
    let config = json!({"allow_origins": ["https://a.com"], "expose_headers": ["x-b"]});
    let plugin = global(NAME, &config).unwrap();
    for (origin, told) in [("https://a.com", "https://a.com"), ("http://gateway", "")] {
        let mut response = Response::new(Body::empty());
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "BREW"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-a"),
            ("access-control-max-age", "1"),
            ("access-control-allow-headers", "x-c"),
            ("vary", "Accept"),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let behind = Behind::default();
        behind.answers.borrow_mut().push_back(response);
        let went = run_before(&plugin, ask("GET", &[("origin", origin)]), &behind).await;
        assert_eq!(went.header("access-control-allow-origin"), told);
        assert_eq!(went.header("access-control-allow-methods"), "");
        assert_eq!(went.header("access-control-allow-credentials"), "");
        assert_eq!(went.header("access-control-max-age"), "");
        assert_eq!(went.header("access-control-allow-headers"), "x-c");
        let (expose, vary) = match told.is_empty() {
            true => ("", "Accept"),
            false => ("x-b", "Accept|Origin"),
        };
        assert_eq!(went.header("access-control-expose-headers"), expose);
        assert_eq!(went.header("vary"), vary);
    }
}

#[tokio::test]
async fn credentials_next_to_every_origin_are_not_allowed() {
    let config = json!({"allow_origins": ["https://a.com", "*"], "allow_credentials": true});
    let warned = parse(NAME, Some(&config), None, false).unwrap().1;
    assert_eq!(
        warned,
        [
            "allow_credentials: cannot be true next to the origin *, and is taken for false: name origins, or use \
          allow_origin_patterns"
        ]
    );
    let answer = went(&config, "GET", &[("origin", "https://evil.com")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://evil.com");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let nobody = json!({"allow_credentials": true});
    assert_eq!(parse(NAME, Some(&nobody), None, false).unwrap().1.len(), 1);
    assert!(!passes(&nobody, "https://a.com").await);
}

#[tokio::test]
async fn a_rule_stands_alone() {
    let plugin = rule(
        NAME,
        &json!({"allow_origins": ["https://a.com"]}),
        &json!({"max_age": 5}),
    )
    .unwrap();
    let went = run(&plugin, ask("GET", &[("origin", "https://b.com")])).await;
    assert_eq!(went.status, 200);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let wrong = [
        (json!(null), "must be an object"),
        (json!({"allow_origins": "*"}), "allow_origins: must be a list"),
        (
            json!({"allow_origin_patterns": ["a", 1]}),
            "allow_origin_patterns[1]: must be a text: quote it",
        ),
        (
            json!({"allow_methods": ["G\nT"]}),
            "allow_methods: holds characters that no header can carry",
        ),
        (
            json!({"allow_headers": ["ключ"]}),
            "allow_headers: holds characters that no header can carry",
        ),
        (
            json!({"expose_headers": ["a\rb"]}),
            "expose_headers: holds characters that no header can carry",
        ),
        (
            json!({"allow_credentials": "yes"}),
            "allow_credentials: must be true or false",
        ),
        (json!({"max_age": "long"}), "max_age: must be a whole number"),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
}
