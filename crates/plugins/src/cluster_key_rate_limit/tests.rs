//! Every source of values, what is answered, and what a wrong config says.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_body::Request;

use crate::testing::{compiled, fault, get, run};

async fn statuses(config: &Value, requests: Vec<Request>) -> Vec<u16> {
    let plugin = compiled("cluster-key-rate-limit", config).unwrap();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(run(&plugin, request).await.status);
    }
    statuses
}

/// One item with one limit of 1 a minute.
fn item(kind: &str, name: &str, key: &str) -> Value {
    json!({"rule_name": "r", "rule_items": [
        {kind: name, "limit_keys": [{"key": key, "query_per_minute": 1}]}]})
}

#[tokio::test(start_paused = true)]
async fn every_source() {
    let h = |value: &'static str| get("/", &[("x-key", value)]);
    let cases: Vec<(Value, Vec<Request>, &[u16])> = vec![
        (
            item("limit_by_header", "x-key", "a"),
            vec![h("a"), h("a"), h("b"), h("b"), get("/", &[])],
            &[200, 429, 200, 200, 200],
        ),
        (
            item("limit_by_per_header", "x-key", "*"),
            vec![h("a"), h("a"), h("b"), h("b")],
            &[200, 429, 200, 429],
        ),
        (
            item("limit_by_per_header", "x-key", "regexp:^a"),
            vec![h("ab"), h("ab"), h("ac"), h("ba"), h("ba")],
            &[200, 429, 200, 200, 200],
        ),
        (
            item("limit_by_param", "k", "a b"),
            vec![
                get("/?k=a%20b", &[]),
                get("/?k=a+b&k=x", &[]),
                get("/?k=x&k=a+b", &[]),
            ],
            &[200, 429, 200],
        ),
        (
            item("limit_by_per_param", "k", "*"),
            vec![
                get("/?k=1", &[]),
                get("/?k=2", &[]),
                get("/?k=1", &[]),
                get("/", &[]),
            ],
            &[200, 200, 429, 200],
        ),
        (
            item("limit_by_cookie", "k", "a"),
            vec![
                get("/", &[("cookie", "x=1; k=a")]),
                get("/", &[("cookie", "k=a")]),
                get("/", &[("cookie", "k")]),
            ],
            &[200, 429, 200],
        ),
        (
            item("limit_by_per_cookie", "k", "*"),
            vec![
                get("/", &[("cookie", "k=1")]),
                get("/", &[("cookie", "k=2")]),
                get("/", &[("cookie", "k=1")]),
            ],
            &[200, 200, 429],
        ),
        (
            item("limit_by_consumer", "", "ann"),
            vec![
                get("/", &[("x-mse-consumer", "ann")]),
                get("/", &[("x-mse-consumer", "ann")]),
                get("/", &[("x-mse-consumer", "bob")]),
            ],
            &[200, 429, 200],
        ),
        (
            item("limit_by_per_consumer", "", "*"),
            vec![
                get("/", &[("x-mse-consumer", "ann")]),
                get("/", &[("x-mse-consumer", "bob")]),
                get("/", &[("x-mse-consumer", "ann")]),
            ],
            &[200, 200, 429],
        ),
        (
            item("limit_by_per_ip", "from-remote-addr", "127.0.0.0/8"),
            vec![get("/", &[]), get("/", &[])],
            &[200, 429],
        ),
        (
            item("limit_by_per_ip", "from-header-x-forwarded-for", "10.0.0.0/8"),
            ["10.1.1.1, 8.8.8.8", "10.1.1.1:99", "10.1.1.2", "8.8.8.8", "none"]
                .map(|value| get("/", &[("x-forwarded-for", value)]))
                .into(),
            &[200, 429, 200, 200, 200],
        ),
    ];
    for (config, requests, expected) in cases {
        assert_eq!(statuses(&config, requests).await, expected, "{config}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_item_and_the_first_key_that_fit_count() {
    let config = json!({"rule_name": "r", "rule_items": [
        {"limit_by_header": "x-key", "limit_keys": [{"key": "vip", "query_per_minute": 2}]},
        {"limit_by_per_header": "x-key", "limit_keys": [
            {"key": "regexp:^v", "query_per_minute": 1}, {"key": "*", "query_per_minute": 3}]}]});
    let h = |value: &'static str| get("/", &[("x-key", value)]);
    let requests = vec![
        h("vip"),
        h("vip"),
        h("vip"),
        h("v"),
        h("v"),
        h("x"),
        h("x"),
        h("x"),
        h("x"),
    ];
    assert_eq!(
        statuses(&config, requests).await,
        [200, 200, 429, 200, 429, 200, 200, 200, 429]
    );
}

#[tokio::test(start_paused = true)]
async fn answers_and_refusals_show_what_is_left() {
    let config = json!({"rule_name": "r", "global_threshold": {"query_per_hour": 2, "query_per_day": 9},
        "show_limit_quota_header": true, "rejected_code": 503, "rejected_msg": "later"});
    let plugin = compiled("cluster-key-rate-limit", &config).unwrap();
    let first = run(&plugin, get("/", &[])).await;
    assert_eq!(
        (
            &first.headers["x-ratelimit-limit"],
            &first.headers["x-ratelimit-remaining"]
        ),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
    assert!(!first.headers.contains_key("x-ratelimit-reset"));
    run(&plugin, get("/", &[])).await;
    tokio::time::advance(Duration::from_millis(600_500)).await;
    let refused = run(&plugin, get("/", &[])).await;
    assert_eq!(
        (refused.status, refused.text.as_str(), refused.forwarded),
        (503, "later", false)
    );
    assert_eq!(refused.headers["x-ratelimit-reset"], "3000");
    assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    assert_eq!(
        &**refused.record.details.borrow(),
        "cluster-key-rate-limit.rejected"
    );
    tokio::time::advance(Duration::from_secs(3000)).await;
    assert_eq!(run(&plugin, get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn without_its_redis_requests_pass_or_not_as_the_rule_says() {
    let config = |failure: &str| {
        json!({"rule_name": "r", "global_threshold": {"query_per_hour": 1},
        "redis": {"service_name": "redis.static"}, "on_store_failure": failure})
    };
    let open = compiled("cluster-key-rate-limit", &config("allow")).unwrap();
    assert!(run(&open, get("/", &[])).await.forwarded);
    let closed = compiled("cluster-key-rate-limit", &config("deny")).unwrap();
    let refused = run(&closed, get("/", &[])).await;
    assert_eq!((refused.status, refused.forwarded), (503, false));
}

#[test]
fn faults_are_told_as_higress_tells_them() {
    let threshold = json!({"query_per_minute": 1});
    let keys = |keys: Value| json!({"rule_name": "r", "rule_items": [{"limit_by_per_header": "a", "limit_keys": keys}]});
    for (config, expected) in [
        (
            json!({"global_threshold": threshold}),
            "missing rule_name in config",
        ),
        (
            json!({"rule_name": "r"}),
            "at least one of 'global_threshold' or 'rule_items' must be set",
        ),
        (
            json!({"rule_name": "r", "rule_items": [], "global_threshold": threshold}),
            "cannot be set at the same time",
        ),
        (
            json!({"rule_name": "r", "global_threshold": {}}),
            "global_threshold: failed to parse global_threshold: one of 'query_per_second', 'query_per_minute', 'query_per_hour', or 'query_per_day' must be set for global_threshold",
        ),
        (
            json!({"rule_name": "r", "global_threshold": {"query_per_minute": -100}}),
            "'query_per_minute' must be a positive integer, got -100",
        ),
        (
            json!({"rule_name": "r", "rule_items": []}),
            "config rule_items cannot be empty",
        ),
        (
            json!({"rule_name": "r", "rule_items": [{}]}),
            "rule_items[0]: failed to parse rule_item in rule_items: only one of 'limit_by_header' and",
        ),
        (keys(json!([])), "config limit_keys cannot be empty"),
        (
            keys(json!([{"query_per_day": 1}])),
            "rule_items[0].limit_keys[0].key: failed to parse rule_item in rule_items: limit_keys key is required",
        ),
        (
            keys(json!([{"key": "x", "query_per_day": 1}])),
            "must start with 'regexp:' or be exactly '*'",
        ),
        (
            keys(json!([{"key": "regexp:(", "query_per_day": 1}])),
            "failed to compile regex for key 'regexp:('",
        ),
        (keys(json!([{"key": "*"}])), "must be set for key: *"),
        (
            item("limit_by_per_ip", "from-header-", "::1"),
            "empty after 'from-header-'",
        ),
        (
            item("limit_by_per_ip", "x", "::1"),
            "must start with 'from-header-' or be exactly 'from-remote-addr'",
        ),
        (
            item("limit_by_per_ip", "from-remote-addr", "host"),
            "failed to parse IPNet for key 'host': invalid IP[host]",
        ),
        (
            json!({"rule_name": "r", "global_threshold": threshold, "redis": {}}),
            "redis.service_name: redis service name must not be empty",
        ),
        (
            json!({"rule_name": "r", "global_threshold": threshold, "rejected_code": 99}),
            "rejected_code: must be",
        ),
        (
            json!({"rule_name": "r", "global_threshold": threshold, "on_store_failure": "maybe"}),
            "on_store_failure: must be",
        ),
    ] {
        let message = fault("cluster-key-rate-limit", &config);
        assert!(message.contains(expected), "{message}\nnot {expected}");
    }
}
