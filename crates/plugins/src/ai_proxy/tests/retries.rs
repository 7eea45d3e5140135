//! Several tokens: affinity, failover, retries.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::*;

fn ok() -> Scripted {
    Scripted::json(200, &json!({"ok": true}))
}

fn failing(status: u16) -> Scripted {
    Scripted::json(status, &json!({"status": status}))
}

fn tokens_seen(vendor: &Vendor) -> Vec<String> {
    let seen = vendor.seen.borrow();
    seen.iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect()
}

fn request() -> Request {
    chat(json!({"model": "m"}))
}

#[tokio::test]
async fn one_consumer_keeps_one_token_where_the_vendor_keeps_state() {
    let provider = plugin(json!({"type": "openai", "apiTokens": ["t0", "t1", "t2"]}));
    let vendor = Vendor::default();
    for _ in 0..5 {
        let mut stateful = post("/v1/responses", "{\"model\":\"m\"}");
        stateful
            .headers_mut()
            .insert("x-mse-consumer", "team-blue".parse().unwrap());
        run(&provider, &vendor, stateful).await;
    }
    assert_eq!(tokens_seen(&vendor), ["Bearer t1"; 5]);
}

#[tokio::test]
async fn a_retry_goes_through_the_same_pipeline_with_another_token() {
    let provider = plugin(
        json!({"type": "openai", "apiTokens": ["t0", "t1"], "modelMapping": {"*": "x"},
        "customSettings": [{"name": "seed", "value": 1}], "retryOnFailure": {"enabled": true}}),
    );
    let vendor = Vendor::answering([failing(500), ok()]);
    let response = run(&provider, &vendor, request()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(json_of(response).await, json!({"ok": true}));
    let tokens: BTreeSet<String> = tokens_seen(&vendor).into_iter().collect();
    assert_eq!(tokens.len(), 2);
    let seen = vendor.seen.borrow();
    assert_eq!(seen[1].json(), json!({"model": "x", "seed": 1}));
    assert_eq!((&seen[0].uri, &seen[0].body), (&seen[1].uri, &seen[1].body));
}

#[tokio::test]
async fn when_every_retry_fails_the_first_answer_counts() {
    let provider = plugin(json!({"type": "openai", "apiTokens": ["t0", "t1", "t2"],
        "retryOnFailure": {"enabled": true, "maxRetries": 5}}));
    let vendor = Vendor::answering([failing(429), failing(500), failing(503)]);
    let response = run(&provider, &vendor, request()).await;
    assert_eq!(response.status(), 429);
    assert_eq!(json_of(response).await, json!({"status": 429}));
    assert_eq!(tokens_seen(&vendor).into_iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn what_is_not_retried() {
    let one = plugin(json!({"type": "openai", "apiTokens": ["t0"], "retryOnFailure": {"enabled": true}}));
    let vendor = Vendor::answering([failing(500), ok()]);
    assert_eq!(run(&one, &vendor, request()).await.status(), 500);
    let picky = plugin(json!({"type": "openai", "apiTokens": ["t0", "t1"],
        "retryOnFailure": {"enabled": true, "retryOnStatus": ["50[23]"]}}));
    let vendor = Vendor::answering([failing(500), ok()]);
    assert_eq!(run(&picky, &vendor, request()).await.status(), 500);
    let off = plugin(json!({"type": "openai", "apiTokens": ["t0", "t1"]}));
    let vendor = Vendor::answering([failing(500), ok()]);
    assert_eq!(run(&off, &vendor, request()).await.status(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_failing_token_is_set_aside_tried_unnoticed_and_comes_back() {
    let provider = plugin(json!({"type": "openai", "apiTokens": ["t0", "t1"], "failover": {
        "enabled": true, "failureThreshold": 2, "healthCheckModel": "m", "failoverOnStatus": ["401"]}}));
    let answers = async |bad: &'static str, times: usize| {
        let (mut refused, mut uses_of_t0) = (0, 0);
        for _ in 0..times {
            let vendor = KeyedVendor {
                inner: Vendor::default(),
                bad,
            };
            refused += usize::from(vendor.run(&provider).await == 401);
            let seen = tokens_seen(&vendor.inner);
            uses_of_t0 += seen.iter().filter(|token| *token == "Bearer t0").count();
        }
        (refused, uses_of_t0)
    };
    assert_eq!(answers("Bearer t0", 60).await, (2, 2), "then it is set aside");
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(
        answers("Bearer t0", 20).await,
        (0, 1),
        "one trial, whose failure reaches nobody"
    );
    tokio::time::advance(Duration::from_secs(6)).await;
    let (refused, uses) = answers("nobody", 60).await;
    assert!(refused == 0 && uses > 5, "it is back: {uses} uses");
}

/// Answers 401 to one token and 200 to all others.
struct KeyedVendor {
    inner: Vendor,
    bad: &'static str,
}

impl KeyedVendor {
    async fn run(&self, provider: &Arc<dyn Plugin>) -> u16 {
        let links = [Link {
            name: "ai-proxy".into(),
            ordinal: 0,
            order: Order::new(Phase::Unspecified, None),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin: Some(provider.clone()),
                origin: Origin {
                    object: "o".into(),
                    place: "p".into(),
                },
            }],
        }];
        let answered = Next::start(&links, self).run(&mut exchange(), request()).await;
        answered.unwrap().status().as_u16()
    }
}

#[async_trait(?Send)]
impl Host for KeyedVendor {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        let is_bad = request.headers()["authorization"] == self.bad;
        *self.inner.answers.borrow_mut() = [if is_bad { failing(401) } else { ok() }].into();
        self.inner.forward(exchange, request).await
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }
}
