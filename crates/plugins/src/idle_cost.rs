//! What a plugin costs that is configured and has nothing to do for a request: beside one that only passes it on.
//! The bound of an unoptimised build is for a busy machine; `--nocapture` shows the figures.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tollgate_base::{Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::scene::Scene;
use crate::table::{self, ParseContext};

/// Requests that are timed together, and how often; the fastest counts.
const BATCH: u32 = 200;
const BATCHES: u32 = 200;

struct PassesOn;

#[async_trait(?Send)]
impl Plugin for PassesOn {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        next.run(exchange, request).await
    }
}

/// The fastest of many requests with nothing in them for a plugin, with all that the scene costs.
async fn request(plugin: &Arc<dyn Plugin>) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..BATCHES {
        let scene = Scene::new(plugin.clone());
        for _ in 0..BATCH {
            scene.forwards(200, "{}");
        }
        let began = clock::now();
        for _ in 0..BATCH {
            scene.send("GET", "/v1/models", &[], String::new()).await.unwrap();
        }
        fastest = fastest.min(began.elapsed() / BATCH);
    }
    fastest
}

fn configs() -> [(&'static str, Value); 4] {
    [
        (
            "ai-agent",
            json!({
                "llm": {"serviceName": "qwen.dns", "domain": "d", "path": "/v1/chat/completions", "model": "m"},
                "apis": [{
                    "apiProvider": {"serviceName": "w.dns", "servicePort": 443, "domain": "w"},
                    "api": "openapi: 3.1.0\nservers: [{url: 'https://w'}]\npaths: {/now: {get: {operationId: now, description: d}}}"
                }]
            }),
        ),
        (
            "ai-json-resp",
            json!({"serviceName": "qwen", "serviceDomain": "d", "jsonSchema": {"type": "object"}}),
        ),
        (
            "ai-prompt-decorator",
            json!({"prepend": [{"role": "system", "content": "c"}]}),
        ),
        (
            "ai-prompt-template",
            json!({"templates": [{"name": "t", "template": {"model": "m", "messages": []}}]}),
        ),
    ]
}

#[tokio::test]
async fn a_plugin_with_nothing_to_do_costs_next_to_nothing() {
    let nothing: Arc<dyn Plugin> = Arc::new(PassesOn);
    for (name, config) in configs() {
        let parse = table::find(name).unwrap().parse;
        let plugin = parse(Some(&config), None, &ParseContext::default()).unwrap();
        let without = request(&nothing).await;
        let with = request(&plugin).await;
        let costs = with.saturating_sub(without);
        println!("{name}: {costs:?} beside {without:?} without it");
        let limit = if cfg!(debug_assertions) { 50 } else { 1 };
        assert!(costs < Duration::from_micros(limit), "{name}: {costs:?}");
    }
}
