//! The list's shape; which models are in it is the data plane's business.

use serde_json::{Value, json};

use crate::testing::{compiled, get, post, run};

#[tokio::test]
async fn the_list_and_one_of_it_are_openais() {
    let plugin = compiled("model-list", &json!({"models": ["b", "a"], "owned_by": "us"})).unwrap();
    let ask = async |path: &str| {
        let outcome = run(&plugin, get(path, &[])).await;
        assert_eq!(outcome.headers["content-type"], "application/json");
        (
            outcome.status,
            serde_json::from_str::<Value>(&outcome.text).unwrap(),
        )
    };
    let model = |name: &str| json!({"id": name, "object": "model", "created": 0, "owned_by": "us"});
    let list = json!({"object": "list", "data": [model("a"), model("b")]});
    assert_eq!(ask("/v1/models").await, (200, list.clone()));
    assert_eq!(ask("/api/v1/models/").await, (200, list));
    assert_eq!(ask("/v1/models/b").await, (200, model("b")));
    let (status, missing) = ask("/v1/models/c").await;
    assert_eq!(
        (status, &missing["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    for request in [
        post("/v1/models", &[], "{}"),
        get("/v1/modelsx", &[]),
        get("/v1/chat/completions", &[]),
    ] {
        assert!(run(&plugin, request).await.forwarded);
    }
}
