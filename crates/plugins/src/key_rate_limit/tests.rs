//! Which requests are limited, and what a refused one gets.

use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::{compiled, fault, get, run};

async fn statuses(config: &Value, requests: &[(&str, &[(&str, &str)])]) -> Vec<u16> {
    let plugin = compiled("key-rate-limit", config).unwrap();
    let mut statuses = Vec::new();
    for (uri, headers) in requests {
        statuses.push(run(&plugin, get(uri, headers)).await.status);
    }
    statuses
}

#[tokio::test(start_paused = true)]
async fn by_header_each_listed_value_for_itself() {
    let config = json!({"limit_by_header": "x-ca-key", "limit_keys": [
        {"key": "a", "query_per_minute": 1}, {"key": "b", "query_per_hour": 2}, {"key": "", "query_per_day": 1}]});
    let a: &[(&str, &str)] = &[("x-ca-key", "a")];
    let b: &[(&str, &str)] = &[("X-Ca-Key", "b")];
    let other: &[(&str, &str)] = &[("x-ca-key", "c")];
    let twice: &[(&str, &str)] = &[("x-ca-key", "a"), ("x-ca-key", "a")];
    let requests = [
        ("/", a),
        ("/", a),
        ("/", b),
        ("/", b),
        ("/", b),
        ("/", other),
        ("/", other),
        ("/", &[]),
        ("/", &[]),
        ("/", twice),
    ];
    assert_eq!(
        statuses(&config, &requests).await,
        [200, 429, 200, 200, 429, 200, 200, 200, 429, 200]
    );
}

#[tokio::test(start_paused = true)]
async fn by_parameter_as_it_is_written() {
    let config = json!({"limit_by_param": "apikey", "limit_keys": [
        {"key": "a%20b", "query_per_second": 1}, {"key": "", "query_per_second": 0}]});
    let requests: [(&str, &[(&str, &str)]); 6] = [
        ("/?x=1&apikey=a%20b&apikey=z", &[]),
        ("/?apikey=a%20b", &[]),
        ("/?apikey=a+b", &[]),
        ("/?apikey", &[]),
        ("/?apikey=", &[]),
        ("/?xapikey=a%20b", &[]),
    ];
    assert_eq!(statuses(&config, &requests).await, [200, 429, 200, 429, 429, 429]);
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_higresss_and_the_next_period_lets_in_again() {
    let config = json!({"limit_by_header": "k", "limit_keys": [{"key": "a", "query_per_second": 1}]});
    let plugin = compiled("key-rate-limit", &config).unwrap();
    let request = || get("/", &[("k", "a")]);
    assert!(run(&plugin, request()).await.forwarded);
    let refused = run(&plugin, request()).await;
    assert_eq!((refused.status, refused.text.as_str()), (429, "rate_limited"));
    assert_eq!(refused.headers["content-type"], "text/plain");
    assert_eq!(&**refused.record.details.borrow(), "Too_many_requests");
    assert!(!refused.forwarded && !refused.headers.contains_key("retry-after"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(run(&plugin, request()).await.status, 200);
}

#[test]
fn faults_name_their_field() {
    let keys = json!([{"key": "a", "query_per_second": 1}]);
    for (config, expected) in [
        (json!({}), "one of limit_by_header and limit_by_param must be set"),
        (
            json!({"limit_by_header": "", "limit_keys": keys}),
            "one of limit_by_header",
        ),
        (
            json!({"limit_by_header": "a", "limit_by_param": "b", "limit_keys": keys}),
            "limit_by_header: cannot",
        ),
        (
            json!({"limit_by_header": "a b", "limit_keys": keys}),
            "limit_by_header: is no header",
        ),
        (
            json!({"limit_by_param": 1, "limit_keys": keys}),
            "limit_by_param: must be",
        ),
        (json!({"limit_by_header": "a"}), "limit_keys: must be a list"),
        (
            json!({"limit_by_header": "a", "limit_keys": []}),
            "limit_keys: must be a list",
        ),
        (
            json!({"limit_by_header": "a", "limit_keys": [{"query_per_second": 1}]}),
            "limit_keys[0].key: must",
        ),
        (
            json!({"limit_by_header": "a", "limit_keys": [{"key": "x"}]}),
            "limit_keys[0]: one of query_per_second",
        ),
        (
            json!({"limit_by_header": "a", "limit_keys": [{"key": "x", "query_per_day": -1}]}),
            "limit_keys[0].query_per_day: must be",
        ),
    ] {
        let message = fault("key-rate-limit", &config);
        assert!(message.starts_with(expected), "{message}");
    }
}
