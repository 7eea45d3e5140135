//! Who may chat, what it costs, and the administrator's requests.

use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_body::{Body, Request};
use tollgate_observe::usage::Tokens;
use tollgate_plugin::Plugin;

use crate::testing::{Outcome, compiled, fault, get, post, run, run_left, run_with};

const CHAT: &str = "/v1/chat/completions";

fn quota(more: Value) -> Arc<dyn Plugin> {
    let mut config = json!({"admin_consumer": "root"});
    let members = more.as_object().cloned().unwrap_or_default();
    config.as_object_mut().unwrap().extend(members);
    compiled("ai-quota", &config).unwrap()
}

async fn admin(plugin: &Arc<dyn Plugin>, path: &str, body: &'static str) -> Outcome {
    let uri = format!("{CHAT}/quota{path}");
    run(plugin, post(&uri, &[("x-mse-consumer", "root")], body)).await
}

async fn chat(plugin: &Arc<dyn Plugin>) -> u16 {
    let vendor = |_: &Request| {
        let usage = r#"{"usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10}}"#;
        let response = http::Response::builder().header("content-type", "application/json");
        response.body(Body::bytes(usage)).unwrap()
    };
    let request = post(CHAT, &[("x-mse-consumer", "ann")], "{}");
    run_with(plugin, request, &vendor).await.status
}

#[tokio::test]
async fn a_quota_is_used_up_and_given_again() {
    let plugin = quota(json!({}));
    assert_eq!(chat(&plugin).await, 403, "nobody has given one");
    let given = admin(&plugin, "/refresh", "consumer=ann&quota=15").await;
    assert_eq!(
        (given.status, given.text.as_str()),
        (200, "refresh quota successful")
    );
    assert_eq!(given.headers["content-type"], "text/plain");
    assert_eq!(
        (chat(&plugin).await, chat(&plugin).await, chat(&plugin).await),
        (200, 200, 403)
    );
    let told = admin(&plugin, "?consumer=ann", "").await;
    assert_eq!(
        (told.status, told.text.as_str()),
        (200, r#"{"consumer":"ann","quota":-5}"#)
    );
    assert_eq!(told.headers["content-type"], "application/json");
    let changed = admin(&plugin, "/delta", "value=7&consumer=%61nn").await;
    assert_eq!(
        (changed.status, changed.text.as_str()),
        (200, "delta quota successful")
    );
    admin(&plugin, "/delta", "consumer=ann&value=-1").await;
    assert_eq!(
        admin(&plugin, "?consumer=ann", "").await.text,
        r#"{"consumer":"ann","quota":1}"#
    );
    assert_eq!(
        admin(&plugin, "?consumer=eve", "").await.text,
        r#"{"consumer":"eve","quota":0}"#
    );
    assert_eq!(chat(&plugin).await, 200);
}

#[tokio::test]
async fn refusals_are_higresss() {
    let plugin = quota(json!({}));
    let refused = async |request| {
        let outcome = run(&plugin, request).await;
        assert!(!outcome.forwarded);
        let details = outcome.record.details.borrow().clone().into_owned();
        (outcome.status, outcome.text, details)
    };
    let of = |status, text: &str, details: &str| (status, text.to_owned(), details.to_owned());
    let nobody = "Request denied by ai quota check. No Key Authentication information found.";
    assert_eq!(
        refused(get("/other", &[])).await,
        of(401, nobody, "ai-quota.no_key")
    );
    let unnamed = "Request denied by ai quota check. Unauthorized consumer.";
    assert_eq!(
        refused(get("/", &[("x-mse-consumer", "")])).await,
        of(403, unnamed, "ai-quota.unauthorized")
    );
    let empty = "Request denied by ai quota check, No quota left";
    let ann = [("x-mse-consumer", "ann")];
    assert_eq!(
        refused(post(CHAT, &ann, "{}")).await,
        of(403, empty, "ai-quota.noquota")
    );
    let not_root = "Request denied by ai quota check. Unauthorized admin consumer.";
    for end in ["/quota", "/quota/refresh", "/quota/delta"] {
        let request = post(&format!("/api{CHAT}{end}"), &ann, "consumer=ann&quota=9&value=9");
        assert_eq!(refused(request).await, of(403, not_root, "ai-quota.unauthorized"));
    }
    let root = [("x-mse-consumer", "root")];
    let no_name = "Request denied by ai quota check. consumer can't be empty.";
    assert_eq!(
        refused(get(&format!("{CHAT}/quota?consumer="), &root)).await,
        of(403, no_name, "ai-quota.unauthorized")
    );
    for body in [
        "",
        "quota=1",
        "consumer=ann&quota=x",
        "consumer=ann&quota=1.5",
        "consumer=&quota=1",
    ] {
        let (status, text, _) = refused(post(&format!("{CHAT}/quota/refresh"), &root, body)).await;
        assert_eq!(
            (
                status,
                text.ends_with("consumer can't be empty and quota must be integer.")
            ),
            (403, true)
        );
    }
    let (_, text, _) = refused(post(&format!("{CHAT}/quota/delta"), &root, "consumer=ann")).await;
    assert!(text.ends_with("value must be integer."));
    assert!(
        run(&plugin, get("/v1/models", &ann)).await.forwarded,
        "other paths pass"
    );
}

#[tokio::test]
async fn paths_and_prefixes_are_the_configs() {
    let plugin = quota(json!({"admin_path": "/limits", "redis_key_prefix": "q:"}));
    let root = [("x-mse-consumer", "root")];
    let uri = format!("{CHAT}/limits/refresh");
    assert_eq!(
        run(&plugin, post(&uri, &root, "consumer=ann&quota=15"))
            .await
            .status,
        200
    );
    assert_eq!(chat(&plugin).await, 200);
    assert!(run(&plugin, get(&format!("{CHAT}/quota"), &root)).await.forwarded);
}

#[tokio::test]
async fn without_its_redis_nobody_chats_unless_the_config_says_so() {
    let redis = json!({"service_name": "redis.static"});
    let closed = quota(json!({"redis": redis}));
    assert_eq!(chat(&closed).await, 403);
    let asked = admin(&closed, "?consumer=ann", "").await;
    assert_eq!(asked.status, 503);
    assert!(asked.text.starts_with("redis error:"), "{}", asked.text);
    let open = quota(json!({"redis": redis, "on_store_failure": "allow"}));
    assert_eq!(chat(&open).await, 200);
    assert_eq!(
        fault("ai-quota", &json!({})),
        "admin_consumer: missing admin_consumer in config"
    );
}

#[tokio::test(start_paused = true)]
async fn rounds_cost_though_the_client_left_between_them() {
    let plugin = quota(json!({}));
    admin(&plugin, "/refresh", "consumer=ann&quota=15").await;
    let spent = Tokens {
        input: 6,
        output: 4,
        total: 10,
        ..Tokens::default()
    };
    run_left(&plugin, post(CHAT, &[("x-mse-consumer", "ann")], "{}"), spent).await;
    assert_eq!(
        admin(&plugin, "?consumer=ann", "").await.text,
        r#"{"consumer":"ann","quota":5}"#
    );
}
