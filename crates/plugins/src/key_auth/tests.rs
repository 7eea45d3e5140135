//! The plugin through its front door: who gets in, as whom, and what a refusal says.

use serde_json::{Value, json};

use crate::test_chain::{get, global, parse, rule, run};

type Headers<'a> = &'a [(&'a str, &'a str)];

const NAME: &str = "key-auth";
const INVALID: &str = "401 [] Request_denied_by_Key_Auth_check._Invalid_API_key";
const UNAUTHORIZED: &str = "403 [] Request_denied_by_Key_Auth_check._Unauthorized_consumer";

fn consumers() -> Value {
    json!({
        "consumers": [
            {"name": "consumer1", "credential": "xxxxxx"},
            {"name": "consumer2", "credential": "yyyyyy"},
        ],
        "keys": ["apikey", "x-api-key"],
    })
}

#[tokio::test]
async fn the_texts_of_a_refusal() {
    let plugin = rule(NAME, &consumers(), &json!({"allow": ["consumer1"]})).unwrap();
    for request in [get("/", &[]), get("/?text=a", &[("apikey", "zzzzzz")])] {
        let went = run(&plugin, request).await;
        assert_eq!(went.line(), INVALID);
        assert_eq!(went.header("www-authenticate"), "Key realm=MSE Gateway");
        assert_eq!(went.header("content-type"), "");
        assert!(went.upstream.is_none() && went.consumer.is_none());
    }
    let went = run(&plugin, get("/", &[("apikey", "yyyyyy")])).await;
    assert_eq!(went.line(), UNAUTHORIZED);
    assert_eq!(went.header("www-authenticate"), "Basic realm=MSE Gateway");
    assert_eq!(
        went.consumer.as_deref(),
        Some("consumer2"),
        "the log shows who it was"
    );
    assert!(went.upstream.is_none());
}

#[tokio::test]
async fn who_has_a_key_comes_in_under_its_name() {
    let plugin = global(NAME, &consumers()).unwrap();
    let accepted: [(&str, Headers<'_>, &str); 8] = [
        ("/", &[("apikey", "xxxxxx")], "consumer1"),
        ("/", &[("APIKEY", "yyyyyy")], "consumer2"),
        ("/?apikey=xxxxxx", &[], "consumer1"),
        ("/?a=b&apikey=%79yyyyy&c", &[], "consumer2"),
        // A wrong key elsewhere does not matter.
        ("/?apikey=123&x-api-key=yyyyyy", &[], "consumer2"),
        ("/", &[("apikey", "wrong"), ("x-api-key", "xxxxxx")], "consumer1"),
        // An empty header is none.
        ("/?apikey=xxxxxx", &[("apikey", "")], "consumer1"),
        // Of several consumers the first of the document counts.
        ("/", &[("apikey", "yyyyyy"), ("x-api-key", "xxxxxx")], "consumer1"),
    ];
    for (uri, headers, consumer) in accepted {
        let went = run(&plugin, get(uri, headers)).await;
        assert_eq!(went.status, 200, "{uri} {headers:?}");
        assert_eq!(went.consumer.as_deref(), Some(consumer), "{uri} {headers:?}");
        let upstream = went.upstream.unwrap();
        assert_eq!(upstream.header("x-mse-consumer"), consumer);
        assert!(upstream.method == "GET" && upstream.body.is_empty() && went.calls.is_empty());
        assert_eq!(
            upstream.uri.path_and_query().unwrap().as_str(),
            uri,
            "the key stays"
        );
    }
}

#[tokio::test]
async fn what_is_not_exactly_a_key_is_none() {
    let plugin = global(NAME, &consumers()).unwrap();
    let long = "x".repeat(8192);
    let refused: [(&str, Headers<'_>); 9] = [
        ("/?apikey=", &[]),
        ("/?APIKEY=xxxxxx", &[]),
        ("/", &[("apikey", "XXXXXX")]),
        ("/", &[("apikey", "xxxxxx,yyyyyy")]),
        ("/", &[("apikey", &long)]),
        ("/", &[("apikey", "ключ")]),
        ("/", &[("authorization", "Bearer xxxxxx")]),
        // The header hides the parameter of the same name.
        ("/?apikey=xxxxxx", &[("apikey", "wrong")]),
        // Of a repeated header the first counts.
        ("/", &[("apikey", "wrong"), ("apikey", "xxxxxx")]),
    ];
    for (uri, headers) in refused {
        assert_eq!(
            run(&plugin, get(uri, headers)).await.line(),
            INVALID,
            "{uri} {headers:?}"
        );
    }
    let first = run(&plugin, get("/", &[("apikey", "xxxxxx"), ("apikey", "wrong")])).await;
    assert_eq!(first.status, 200);
    let odd = run(&plugin, get("/?apikey=%FF%00&apikey=xxxxxx", &[])).await;
    assert_eq!(odd.status, 401);
}

#[tokio::test]
async fn places_are_switched_off_by_themselves() {
    let mut config = consumers();
    config["in_query"] = json!(false);
    let header_only = global(NAME, &config).unwrap();
    assert_eq!(run(&header_only, get("/?apikey=xxxxxx", &[])).await.status, 401);
    assert_eq!(
        run(&header_only, get("/", &[("apikey", "xxxxxx")])).await.status,
        200
    );
    config["in_query"] = json!(true);
    config["in_header"] = json!(false);
    let query_only = global(NAME, &config).unwrap();
    assert_eq!(run(&query_only, get("/?apikey=xxxxxx", &[])).await.status, 200);
    assert_eq!(
        run(&query_only, get("/", &[("apikey", "xxxxxx")])).await.status,
        401
    );
}

#[tokio::test]
async fn a_key_counts_only_where_its_consumer_has_it() {
    let plugin = global(
        NAME,
        &json!({
            "consumers": [
                {"name": "bearer", "credentials": ["Bearer a", "Bearer b"], "keys": ["authorization"], "in_query": false},
                {"name": "query", "credential": "c", "keys": ["k"], "in_header": false},
                {"name": "common", "credential": "schlüssel"},
            ],
            "keys": ["apikey"],
        }),
    )
    .unwrap();
    let accepted: [(&str, Headers<'_>, &str); 5] = [
        ("/", &[("authorization", "Bearer b")], "bearer"),
        ("/", &[("x-hi-original-auth", "Bearer a")], "bearer"),
        ("/?k=c", &[], "query"),
        ("/", &[("apikey", "schlüssel")], "common"),
        ("/?apikey=schl%C3%BCssel", &[], "common"),
    ];
    for (uri, headers, consumer) in accepted {
        let went = run(&plugin, get(uri, headers)).await;
        assert_eq!(went.consumer.as_deref(), Some(consumer), "{uri} {headers:?}");
    }
    let refused: [(&str, Headers<'_>); 6] = [
        ("/", &[("authorization", "b")]),
        ("/?authorization=Bearer%20a", &[]),
        ("/", &[("k", "c")]),
        ("/?apikey=c", &[]),
        ("/", &[("apikey", "Bearer a")]),
        ("/", &[("x-hi-original-auth", "schlüssel")]),
    ];
    for (uri, headers) in refused {
        assert_eq!(
            run(&plugin, get(uri, headers)).await.line(),
            INVALID,
            "{uri} {headers:?}"
        );
    }
}

#[tokio::test]
async fn keys_that_belong_to_nobody() {
    let config = json!({"credentials": ["a", "b"], "keys": ["apikey"], "realm": "here"});
    let plugin = global(NAME, &config).unwrap();
    let went = run(&plugin, get("/", &[("apikey", "b")])).await;
    assert_eq!((went.status, went.consumer), (200, None));
    assert_eq!(went.upstream.unwrap().header("x-mse-consumer"), "");
    assert_eq!(
        run(&plugin, get("/", &[("x-hi-original-auth", "a")]))
            .await
            .status,
        200
    );
    let refused = run(&plugin, get("/?apikey=c", &[])).await;
    assert_eq!(refused.header("www-authenticate"), "Key realm=here");
    let all = rule(NAME, &config, &json!({"allow": []})).unwrap();
    assert_eq!(run(&all, get("/", &[("apikey", "a")])).await.status, 200);
    let named = rule(NAME, &config, &json!({"allow": ["x"]})).unwrap();
    assert_eq!(run(&named, get("/", &[("apikey", "a")])).await.status, 403);
}

/// Plugins spec §0.4: the table of `global_auth`.
#[tokio::test]
async fn who_is_asked_outside_the_rules() {
    for (global_auth, has_rules, asked) in [
        (json!(null), false, true),
        (json!(true), true, true),
        (json!(true), false, true),
        (json!(false), false, false),
        (json!(null), true, false),
        (json!(false), true, false),
    ] {
        let mut config = consumers();
        config["global_auth"] = global_auth.clone();
        let plugin = parse(NAME, Some(&config), None, has_rules).unwrap().0;
        let went = run(&plugin, get("/", &[])).await;
        assert_eq!(went.status == 401, asked, "{global_auth} {has_rules}");
    }
}

#[tokio::test]
async fn rules_with_and_without_consumers_of_their_own() {
    let nobody = rule(NAME, &consumers(), &json!({"allow": []})).unwrap();
    assert_eq!(
        run(&nobody, get("/", &[("apikey", "xxxxxx")])).await.line(),
        UNAUTHORIZED
    );
    let neither = rule(NAME, &consumers(), &json!({})).unwrap();
    assert_eq!(run(&neither, get("/", &[("apikey", "xxxxxx")])).await.status, 403);
    let own = json!({"consumers": [{"name": "own", "credential": "k"}], "keys": ["apikey"]});
    for flag in [json!(true), json!(false), json!(null)] {
        let mut config = consumers();
        config["global_auth"] = flag;
        let plugin = rule(NAME, &config, &own).unwrap();
        assert_eq!(
            run(&plugin, get("/", &[])).await.status,
            401,
            "never without any check"
        );
        assert_eq!(run(&plugin, get("/", &[("apikey", "xxxxxx")])).await.status, 401);
        assert_eq!(
            run(&plugin, get("/", &[("apikey", "k")]))
                .await
                .consumer
                .as_deref(),
            Some("own")
        );
    }
    let alone = parse(NAME, None, Some(&own), true).unwrap().0;
    assert_eq!(run(&alone, get("/", &[("apikey", "k")])).await.status, 200);
    let empty = global(NAME, &json!({"consumers": [], "keys": ["apikey"]})).unwrap();
    assert_eq!(run(&empty, get("/", &[("apikey", "k")])).await.line(), INVALID);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let wrong = [
        (json!([]), "must be an object"),
        (json!({}), "consumers: consumers or credentials are required"),
        (
            json!({"consumers": [], "credentials": [], "keys": ["k"]}),
            "credentials: cannot stand next to consumers",
        ),
        (
            json!({"consumers": [{"name": "a", "credential": "s3cret"}, {"name": "b", "credential": "s3cret"}], "keys": ["k"]}),
            "consumers[1].credential: the same credential stands here twice",
        ),
        (
            json!({"credentials": ["s3cret", "s3cret"], "keys": ["k"]}),
            "credentials[1]: the same credential stands here twice",
        ),
        (
            json!({"consumers": [{"name": "a"}], "keys": ["k"]}),
            "consumers[0].credential: is required",
        ),
        (
            json!({"consumers": [{"name": "a", "credential": 7}], "keys": ["k"]}),
            "consumers[0].credential: must be a text: quote it",
        ),
        (
            json!({"consumers": [{"name": "a", "credential": "x", "credentials": ["y"]}], "keys": ["k"]}),
            "consumers[0].credentials: cannot stand next to credential",
        ),
        (
            json!({"consumers": [{"credential": "x"}], "keys": ["k"]}),
            "consumers[0].name: is required",
        ),
        (
            json!({"consumers": [{"name": "a\nb", "credential": "x"}], "keys": ["k"]}),
            "consumers[0].name: cannot be sent in a header",
        ),
        (
            json!({"consumers": [{"name": "a", "credential": "x"}]}),
            "consumers[0].keys: neither the consumer nor the config has keys",
        ),
        (
            json!({"consumers": [], "keys": ["k"], "in_header": false, "in_query": false}),
            "in_header: in_header and in_query cannot both be false",
        ),
        (
            json!({"consumers": [], "keys": ["k k"], "in_query": false}),
            "keys[0]: is no name of a header",
        ),
        (
            json!({"consumers": [], "keys": ["k"], "global_auth": "no"}),
            "global_auth: must be true or false",
        ),
    ];
    for (config, message) in wrong {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let no_global = parse(NAME, None, Some(&json!({"allow": ["a"]})), true).err();
    assert_eq!(
        no_global.as_deref(),
        Some("the rule has no consumers, and no global config gives it any")
    );
    let typed = rule(NAME, &consumers(), &json!({"allow": "consumer1"})).err();
    assert_eq!(typed.as_deref(), Some("allow: must be a list"));
}

#[test]
fn what_is_strange_is_told_too() {
    let warned = |global: &Value, rule: Option<&Value>| parse(NAME, Some(global), rule, true).unwrap().1;
    let mut twice = consumers();
    twice["consumers"][1]["name"] = json!("consumer1");
    assert_eq!(
        warned(&twice, None),
        ["consumers[1].name: another consumer is called \"consumer1\" too: its keys are the same consumer's"]
    );
    assert_eq!(
        warned(&consumers(), Some(&json!({"allow": ["consumer1", "consumer3"]}))),
        ["allow[1]: no consumer has the name \"consumer3\""]
    );
    let mut own = consumers();
    own["allow"] = json!(["consumer1"]);
    assert_eq!(
        warned(&consumers(), Some(&own)),
        ["allow: does not count next to consumers of the rule's own"]
    );
}

#[tokio::test]
async fn a_key_that_was_recognised_can_be_taken_out() {
    let plugin = global(NAME, &consumers()).unwrap();
    let request = || {
        get(
            "/v1?apikey=yyyyyy&a=1",
            &[("x-api-key", "xxxxxx"), ("other", "1")],
        )
    };
    let went = run(&plugin, request()).await;
    let mut sent = request();
    went.exchange.remove_credentials(&mut sent);
    assert_eq!(sent.uri(), "http://gateway/v1?a=1");
    assert_eq!(sent.headers().len(), 1);
}
