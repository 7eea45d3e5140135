//! Signatures that Higress's plugin accepts, everything that it and we refuse, and what a refusal says.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_body::{Body, Request};

use super::dates::is_fresh;
use crate::signing::tests::sign;
use crate::test_chain::{Went, get, global, parse, rule, run, send};

type Headers<'a> = &'a [(&'a str, &'a str)];

const NAME: &str = "hmac-auth";

fn consumers() -> Value {
    json!({"consumers": [
        {"name": "consumer", "key": "appKey", "secret": "appSecret"},
        {"name": "other", "key": "otherKey", "secret": "otherSecret"},
    ]})
}

/// A request that Higress's own tests send, with its signature.
const SIGNED: [(&str, &str); 7] = [
    ("accept", "application/json"),
    ("content-type", "application/json"),
    ("x-ca-timestamp", "1646365291734"),
    ("x-ca-nonce", "787dd0c2-7bd8-41cd-9c19-62c05ea524a2"),
    ("x-ca-key", "appKey"),
    ("x-ca-signature-headers", "x-ca-key,x-ca-nonce,x-ca-timestamp"),
    ("x-ca-signature", "EdJSFAMOWyXZOpXhevZnjuS0ZafnwnCqaSk5hz+tXo8="),
];

fn changed<'a>(headers: Headers<'a>, name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let put = |header: &(&'a str, &'a str)| {
        if header.0 == name {
            (header.0, value)
        } else {
            *header
        }
    };
    headers.iter().map(put).collect()
}

fn without<'a>(headers: Headers<'a>, name: &str) -> Vec<(&'a str, &'a str)> {
    headers
        .iter()
        .copied()
        .filter(|header| header.0 != name)
        .collect()
}

async fn went(config: &Value, request: Request) -> Went {
    run(&global(NAME, config).unwrap(), request).await
}

/// A GET of `uri` as `appKey`, signed over this text.
fn over(uri: &str, text: &str, headers: Headers<'_>) -> Request {
    let signature = sign(HMAC_SHA256, "appSecret", text);
    let own = [("x-ca-key", "appKey"), ("x-ca-signature", &signature)];
    get(uri, &[&own[..], headers].concat())
}

#[tokio::test]
async fn signatures_that_higress_accepts() {
    let signed = get("/Third/Tools/checkSign", &SIGNED);
    let answer = went(&consumers(), signed).await;
    assert_eq!(answer.line(), "200 [from upstream] ");
    assert_eq!(answer.consumer.as_deref(), Some("consumer"));
    let upstream = answer.upstream.unwrap();
    assert_eq!(upstream.header("x-mse-consumer"), "consumer");
    assert_eq!(upstream.header("x-ca-key"), "appKey", "what was sent stays");
    let bare = [
        ("accept", "application/json"),
        ("x-ca-key", "appKey"),
        ("x-ca-signature", "ZpJhkHdtjLTJiR6CJWHL8ikLtPB2z6CoztG21wG3PT4="),
    ];
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &bare))
            .await
            .status,
        200
    );
    let form = [
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-ca-timestamp", "1646646682418"),
        ("x-ca-nonce", "ca5a6753-b76c-4fff-a9d9-e5bb643e8cdf"),
        ("x-ca-key", "appKey"),
        ("x-ca-signature-headers", "x-ca-key,x-ca-nonce,x-ca-timestamp"),
        ("x-ca-signature", "gmf9xq0hc95Hmt+7G+OocS009ka3v1v0rvfshKzYc3w="),
    ];
    let body = "nickname=nickname&room_id=6893&uuid=uuid&photo=photo";
    let posted = |body: &str| send("POST", "/Third/User/getNyAccessToken", &form, body);
    let answer = went(&consumers(), posted(body)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.upstream.unwrap().body, body, "the body goes on");
    for other in ["", "nickname=other&room_id=6893&uuid=uuid&photo=photo"] {
        assert_eq!(went(&consumers(), posted(other)).await.status, 400, "{other}");
    }
}

#[tokio::test]
async fn whoever_changes_what_is_signed_is_refused() {
    let paths = [
        "/Third/Tools/checkSign?a=1",
        "/Third/Tools/checkSig",
        "//Third/Tools/checkSign",
    ];
    for path in paths {
        let answer = went(&consumers(), get(path, &SIGNED)).await;
        assert_eq!(
            answer.line(),
            "400 [Invalid Signature] Invalid_Signature",
            "{path}"
        );
    }
    let posted = send("POST", "/Third/Tools/checkSign", &SIGNED, "");
    assert_eq!(went(&consumers(), posted).await.status, 400);
    let long = "A".repeat(8192);
    for (name, value) in [
        ("accept", "text/html"),
        ("content-type", "text/plain"),
        ("x-ca-timestamp", "1646365291735"),
        ("x-ca-nonce", ""),
        ("x-ca-signature-headers", "x-ca-key,x-ca-nonce"),
        ("x-ca-signature", "EdJSFAMOWyXZOpXhevZnjuS0ZafnwnCqaSk5hz+tXo8"),
        ("x-ca-signature", "edJSFAMOWyXZOpXhevZnjuS0ZafnwnCqaSk5hz+tXo8="),
        ("x-ca-signature", "ключ"),
        ("x-ca-signature", &long),
        // Another's key does not fit.
        ("x-ca-key", "otherKey"),
    ] {
        let headers = changed(&SIGNED, name, value);
        let answer = went(&consumers(), get("/Third/Tools/checkSign", &headers)).await;
        assert_eq!(
            answer.line(),
            "400 [Invalid Signature] Invalid_Signature",
            "{name}: {value}"
        );
        assert!(
            answer.upstream.is_none() && answer.consumer.is_none(),
            "nobody has been recognised"
        );
    }
    let sha1 = [&SIGNED[..], &[("x-ca-signature-method", "HmacSHA1")]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &sha1))
            .await
            .status,
        400
    );
    let dated = [&SIGNED[..], &[("date", "Fri, 04 Mar 2022 03:41:31 GMT")]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &dated))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_key_and_a_signature_are_needed() {
    let long = "k".repeat(8192);
    for key in ["", "nobody", "appkey", "appKey,otherKey", "ключ", &long] {
        let headers = changed(&SIGNED, "x-ca-key", key);
        let answer = went(&consumers(), get("/Third/Tools/checkSign", &headers)).await;
        assert_eq!(answer.line(), "401 [Invalid Key] Invalid_Key", "{key}");
    }
    let none = went(&consumers(), get("/Third/Tools/checkSign", &[])).await;
    assert_eq!(none.line(), "401 [Invalid Key] Invalid_Key");
    assert_eq!(none.header("content-type"), "text/plain");
    for headers in [
        changed(&SIGNED, "x-ca-signature", ""),
        without(&SIGNED, "x-ca-signature"),
    ] {
        let answer = went(&consumers(), get("/Third/Tools/checkSign", &headers)).await;
        assert_eq!(answer.line(), "401 [Empty Signature] Empty_Signature");
    }
    // Of a repeated key or signature the first counts.
    let second = [&[("x-ca-signature", "x")], &SIGNED[..]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &second))
            .await
            .status,
        400
    );
    let first = [&SIGNED[..], &[("x-ca-signature", "x")]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &first))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_signed_header_stands_there_once() {
    let repeated = [
        &SIGNED[..],
        &[("x-ca-nonce", "787dd0c2-7bd8-41cd-9c19-62c05ea524a2")],
    ]
    .concat();
    let answer = went(&consumers(), get("/Third/Tools/checkSign", &repeated)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.header("x-ca-error-message"),
        "`x-ca-nonce` stands in the request more than once"
    );
    let accept = [&SIGNED[..], &[("accept", "text/html")]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &accept))
            .await
            .status,
        400
    );
    // One that is not signed may.
    let free = [&SIGNED[..], &[("x-a", "1"), ("x-a", "2")]].concat();
    assert_eq!(
        went(&consumers(), get("/Third/Tools/checkSign", &free))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn parameters_are_signed_in_order_and_decoded() {
    for (uri, signed) in [
        ("/p?b=2&a=1", "/p?a=1&b=2"),
        ("/p?b=%C3%BC&a=1%202+3", "/p?a=1 2+3&b=ü"),
        ("/p?%61=1", "/p?a=1"),
        // The first of a name counts.
        ("/p?a=1&a=2", "/p?a=1"),
        // Without a value, as the page says and as Higress does.
        ("/p?b&a=", "/p?a&b"),
        ("/p?b&a=", "/p?a=&b="),
        ("/p?", "/p"),
        ("/p?&&a=1&", "/p?a=1"),
        ("/p", "/p"),
    ] {
        let answer = went(&consumers(), over(uri, &format!("GET\n\n\n\n\n{signed}"), &[])).await;
        assert_eq!(
            answer.status,
            200,
            "{uri} {signed} {}",
            answer.header("x-ca-error-message")
        );
    }
    for (uri, signed) in [
        ("/p?a=2&a=1", "/p?a=1"),
        ("/p?a=1", "/p?a=1&b=2"),
        ("/p?b&a=", "/p?a=&b"),
    ] {
        let answer = went(&consumers(), over(uri, &format!("GET\n\n\n\n\n{signed}"), &[])).await;
        assert_eq!(answer.status, 400, "{uri} {signed}");
    }
}

#[tokio::test]
async fn listed_headers_are_sorted_and_the_fixed_ones_left_out() {
    let listed = "X-B, accept ,x-ca-signature,,X-Ca-Signature-Headers,x-a,x-missing,host,:path,:method";
    let headers = [
        ("x-a", "1"),
        ("x-b", "2"),
        ("accept", "a/b"),
        ("x-ca-signature-headers", listed),
    ];
    let text = "GET\na/b\n\n\n\n:path:/p\nhost:gateway\nx-a:1\nx-b:2\nx-missing:\n/p";
    assert_eq!(went(&consumers(), over("/p", text, &headers)).await.status, 200);
}

#[tokio::test]
async fn the_older_hash_works_where_a_client_says_so() {
    let signature = sign(HMAC_SHA1_FOR_LEGACY_USE_ONLY, "appSecret", "GET\n\n\n\n\n/p");
    for (method, status) in [
        ("HmacSHA1", 200),
        ("HmacSHA256", 400),
        ("hmacsha1", 400),
        ("", 400),
    ] {
        let headers = [
            ("x-ca-key", "appKey"),
            ("x-ca-signature", &signature),
            ("x-ca-signature-method", method),
        ];
        assert_eq!(
            went(&consumers(), get("/p", &headers)).await.status,
            status,
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_client_is_told_what_was_signed_here() {
    let answer = went(
        &consumers(),
        over("/p?b=2&a=%0A%01", "wrong", &[("accept", "a/ü")]),
    )
    .await;
    assert_eq!(
        answer.header("x-ca-error-message"),
        "Server StringToSign:`GET#a/ü####/p?a=##&b=2`"
    );
    let long = format!("/p?a={}", "x".repeat(20_000));
    let answer = went(&consumers(), over(&long, "wrong", &[])).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("x-ca-error-message").len(), 22 + 4096);
}

#[tokio::test]
async fn bodies_have_the_digest_that_they_are_said_to_have() {
    // MD5 of "abc".
    let digest = "kAFQmDzST7DWlj99KOF/cg==";
    let posted = |md5: &str, body: &str| {
        let signature = sign(HMAC_SHA256, "appSecret", &format!("POST\n\n{md5}\n\n\n/p"));
        let headers = [
            ("x-ca-key", "appKey"),
            ("x-ca-signature", &signature),
            ("content-md5", md5),
        ];
        send("POST", "/p", &headers, body)
    };
    let answer = went(&consumers(), posted(digest, "abc")).await;
    assert_eq!(answer.upstream.unwrap().body, "abc");
    for (md5, body) in [
        (digest, "abd"),
        // The digest of nothing.
        ("1B2M2Y8AsgTpgAmY7PhCfg==", ""),
        (digest, ""),
        ("kAFQmDzST7DWlj99KOF/cg", "abc"),
        ("ключ", "abc"),
    ] {
        let answer = went(&consumers(), posted(md5, body)).await;
        assert_eq!(
            answer.line(),
            "400 [Invalid Content-MD5] Invalid_Content-MD5",
            "{md5} {body}"
        );
    }
    assert_eq!(
        went(&consumers(), posted("", "anything")).await.status,
        200,
        "empty is none"
    );
}

#[tokio::test]
async fn a_large_body_is_not_kept() {
    let piece = bytes::Bytes::from(vec![b'a'; 1 << 20]);
    let endless = std::iter::repeat_with(move || Ok(http_body::Frame::data(piece.clone())));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(endless.take(1024)));
    let mut request = get(
        "/p",
        &changed(
            &SIGNED,
            "content-type",
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        ),
    );
    *request.body_mut() = Body::boxed(body);
    let answer = went(&consumers(), request).await;
    assert_eq!(
        answer.line(),
        "413 [Request Body Too Large] Request_Body_Too_Large"
    );
}

#[test]
fn a_date_counts_within_the_offset() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let hour = Duration::from_secs(3600);
    let date: Headers<'_> = &[
        ("date", "Wed, 09 May 2018 13:30:29 GMT+00:00"),
        ("x-ca-timestamp", "1"),
    ];
    let plain: Headers<'_> = &[("date", "Wed, 09 May 2018 13:30:29 GMT")];
    let older: Headers<'_> = &[("date", "Wednesday, 09-May-18 13:30:29 GMT")];
    let listed = ("x-ca-signature-headers", "x-ca-timestamp");
    let milliseconds: Headers<'_> = &[("x-ca-timestamp", "1525872629000"), listed];
    let seconds: Headers<'_> = &[("x-ca-timestamp", "1525872629"), listed];
    for headers in [date, plain, older, milliseconds, seconds] {
        let request = get("/", headers);
        for (now, fresh) in [
            (1_525_876_229, true),
            (1_525_876_230, false),
            (1_525_869_029, true),
            (1_525_869_028, false),
        ] {
            assert_eq!(is_fresh(&request, at(now), hour), fresh, "{headers:?} {now}");
        }
    }
    let never: [Headers<'_>; 8] = [
        &[],
        &[("date", "yesterday")],
        &[("date", ""), ("x-ca-timestamp", "")],
        &[("x-ca-timestamp", "-1"), listed],
        &[("x-ca-timestamp", "18446744073709551615"), listed],
        &[("x-ca-timestamp", "99999999999999999999999"), listed],
        // A bad date is not made good by a timestamp.
        &[("date", "x"), ("x-ca-timestamp", "1525872629"), listed],
        // One that is not signed can be anybody's.
        &[("x-ca-timestamp", "1525872629")],
    ];
    for headers in never {
        assert!(
            !is_fresh(&get("/", headers), at(1_525_872_629), hour),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn an_old_request_cannot_be_sent_again() {
    let mut config = consumers();
    config["date_offset"] = json!(3600);
    let old = went(&config, get("/Third/Tools/checkSign", &SIGNED)).await;
    assert_eq!(old.line(), "400 [Invalid Date] Invalid_Date");
    let now = httpdate::fmt_http_date(clock::wall());
    let text = format!("GET\n\n\n\n{now}\n/p");
    assert_eq!(
        went(&config, over("/p", &text, &[("date", &now)])).await.status,
        200
    );
    for off in [json!(-1), json!(0), json!(null)] {
        config["date_offset"] = off.clone();
        let answer = went(&config, get("/Third/Tools/checkSign", &SIGNED)).await;
        assert_eq!(answer.status, 200, "{off}");
    }
}

#[tokio::test]
async fn rules_and_their_lists() {
    let signed = || get("/Third/Tools/checkSign", &SIGNED);
    for (allow, line) in [
        (json!(["consumer"]), "200 [from upstream] "),
        (
            json!(["other"]),
            "403 [Unauthorized Consumer] Unauthorized_Consumer",
        ),
        (json!([]), "403 [Unauthorized Consumer] Unauthorized_Consumer"),
    ] {
        let plugin = rule(NAME, &consumers(), &json!({"allow": allow})).unwrap();
        assert_eq!(run(&plugin, signed()).await.line(), line, "{allow}");
    }
    let anonymous = json!({"credentials": [{"key": "appKey", "secret": "appSecret"}]});
    let answer = went(&anonymous, signed()).await;
    assert_eq!((answer.status, answer.consumer), (200, None));
    let own = rule(NAME, &json!({"global_auth": false}), &anonymous).unwrap();
    assert_eq!(run(&own, signed()).await.status, 200);
    assert_eq!(run(&own, get("/", &[])).await.status, 401);
    let free = parse(NAME, Some(&consumers()), None, true).unwrap().0;
    assert_eq!(run(&free, get("/", &[])).await.status, 200, "no rule matched");
    let plugin = rule(NAME, &consumers(), &json!({"allow": ["consumer"]})).unwrap();
    assert!(plugin.admits(Some("consumer")) && !plugin.admits(Some("other")) && !plugin.admits(None));
    assert!(free.admits(None));
}

#[tokio::test]
async fn what_shows_who_asks_can_be_taken_out() {
    let answer = went(&consumers(), get("/Third/Tools/checkSign", &SIGNED)).await;
    let mut sent = get("/Third/Tools/checkSign", &SIGNED);
    answer.exchange.remove_credentials(&mut sent);
    assert!(!sent.headers().contains_key("x-ca-key") && !sent.headers().contains_key("x-ca-signature"));
    let shown = format!("{:?}", answer.exchange.record);
    assert!(!shown.contains("appSecret"), "{shown}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let entry = json!({"name": "a", "key": "k", "secret": "s3cret"});
    let wrong = [
        (json!([]), "must be an object"),
        (json!({}), "consumers: consumers or credentials are required"),
        (json!({"consumers": []}), "consumers: at least one is required"),
        (
            json!({"consumers": [entry], "credentials": []}),
            "credentials: cannot stand next to consumers",
        ),
        (
            json!({"consumers": [entry, {"name": "b", "key": "k", "secret": "t"}]}),
            "consumers[1].key: the key \"k\" stands here twice",
        ),
        (
            json!({"credentials": [{"key": "k", "secret": "s"}, {"key": "k", "secret": "s"}]}),
            "credentials[1].key: the key \"k\" stands here twice",
        ),
        (
            json!({"consumers": [{"key": "k", "secret": "s"}]}),
            "consumers[0].name: is required",
        ),
        (
            json!({"consumers": [{"name": "a", "secret": "s"}]}),
            "consumers[0].key: is required",
        ),
        (
            json!({"consumers": [{"name": "a", "key": "k", "secret": ""}]}),
            "consumers[0].secret: is required",
        ),
        (
            json!({"credentials": [{"key": 7, "secret": "s"}]}),
            "credentials[0].key: must be a text: quote it",
        ),
        (json!({"credentials": ["k"]}), "credentials[0]: must be an object"),
        (
            json!({"consumers": [entry], "date_offset": "x"}),
            "date_offset: must be a whole number",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let twice = json!({"consumers": [entry, {"name": "a", "key": "l", "secret": "t"}]});
    let warned = parse(NAME, Some(&twice), None, false).unwrap().1;
    assert_eq!(
        warned,
        ["consumers[1].name: another consumer is called \"a\" too: its keys are the same consumer's"]
    );
}
