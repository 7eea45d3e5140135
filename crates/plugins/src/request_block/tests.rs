//! What is refused, in every disguise, and what is not.

use serde_json::json;
use tollgate_body::Body;

use crate::test_chain::{get, global, run, send};

const NAME: &str = "request-block";

#[tokio::test]
async fn the_documents_case() {
    let config = json!({"blocked_code": 404, "block_urls": ["password", "pw"], "case_sensitive": false});
    let plugin = global(NAME, &config).unwrap();
    for uri in [
        "/?text=Mypassword=xxxxxx",
        "/?text=pw=xxxxxx",
        "/?text=PassWord",
        "/PW",
    ] {
        let went = run(&plugin, get(uri, &[])).await;
        assert_eq!((went.status, went.body.as_str()), (404, ""), "{uri}");
        assert!(went.upstream.is_none());
    }
    assert_eq!(run(&plugin, get("/?text=Say,hello", &[])).await.status, 200);
}

#[tokio::test]
async fn no_spelling_gets_around_it() {
    let config = json!({
        "block_urls": ["password", "my secret"],
        "block_exact_urls": ["/admin"],
        "block_regexp_urls": ["/internal/.*\\.key"],
    });
    let plugin = global(NAME, &config).unwrap();
    let blocked = [
        "/?text=password",
        "/?text=p%61ssword",
        "/?text=%70%61%73%73%77%6F%72%64",
        "/?text=p%2561ssword",
        "/?text=p%252561ssword",
        // Overlong: C1 A1 is an `a`.
        "/?text=p%C1%A1ssword",
        "/?text=p%E0%81%A1ssword",
        "/?text=p%F0%80%81%A1ssword",
        "/?text=p%25C1%25A1ssword",
        "/?text=my+secret",
        "/?text=my%20secret",
        "/?text=my%2Bsecret",
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/%61dmin",
        "/%2fadmin",
        "/x/..%5cadmin",
        "/admin;x=1",
        "/internal/a.key",
        "/internal/%0A/a.key",
        "/internal/%FF.key",
        "/%69nternal/x/a%2ekey",
    ];
    for uri in blocked {
        assert_eq!(run(&plugin, get(uri, &[])).await.status, 403, "{uri}");
    }
    for uri in [
        "/?text=Password",
        "/admins",
        "/admin?x",
        "/internal/a.keys",
        "/x/internal/a.key",
        "/%zz",
        "/?a=%",
    ] {
        assert_eq!(run(&plugin, get(uri, &[])).await.status, 200, "{uri}");
    }
}

#[tokio::test]
async fn headers_by_name_and_value() {
    let config = json!({"block_headers": ["x-bad", "EvilBot"], "blocked_message": "no"});
    let plugin = global(NAME, &config).unwrap();
    let went = run(&plugin, get("/", &[("x-bad-thing", "1")])).await;
    assert_eq!(went.line(), "403 [no] ");
    assert_eq!(went.header("content-type"), "text/plain");
    assert_eq!(
        run(&plugin, get("/", &[("user-agent", "an EvilBot/1")]))
            .await
            .status,
        403
    );
    assert_eq!(
        run(&plugin, get("/EvilBot", &[])).await.status,
        403,
        ":path is a header"
    );
    assert_eq!(
        run(&plugin, get("/", &[("user-agent", "evilbot")])).await.status,
        200
    );
    let folded = global(
        NAME,
        &json!({"block_headers": ["EvilBot"], "case_sensitive": false}),
    )
    .unwrap();
    assert_eq!(
        run(&folded, get("/", &[("user-agent", "eVILbOT")])).await.status,
        403
    );
}

#[tokio::test]
async fn bodies_and_their_size() {
    let plugin = global(
        NAME,
        &json!({"block_bodies": ["Hello World"], "block_bodys": ["später"]}),
    )
    .unwrap();
    for (body, status) in [
        ("x Hello World", 403),
        ("hello world", 200),
        ("bis später", 403),
        ("", 200),
    ] {
        let went = run(&plugin, send("POST", "/", &[], body)).await;
        assert_eq!(went.status, status, "{body}");
        if let Some(upstream) = went.upstream {
            assert_eq!(upstream.body, body);
        }
    }
    let piece = bytes::Bytes::from(vec![b'a'; 1 << 20]);
    let endless = std::iter::repeat_with(move || Ok(http_body::Frame::data(piece.clone())));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(endless.take(1024)));
    let request = http::Request::post("http://gateway/")
        .body(Body::boxed(body))
        .unwrap();
    let went = run(&plugin, request).await;
    assert_eq!(went.status, 413);
    assert!(
        went.body
            .contains("body limit of request-block is 33554432 bytes"),
        "{}",
        went.body
    );
    assert!(went.upstream.is_none());
}

#[test]
fn what_is_wrong_is_told() {
    let wrong = [
        (json!({}), ": nothing to block"),
        (json!({"block_urls": [""]}), "block_urls[0]: must not be empty"),
        (json!({"block_urls": "a"}), "block_urls: must be a list"),
        (
            json!({"block_urls": ["a"], "blocked_code": 99}),
            "blocked_code: must be a status from 200 to 599",
        ),
        (
            json!({"block_regexp_urls": ["ok", "(a"]}),
            "block_regexp_urls[1]: regex parse error",
        ),
        (
            json!({"block_regexp_urls": ["a)|(b"]}),
            "block_regexp_urls[0]: regex parse error",
        ),
        (
            json!({"block_urls": ["a"], "case_sensitive": 1}),
            "case_sensitive: must be true or false",
        ),
    ];
    for (config, message) in wrong {
        let told = global(NAME, &config).err().unwrap();
        let told = if told.contains(": ") {
            told
        } else {
            format!(": {told}")
        };
        assert!(
            told.contains(message.trim_start_matches(": ")),
            "{told} for {config}"
        );
    }
}
