//! The plugin through its front door.

use serde_json::json;
use tollgate_base::clock;

use crate::jwt::signing::Signer;
use crate::test_chain::{get, global, parse, run};

const NAME: &str = "simple-jwt-auth";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const REFUSED: &str = r#"401 [{"code":401,"msg":"认证失败"}] "#;

#[tokio::test]
async fn a_token_of_the_secret_gets_in() {
    let config = json!({"token_secret_key": SECRET, "token_headers": "Token"});
    let plugin = global(NAME, &config).unwrap();
    let now = clock::unix_seconds();
    for algorithm in ["HS256", "HS384", "HS512"] {
        let signer = Signer::with_secret(algorithm, SECRET.as_bytes());
        for (claims, gets_in) in [
            (json!({}), true),
            (json!({"exp": now + 60, "nbf": now, "iat": now}), true),
            (json!({"exp": now - 2}), false),
            (json!({"nbf": now + 60}), false),
            (json!({"iat": now + 60}), false),
            (json!({"exp": "never"}), false),
        ] {
            let token = signer.token(&claims);
            let went = run(&plugin, get("/", &[("token", &token)])).await;
            assert_eq!(went.status == 200, gets_in, "{claims}");
            assert!(went.consumer.is_none());
            match went.upstream {
                Some(upstream) => assert_eq!(upstream.header("token"), token, "it stays"),
                None => assert_eq!(went.line(), REFUSED),
            }
        }
    }
}

#[tokio::test]
async fn anything_else_does_not() {
    let plugin = global(
        NAME,
        &json!({"token_secret_key": SECRET, "token_headers": "token"}),
    )
    .unwrap();
    let good = Signer::with_secret("HS256", SECRET.as_bytes()).token(&json!({}));
    let foreign = Signer::secret("HS256", 7).token(&json!({}));
    let other_kind = Signer::edwards().token(&json!({}));
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let behind_bearer = format!("Bearer {good}");
    let in_query = format!("/?token={good}");
    for (uri, headers) in [
        ("/", vec![]),
        (in_query.as_str(), vec![]),
        ("/", vec![("token", "")]),
        ("/", vec![("token", "not a token")]),
        ("/", vec![("token", "ключ")]),
        ("/", vec![("token", behind_bearer.as_str())]),
        ("/", vec![("token", foreign.as_str())]),
        ("/", vec![("token", other_kind.as_str())]),
        ("/", vec![("token", unsigned.as_str())]),
        ("/", vec![("token", good.as_str()), ("token", good.as_str())]),
    ] {
        let went = run(&plugin, get(uri, &headers)).await;
        assert_eq!(went.line(), REFUSED, "{headers:?}");
        assert_eq!(went.header("content-type"), "text/plain");
    }
}

#[tokio::test]
async fn a_config_that_lacks_something_lets_nobody_in() {
    for (config, warning) in [
        (
            json!({"token_headers": "token"}),
            "token_secret_key: is empty: nobody gets in",
        ),
        (
            json!({"token_secret_key": SECRET}),
            "token_headers: is empty: nobody gets in",
        ),
    ] {
        let (plugin, warnings) = parse(NAME, Some(&config), None, false).unwrap();
        assert_eq!(warnings, [warning]);
        let went = run(&plugin, get("/", &[("token", "x")])).await;
        assert_eq!(
            went.line(),
            r#"401 [{"code":400,"msg":"token or secret 不允许为空"}] "#
        );
    }
    let short = json!({"token_secret_key": "s3cret", "token_headers": "token"});
    assert_eq!(
        parse(NAME, Some(&short), None, false).unwrap().1,
        ["token_secret_key: is shorter than 32 bytes: it can be guessed from a token"]
    );
    for (config, message) in [
        (json!([]), "must be an object"),
        (
            json!({"token_secret_key": 1}),
            "token_secret_key: must be a text: quote it",
        ),
        (
            json!({"token_secret_key": "a", "token_headers": "a b"}),
            "token_headers: is no name of a header",
        ),
    ] {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message));
    }
}
