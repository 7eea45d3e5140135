//! Who is refused when, and what is said.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_base::{Amount, clock};
use tollgate_observe::{Spend, Spent};
use tollgate_plugin::Money;

use super::config::Config;
use super::exhausted;
use super::period::Period;
use crate::table::ParseContext;
use crate::testing::{compiled, fault, get, run};

fn spent(cost: u64) -> Spent {
    Spent {
        requests: 1,
        tokens: 1,
        cost: Amount(cost * 1_000_000_000),
    }
}

#[test]
fn a_budget_is_used_up_by_the_day_or_by_the_month() {
    let config = json!({"budgets": [
        {"consumer": "ann", "day": 5, "month": "100"}, {"consumer": "*", "day": 0.5}, {"consumer": "ann", "day": 9}]});
    let context = ParseContext::default();
    let config = Config::parse(&config, &context).unwrap();
    assert_eq!(context.take_warnings().len(), 1);
    let money = Money {
        spend: Spend::default(),
        prices: Arc::default(),
    };
    let of = |name: &str| exhausted(config.budget(name).unwrap(), name, &money);
    assert_eq!((of("ann"), of("bob")), (None, None));
    money.spend.add("ann", clock::wall(), spent(4));
    money.spend.add("bob", clock::wall(), spent(4));
    assert_eq!((of("ann"), of("bob")), (None, Some(Period::Day)));
    money.spend.add("ann", clock::wall(), spent(1));
    assert_eq!(of("ann"), Some(Period::Day));
    money.spend.add("ann", clock::wall(), spent(95));
    assert_eq!(of("ann"), Some(Period::Month));
    assert!(config.budget("").is_none());
}

#[tokio::test]
async fn a_refusal_says_when_the_budget_begins_again() {
    let plugin = compiled("ai-budget", &json!({"budgets": [{"consumer": "ann", "day": 0}]})).unwrap();
    let refused = run(&plugin, get("/v1/chat/completions", &[("x-mse-consumer", "ann")])).await;
    assert_eq!((refused.status, refused.forwarded), (429, false));
    let body: Value = serde_json::from_str(&refused.text).unwrap();
    assert_eq!(body["error"]["code"], "budget_exhausted");
    assert!(
        body["error"]["message"].as_str().unwrap().ends_with("T00:00:00Z"),
        "{body}"
    );
    assert_eq!(refused.headers["retry-after"], refused.headers["x-budget-reset"]);
    assert!(
        run(&plugin, get("/", &[("x-mse-consumer", "bob")]))
            .await
            .forwarded
    );
    assert!(run(&plugin, get("/", &[])).await.forwarded);
}

#[test]
fn faults_name_their_field() {
    for (config, expected) in [
        (json!({}), "budgets: must be a list"),
        (json!({"budgets": [{"day": 1}]}), "budgets[0].consumer: must be"),
        (
            json!({"budgets": [{"consumer": "a"}]}),
            "budgets[0]: day or month",
        ),
        (
            json!({"budgets": [{"consumer": "a", "day": -1}]}),
            "budgets[0].day: must be an amount",
        ),
        (
            json!({"budgets": [{"consumer": "a", "month": "x"}]}),
            "budgets[0].month: must be an amount",
        ),
    ] {
        let message = fault("ai-budget", &config);
        assert!(message.starts_with(expected), "{message}");
    }
}
