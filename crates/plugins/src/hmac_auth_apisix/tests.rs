//! Signatures as APISIX's clients make them, everything that is refused, and what a refusal says.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac::{Algorithm, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_body::{Body, Request};

use crate::signing::tests::sign;
use crate::test_chain::{Went, get, global, parse, rule, run, send};

type Headers<'a> = &'a [(&'a str, &'a str)];

const NAME: &str = "hmac-auth-apisix";
const SECRET: &str = "2bda943c-ba2b-11ec-ba07-00163e1250b5";

fn consumers() -> Value {
    json!({"clock_skew": 0, "consumers": [
        {"name": "consumer1", "access_key": "consumer1-key", "secret_key": SECRET},
        {"access_key": "consumer2-key", "secret_key": "c8c8e9ca-558e-4a2d-bb62-e700dcc40e35"},
    ]})
}

fn with(field: &str, value: Value) -> Value {
    let mut config = consumers();
    config[field] = value;
    config
}

fn refused(text: &str) -> String {
    let message = json!({"message": format!("client request can't be validated: {text}")});
    format!("401 [{message}] ")
}

async fn went(config: &Value, request: Request) -> Went {
    run(&global(NAME, config).unwrap(), request).await
}

fn header(algorithm: &str, headers: &str, signature: &str) -> String {
    format!(
        r#"Signature keyId="consumer1-key",algorithm="{algorithm}",headers="{headers}",signature="{signature}""#
    )
}

/// A POST that consumer1 signs over these headers; `lines` is what it signs behind its key.
fn signed(names: &str, lines: &str, headers: Headers<'_>, body: &str) -> Request {
    let signature = sign(HMAC_SHA256, SECRET, &format!("consumer1-key\n{lines}"));
    let authorization = header("hmac-sha256", names, &signature);
    let own = [("authorization", authorization.as_str())];
    send("POST", "/foo?a=1", &[&own[..], headers].concat(), body)
}

#[tokio::test]
async fn signatures_over_what_the_client_chooses() {
    let date = ("date", "Fri, 12 Sep 2025 23:53:18 GMT");
    for (names, lines, headers) in [
        (
            "@request-target date",
            "POST /foo?a=1\ndate: Fri, 12 Sep 2025 23:53:18 GMT\n",
            &[date][..],
        ),
        (
            "@request-target date x-a X-B",
            "POST /foo?a=1\ndate: Fri, 12 Sep 2025 23:53:18 GMT\nx-a: 1\nX-B: 2\n",
            &[date, ("x-a", "1"), ("x-b", "2")],
        ),
        // What is missing is left out.
        ("x-missing  host :method", "host: gateway\n:method: POST\n", &[]),
        ("", "", &[]),
    ] {
        let answer = went(&consumers(), signed(names, lines, headers, "")).await;
        assert_eq!(answer.line(), "200 [from upstream] ", "{names}");
        assert_eq!(answer.consumer.as_deref(), Some("consumer1"));
        let upstream = answer.upstream.unwrap();
        assert_eq!(upstream.header("x-mse-consumer"), "consumer1");
        assert!(
            upstream.header("authorization").starts_with("Signature "),
            "stays"
        );
    }
    // The example on the page of Higress's plugin.
    let page = header(
        "hmac-sha256",
        "@request-target date",
        "746z4VISwZehUwZdzTV486ZMMbBtakmMHKPfs/A4RdU=",
    );
    let request = |method| send(method, "/foo", &[("authorization", &page), date], "{}");
    assert_eq!(went(&consumers(), request("POST")).await.status, 200);
    assert_eq!(
        went(&consumers(), request("PUT")).await.line(),
        refused("Invalid signature")
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_header() {
    let long = "x".repeat(8192);
    for (value, text) in [
        ("", "Authorization header does not start with 'Signature '"),
        (
            "Basic YTpi",
            "Authorization header does not start with 'Signature '",
        ),
        (
            "signature keyId=\"a\"",
            "Authorization header does not start with 'Signature '",
        ),
        ("Signature ", "keyId or signature missing"),
        (&format!("Signature {long}"), "keyId or signature missing"),
        (
            "Signature keyId=consumer1-key,signature=\"x\"",
            "keyId or signature missing",
        ),
        ("Signature keyId=\"consumer1-key", "keyId or signature missing"),
        (
            "Signature keyId=\"consumer1-key\",signature=\"\",algorithm=\"hmac-sha256\"",
            "keyId or signature missing",
        ),
        (
            "Signature keyId=\"consumer1-key\",signature=\"x\"",
            "algorithm missing",
        ),
        (
            "Signature keyId=\"k\",signature=\"x\",algorithm=\"hmac-sha256\"",
            "Invalid keyId",
        ),
        (
            "Signature keyId=\"ключ\",signature=\"x\",algorithm=\"hmac-sha256\"",
            "Invalid keyId",
        ),
        (
            "Signature keyId=\"consumer1-key\",signature=\"x\",algorithm=\"none\"",
            "Invalid algorithm",
        ),
        (
            "Signature keyId=\"consumer1-key\",signature=\"x\",algorithm=\"HMAC-SHA256\"",
            "Invalid algorithm",
        ),
        (
            "Signature keyId=\"consumer1-key\",signature=\"ключ\",algorithm=\"hmac-sha256\"",
            "Invalid signature",
        ),
    ] {
        let answer = went(&consumers(), get("/", &[("authorization", value)])).await;
        assert_eq!(answer.line(), refused(text), "{value}");
        assert!(answer.upstream.is_none() && answer.consumer.is_none());
    }
    let none = went(&consumers(), get("/", &[])).await;
    assert_eq!(none.line(), refused("missing Authorization header"));
    assert_eq!(none.header("content-type"), "text/plain");
    // Of a repeated header the first counts, of a repeated field the last.
    let twice = [("authorization", "Basic YTpi"), ("authorization", "Signature ")];
    let answer = went(&consumers(), get("/", &twice)).await;
    assert_eq!(
        answer.line(),
        refused("Authorization header does not start with 'Signature '")
    );
    let fields =
        "Signature keyId=\"consumer1-key\",algorithm=\"hmac-sha256\",signature=\"x\", x, keyId=\"k\"";
    assert_eq!(
        went(&consumers(), get("/", &[("authorization", fields)]))
            .await
            .line(),
        refused("Invalid keyId")
    );
}

#[tokio::test]
async fn whoever_changes_what_is_signed_is_refused() {
    let request =
        |headers: Headers<'_>| signed("@request-target x-a", "POST /foo?a=1\nx-a: 1\n", headers, "");
    assert_eq!(went(&consumers(), request(&[("x-a", "1")])).await.status, 200);
    for headers in [
        &[][..],
        &[("x-a", "2")],
        &[("x-a", "1"), ("x-a", "1")],
        &[("x-a", "1"), ("x-a", "2")],
    ] {
        let answer = went(&consumers(), request(headers)).await;
        assert_eq!(answer.line(), refused("Invalid signature"), "{headers:?}");
    }
    let mut moved = request(&[("x-a", "1")]);
    *moved.uri_mut() = "http://gateway/foo?a=2".parse().unwrap();
    assert_eq!(
        went(&consumers(), moved).await.line(),
        refused("Invalid signature")
    );
}

#[tokio::test]
async fn algorithms_that_are_allowed() {
    let by = |name: &str, algorithm: Algorithm| {
        let signature = sign(algorithm, SECRET, "consumer1-key\n");
        get("/", &[("authorization", &header(name, "", &signature))])
    };
    let all = [
        ("hmac-sha1", HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("hmac-sha256", HMAC_SHA256),
        ("hmac-sha512", HMAC_SHA512),
    ];
    let only = with("allowed_algorithms", json!(["hmac-sha512"]));
    for (name, algorithm) in all {
        for config in [consumers(), with("allowed_algorithms", json!([]))] {
            assert_eq!(went(&config, by(name, algorithm)).await.status, 200, "{name}");
        }
        let expected = match name {
            "hmac-sha512" => "200 [from upstream] ".to_owned(),
            _ => refused("Invalid algorithm"),
        };
        assert_eq!(went(&only, by(name, algorithm)).await.line(), expected);
    }
    let other = went(&consumers(), by("hmac-sha256", HMAC_SHA512)).await;
    assert_eq!(other.line(), refused("Invalid signature"));
}

#[tokio::test]
async fn a_date_counts_within_the_skew() {
    let at = |shift: i64| {
        let apart = Duration::from_secs(shift.unsigned_abs());
        let moment: SystemTime = match shift < 0 {
            true => clock::wall() - apart,
            false => clock::wall() + apart,
        };
        httpdate::fmt_http_date(moment)
    };
    let dated = |date: &str| signed("date", &format!("date: {date}\n"), &[("date", date)], "");
    let mut config = consumers();
    config["clock_skew"] = json!(null);
    for (date, line) in [
        (at(0), "200 [from upstream] ".to_owned()),
        (at(-280), "200 [from upstream] ".to_owned()),
        (at(280), "200 [from upstream] ".to_owned()),
        (at(-320), refused("Clock skew exceeded")),
        (at(320), refused("Clock skew exceeded")),
        ("yesterday".to_owned(), refused("Invalid GMT format time")),
        // Only the one form of a date.
        (
            "Friday, 12-Sep-25 23:53:18 GMT".to_owned(),
            refused("Invalid GMT format time"),
        ),
        (
            "Fri, 12 Sep 2025 23:53:18 UTC".to_owned(),
            refused("Invalid GMT format time"),
        ),
        (
            String::new(),
            refused("Date header missing. failed to validate clock skew"),
        ),
    ] {
        assert_eq!(went(&config, dated(&date)).await.line(), line, "{date}");
    }
    let missing = went(&config, signed("", "", &[], "")).await;
    assert_eq!(
        missing.line(),
        refused("Date header missing. failed to validate clock skew")
    );
    for off in [json!(0), json!(-1)] {
        config["clock_skew"] = off;
        assert_eq!(went(&config, signed("", "", &[], "")).await.status, 200);
    }
}

#[tokio::test]
async fn headers_that_must_be_signed() {
    let config = with("signed_headers", json!(["X-Custom-A", "@request-target"]));
    for (names, lines, line) in [
        (
            "@request-target x-custom-a",
            "POST /foo?a=1\nx-custom-a: 1\n",
            "200 [from upstream] ".to_owned(),
        ),
        ("", "", refused("headers missing")),
        (" ", "", refused("headers missing")),
        (
            "@request-target",
            "",
            refused("expected header \"X-Custom-A\" missing in signing"),
        ),
        (
            "x-custom-a",
            "",
            refused("expected header \"@request-target\" missing in signing"),
        ),
    ] {
        let answer = went(&config, signed(names, lines, &[("x-custom-a", "1")], "")).await;
        assert_eq!(answer.line(), line, "{names}");
    }
}

#[tokio::test]
async fn bodies_have_the_digest_that_they_are_said_to_have() {
    let config = with("validate_request_body", json!(true));
    let digest = "SHA-256=RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=";
    let answer = went(&config, signed("", "", &[("digest", digest)], "{}")).await;
    let upstream = answer.upstream.unwrap();
    assert_eq!(
        (upstream.body, answer.consumer.as_deref()),
        ("{}".into(), Some("consumer1"))
    );
    for headers in [
        &[][..],
        &[("digest", "")],
        &[("digest", &digest[8..])],
        &[("digest", digest), ("digest", digest)],
    ] {
        let answer = went(&config, signed("", "", headers, "{}")).await;
        assert_eq!(answer.line(), refused("Invalid digest"), "{headers:?}");
        assert_eq!(answer.consumer, None, "nobody has been recognised");
    }
    let other = went(&config, signed("", "", &[("digest", digest)], "{ }")).await;
    assert_eq!(other.line(), refused("Invalid digest"));
    assert_eq!(
        went(&config, signed("", "", &[], "")).await.status,
        200,
        "no body"
    );
    assert_eq!(
        went(&consumers(), signed("", "", &[], "{}")).await.status,
        200,
        "nobody asks"
    );
}

#[tokio::test]
async fn a_large_body_is_not_kept() {
    let piece = bytes::Bytes::from(vec![b'a'; 1 << 20]);
    let endless = std::iter::repeat_with(move || Ok(http_body::Frame::data(piece.clone())));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(endless.take(1024)));
    let mut request = signed("", "", &[], "");
    *request.body_mut() = Body::boxed(body);
    let answer = went(&with("validate_request_body", json!(true)), request).await;
    assert_eq!(answer.status, 413);
    assert!(
        answer.body.contains("body limit of hmac-auth-apisix"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn credentials_stay_here_where_that_is_wanted() {
    let answer = went(&with("hide_credentials", json!(true)), signed("", "", &[], "")).await;
    assert_eq!(answer.upstream.unwrap().header("authorization"), "");
    let answer = went(&consumers(), signed("", "", &[], "")).await;
    let mut sent = signed("", "", &[], "");
    answer.exchange.remove_credentials(&mut sent);
    assert!(!sent.headers().contains_key("authorization"), "no vendor gets it");
}

#[tokio::test]
async fn somebody_without_known_credentials() {
    let config = with("anonymous_consumer", json!("guest"));
    let unknown = "Signature keyId=\"k\",signature=\"x\",algorithm=\"hmac-sha256\"";
    for headers in [
        &[][..],
        &[("authorization", "Basic YTpi")],
        &[("authorization", unknown)],
    ] {
        let answer = went(&config, get("/", headers)).await;
        assert_eq!(
            (answer.status, answer.consumer.as_deref()),
            (200, Some("guest")),
            "{headers:?}"
        );
        assert_eq!(answer.upstream.unwrap().header("x-mse-consumer"), "guest");
    }
    // Who says who it is must prove it.
    let wrong = header("hmac-sha256", "", "x");
    let answer = went(&config, get("/", &[("authorization", &wrong)])).await;
    assert_eq!(answer.line(), refused("Invalid signature"));
    let listed = rule(NAME, &config, &json!({"allow": ["consumer1"]})).unwrap();
    assert_eq!(
        run(&listed, get("/", &[])).await.line(),
        refused("consumer 'guest' is not allowed")
    );
    assert!(!listed.admits(None) && listed.admits(Some("consumer1")));
    assert!(global(NAME, &config).unwrap().admits(None));
}

#[tokio::test]
async fn rules_and_their_lists() {
    let second = || {
        let signature = sign(
            HMAC_SHA256,
            "c8c8e9ca-558e-4a2d-bb62-e700dcc40e35",
            "consumer2-key\n",
        );
        let value = header("hmac-sha256", "", &signature).replace("consumer1", "consumer2");
        get("/", &[("authorization", &value)])
    };
    for (config, line) in [
        (
            json!({"allow": ["consumer2-key"]}),
            "200 [from upstream] ".to_owned(),
        ),
        (
            json!({"allow": ["consumer1"]}),
            refused("consumer 'consumer2-key' is not allowed"),
        ),
        (json!({"allow": []}), "200 [from upstream] ".to_owned()),
        (json!({}), "200 [from upstream] ".to_owned()),
    ] {
        for global_auth in [json!(true), json!(false), json!(null)] {
            let plugin = rule(NAME, &with("global_auth", global_auth.clone()), &config).unwrap();
            assert_eq!(
                run(&plugin, second()).await.line(),
                line,
                "{config} {global_auth}"
            );
            assert_eq!(
                run(&plugin, get("/", &[])).await.status,
                401,
                "{config} {global_auth}"
            );
        }
    }
    for (global_auth, has_rules, asked) in [
        (json!(null), false, true),
        (json!(null), true, false),
        (json!(true), true, true),
        (json!(false), false, false),
    ] {
        let plugin = parse(
            NAME,
            Some(&with("global_auth", global_auth.clone())),
            None,
            has_rules,
        )
        .unwrap()
        .0;
        assert_eq!(
            run(&plugin, get("/", &[])).await.status == 401,
            asked,
            "{global_auth} {has_rules}"
        );
    }
    let plugin = rule(NAME, &consumers(), &json!({})).unwrap();
    assert!(plugin.admits(Some("consumer1")) && !plugin.admits(None));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let entry = json!({"access_key": "k", "secret_key": "s3cret"});
    let wrong = [
        (json!([]), "must be an object"),
        (json!({}), "consumers: at least one is required"),
        (json!({"consumers": []}), "consumers: at least one is required"),
        (
            json!({"consumers": [{"secret_key": "s"}]}),
            "consumers[0].access_key: is required",
        ),
        (
            json!({"consumers": [{"access_key": "k", "secret_key": ""}]}),
            "consumers[0].secret_key: is required",
        ),
        (
            json!({"consumers": [{"access_key": "k", "secret_key": 7}]}),
            "consumers[0].secret_key: must be a text: quote it",
        ),
        (
            json!({"consumers": [entry, entry]}),
            "consumers[1].access_key: the key \"k\" stands here twice",
        ),
        (
            json!({"consumers": [entry, {"name": "a\nb", "access_key": "l", "secret_key": "s"}]}),
            "consumers[1].name: cannot be sent in a header",
        ),
        (
            json!({"consumers": [entry], "anonymous_consumer": "a\nb"}),
            "anonymous_consumer: cannot be sent in a header",
        ),
        (
            json!({"consumers": [entry], "allowed_algorithms": ["hmac-sha256", "md5"]}),
            "allowed_algorithms[1]: must be hmac-sha1, hmac-sha256 or hmac-sha512",
        ),
        (
            json!({"consumers": [entry], "signed_headers": ["a", "b c"]}),
            "signed_headers[1]: is no name of a header",
        ),
        (
            json!({"consumers": [entry], "clock_skew": "x"}),
            "clock_skew: must be a whole number",
        ),
        (
            json!({"consumers": [entry], "hide_credentials": 1}),
            "hide_credentials: must be true or false",
        ),
        (
            json!({"consumers": [entry], "validate_request_body": "no"}),
            "validate_request_body: must be true or false",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let twice = json!({"consumers": [entry, {"access_key": "l", "secret_key": "t", "name": "k"}]});
    let warned = parse(NAME, Some(&twice), None, false).unwrap().1;
    assert_eq!(
        warned,
        ["consumers[1].name: another consumer is called \"k\" too: its keys are the same consumer's"]
    );
}
