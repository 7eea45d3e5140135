//! Who gets in with a name and a password, as whom, and what a refusal says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tollgate_body::Request;

use crate::test_chain::{Went, get, global, parse, rule, run};

const NAME: &str = "basic-auth";
const NONE: &str = "401 [] Request_denied_by_Basic_Auth_check._No_Basic_Authentication_information_found.";
const INVALID: &str = "401 [] Request_denied_by_Basic_Auth_check._Invalid_username_and/or_password";
const UNAUTHORIZED: &str = "403 [] Request_denied_by_Basic_Auth_check._Unauthorized_consumer";

fn consumers() -> Value {
    json!({"consumers": [
        {"name": "consumer1", "credential": "admin:123456"},
        // admin3:admin3
        {"name": "consumer2", "credential": "YWRtaW4zOmFkbWluMw=="},
        {"name": "consumer3", "credential": "böse:a:b"},
    ]})
}

/// `secret` for everybody, hashed in several ways.
fn hashed() -> Value {
    json!({"encrypted": true, "consumers": [
        {"name": "bcrypt", "credential": "b:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"},
        {"name": "apr1", "credential": "a:$apr1$x$12YdXEY0/hH4rDNkmZupO0"},
        {"name": "sha", "credential": "s:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="},
        {"name": "colon", "credential": "c:{PLAIN}x"},
    ]})
}

fn presented(credentials: &str) -> Request {
    let value = format!("Basic {}", STANDARD.encode(credentials));
    get("/", &[("authorization", &value)])
}

async fn went(config: &Value, request: Request) -> Went {
    run(&global(NAME, config).unwrap(), request).await
}

#[tokio::test]
async fn who_is_known_comes_in_under_its_name() {
    for (credentials, consumer) in [
        ("admin:123456", "consumer1"),
        ("admin3:admin3", "consumer2"),
        ("böse:a:b", "consumer3"),
    ] {
        let answer = went(&consumers(), presented(credentials)).await;
        assert_eq!(answer.line(), "200 [from upstream] ", "{credentials}");
        assert_eq!(answer.consumer.as_deref(), Some(consumer));
        let upstream = answer.upstream.unwrap();
        assert_eq!(upstream.header("x-mse-consumer"), consumer);
        assert!(upstream.header("authorization").starts_with("Basic "), "it stays");
        let mut sent = presented(credentials);
        answer.exchange.remove_credentials(&mut sent);
        assert!(!sent.headers().contains_key("authorization"), "no vendor gets it");
    }
}

#[tokio::test]
async fn everybody_else_is_told_what_is_missing() {
    let long = format!("Basic {}", "A".repeat(8192));
    for (value, line) in [
        ("", NONE),
        ("Bearer xxx", NONE),
        ("basic YWRtaW46MTIzNDU2", NONE),
        ("Basic", NONE),
        ("BasicYWRtaW46MTIzNDU2", NONE),
        ("Basic x", INVALID),
        ("Basic  YWRtaW46MTIzNDU2", INVALID),
        ("Basic YWRtaW46MTIzNDU3", INVALID),
        ("Basic admin:123456", INVALID),
        ("Basic ключ", INVALID),
        (&long, INVALID),
    ] {
        for config in [consumers(), hashed()] {
            let answer = went(&config, get("/", &[("authorization", value)])).await;
            assert_eq!(answer.line(), line, "{value}");
            assert_eq!(answer.header("www-authenticate"), "Basic realm=MSE Gateway");
            assert_eq!(answer.header("content-type"), "");
            assert!(answer.upstream.is_none() && answer.consumer.is_none());
        }
    }
    assert_eq!(went(&consumers(), get("/", &[])).await.line(), NONE);
    // Of a repeated header the first counts.
    let right = "Basic YWRtaW46MTIzNDU2";
    let first = get("/", &[("authorization", right), ("authorization", "Basic x")]);
    assert_eq!(went(&consumers(), first).await.status, 200);
    let second = get("/", &[("authorization", "Basic x"), ("authorization", right)]);
    assert_eq!(went(&consumers(), second).await.line(), INVALID);
    let mut config = consumers();
    config["realm"] = json!("here");
    let answer = went(&config, get("/", &[])).await;
    assert_eq!(answer.header("www-authenticate"), "Basic realm=here");
}

#[tokio::test]
async fn passwords_that_are_known_as_hashes() {
    let plugin = global(NAME, &hashed()).unwrap();
    // Twice: the second time they are remembered.
    for _ in 0..2 {
        for (user, consumer) in [("b", "bcrypt"), ("a", "apr1"), ("s", "sha")] {
            let answer = run(&plugin, presented(&format!("{user}:secret"))).await;
            assert_eq!(answer.consumer.as_deref(), Some(consumer));
        }
        let long = format!("b:{}", "x".repeat(4096));
        for wrong in [
            "b:secret2",
            "a:",
            "s:Secret",
            "nobody:secret",
            ":secret",
            "bsecret",
            "a:secret:",
            "b",
            "",
            &long,
        ] {
            assert_eq!(run(&plugin, presented(wrong)).await.line(), INVALID, "{wrong}");
        }
    }
    let unpadded = get("/", &[("authorization", "Basic czpzZWNyZXQ")]);
    assert_eq!(run(&plugin, unpadded).await.status, 200);
    // What is right for one is wrong for another.
    assert_eq!(run(&plugin, presented("c:secret")).await.line(), INVALID);
    assert_eq!(run(&plugin, presented("c:x")).await.status, 200);
}

#[tokio::test]
async fn a_password_may_have_colons() {
    let config = json!({"encrypted": true, "credentials": ["u:{SHA}3OptnM09ILoVSfbZtd3mB0IViII="]});
    assert_eq!(went(&config, presented("u:a:b")).await.status, 200);
}

#[tokio::test]
async fn rules_and_their_lists() {
    for (allow, line) in [
        (json!({"allow": ["consumer1"]}), "200 [from upstream] "),
        (json!({"allow": ["consumer2"]}), UNAUTHORIZED),
        // Unlike key-auth's.
        (json!({"allow": []}), "200 [from upstream] "),
        (json!({}), "200 [from upstream] "),
    ] {
        let plugin = rule(NAME, &consumers(), &allow).unwrap();
        let answer = run(&plugin, presented("admin:123456")).await;
        assert_eq!(answer.line(), line, "{allow}");
        if answer.status == 403 {
            assert_eq!(answer.header("www-authenticate"), "Basic realm=MSE Gateway");
            assert_eq!(answer.consumer, None);
        }
        assert_eq!(run(&plugin, get("/", &[])).await.line(), NONE, "{allow}");
    }
    let anonymous = json!({"credentials": ["ok:test", "YWRtaW4zOmFkbWluMw=="]});
    for credentials in ["ok:test", "admin3:admin3"] {
        let answer = went(&anonymous, presented(credentials)).await;
        assert_eq!((answer.status, answer.consumer), (200, None));
    }
    let named = rule(NAME, &anonymous, &json!({"allow": ["x"]})).unwrap();
    assert_eq!(run(&named, presented("ok:test")).await.line(), UNAUTHORIZED);
    let own = rule(NAME, &consumers(), &anonymous).unwrap();
    assert_eq!(run(&own, presented("admin:123456")).await.line(), INVALID);
    for (global_auth, has_rules, asked) in [
        (json!(null), false, true),
        (json!(null), true, false),
        (json!(true), true, true),
        (json!(false), true, false),
    ] {
        let mut config = consumers();
        config["global_auth"] = global_auth.clone();
        let plugin = parse(NAME, Some(&config), None, has_rules).unwrap().0;
        assert_eq!(
            run(&plugin, get("/", &[])).await.status == 401,
            asked,
            "{global_auth} {has_rules}"
        );
    }
    let listed = rule(NAME, &consumers(), &json!({"allow": ["consumer1"]})).unwrap();
    assert!(listed.admits(Some("consumer1")) && !listed.admits(Some("consumer2")) && !listed.admits(None));
    let all = rule(NAME, &consumers(), &json!({"allow": []})).unwrap();
    assert!(all.admits(Some("consumer2")) && !all.admits(None));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let one = |credential: Value| json!({"consumers": [{"name": "a", "credential": credential}]});
    let encrypted = |credential: &str| json!({"encrypted": true, "credentials": [credential]});
    let wrong = [
        (json!([]), "must be an object"),
        (json!({}), "consumers: consumers or credentials are required"),
        (json!({"consumers": []}), "consumers: at least one is required"),
        (json!({"credentials": []}), "consumers: at least one is required"),
        (
            json!({"consumers": [], "credentials": ["a:b"]}),
            "credentials: cannot stand next to consumers",
        ),
        (
            json!({"consumers": [{"name": "a", "credential": "u:s3cret"}, {"name": "b", "credential": "u:s3cret"}]}),
            "consumers[1].credential: the same credential stands here twice",
        ),
        // In either spelling.
        (
            json!({"credentials": ["admin3:admin3", "YWRtaW4zOmFkbWluMw=="]}),
            "credentials[1]: the same credential stands here twice",
        ),
        (
            json!({"consumers": [{"credential": "a:b"}]}),
            "consumers[0].name: is required",
        ),
        (
            json!({"consumers": [{"name": "a"}]}),
            "consumers[0].credential: is required",
        ),
        (one(json!(7)), "consumers[0].credential: must be a text: quote it"),
        (
            one(json!("no base64!")),
            "consumers[0].credential: must be user:password, or the base64 of that",
        ),
        (
            json!({"credentials": [7]}),
            "credentials[0]: must be a text: quote it",
        ),
        (
            json!({"credentials": ["a:b"], "realm": "a\nb"}),
            "realm: cannot be sent in a header",
        ),
        (
            json!({"credentials": ["a:b"], "encrypted": "yes"}),
            "encrypted: must be true or false",
        ),
        (
            encrypted("user"),
            "credentials[0]: must be user:hash, with one colon",
        ),
        (
            encrypted("user:{PLAIN}a:b"),
            "credentials[0]: must be user:hash, with one colon",
        ),
        (encrypted("user:$1$x"), "credentials[0]: the hash is not whole"),
        (
            json!({"encrypted": true, "credentials": ["u:{PLAIN}a", "u:{PLAIN}b"]}),
            "credentials[1]: the same user stands here twice",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let mut twice = consumers();
    twice["consumers"][1]["name"] = json!("consumer1");
    let warned = parse(NAME, Some(&twice), None, false).unwrap().1;
    assert_eq!(
        warned,
        ["consumers[1].name: another consumer is called \"consumer1\" too: its keys are the same consumer's"]
    );
}
