//! What the model is asked, what the client gets, and what is said when either fails.

use serde_json::{Value, json};
use tollgate_base::{Error, Timer};
use tollgate_body::{Body, Response};

use crate::test_chain::{Behind, get, global, run, run_before};

const NAME: &str = "chatgpt-proxy";

fn config() -> Value {
    json!({"apiKey": "sk-1", "model": "curie", "promptParam": "text"})
}

fn told() -> Response {
    http::Response::builder()
        .status(200)
        .header("content-type", "application/json")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .body(Body::bytes(
            r#"{"model":"curie","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
        ))
        .unwrap()
}

#[tokio::test]
async fn a_parameter_is_asked_and_the_answer_answered() {
    let plugin = global(NAME, &config()).unwrap();
    let behind = Behind::default();
    behind.services.answers.borrow_mut().push_back(Ok(told()));
    let request = get(
        "/?a=1&text=Say,+%22hello%22",
        &[("apikey", "xxxxxx"), ("x-mse-consumer", "consumer1")],
    );
    let went = run_before(&plugin, request, &behind).await;
    assert_eq!(
        (went.status, went.details.as_str()),
        (200, "chatgpt-proxy.forward")
    );
    assert_eq!(
        (went.header("x-twice"), went.upstream.is_none()),
        ("1".to_owned(), true)
    );
    let call = &went.calls[0];
    assert_eq!(
        (call.method.as_str(), call.uri.to_string().as_str()),
        ("POST", "/v1/completions")
    );
    assert_eq!(call.header("host"), "api.openai.com");
    assert_eq!(call.header("authorization"), "Bearer sk-1");
    assert_eq!(call.timeout.as_secs(), 10);
    assert_eq!(
        call.headers.len(),
        3,
        "nothing of the client's: {:?}",
        call.headers
    );
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(
        body,
        json!({"model": "curie", "prompt": "Say, \"hello\"", "temperature": 0.9, "max_tokens": 150, "top_p": 1,
            "frequency_penalty": 0.0, "presence_penalty": 0.6, "stop": [" Human:", " AI:"]})
    );
    let usage = went.exchange.record.usage.borrow();
    assert_eq!((usage.tokens.total, usage.model_name()), (7, Some("curie")));
}

#[tokio::test]
async fn requests_without_a_prompt() {
    let plugin = global(NAME, &config()).unwrap();
    for (uri, line) in [
        ("/", "400 [1-need prompt param] chatgpt-proxy.empty_query_string"),
        (
            "/?text=%zz",
            "400 [2-need prompt param] chatgpt-proxy.bad_query_string",
        ),
        ("/?a=1", "400 [3-need prompt param] chatgpt-proxy.no_prompt"),
        ("/?", "400 [3-need prompt param] chatgpt-proxy.no_prompt"),
    ] {
        let went = run(&plugin, get(uri, &[])).await;
        assert_eq!(went.line(), line, "{uri}");
        assert!(went.calls.is_empty());
    }
    let behind = Behind::default();
    behind.services.answers.borrow_mut().push_back(Ok(told()));
    assert_eq!(
        run_before(&plugin, get("/?text=", &[]), &behind).await.status,
        200
    );
}

#[tokio::test]
async fn a_model_that_does_not_answer() {
    let plugin = global(NAME, &config()).unwrap();
    let nowhere = run(&plugin, get("/?text=a", &[])).await;
    assert_eq!(
        nowhere.line(),
        "500 [Internal Error: the route has no destination] chatgpt-proxy.request_failed"
    );
    let behind = Behind::default();
    let late = Error::timeout(Timer::Total);
    behind.services.answers.borrow_mut().push_back(Err(late));
    let went = run_before(&plugin, get("/?text=a", &[]), &behind).await;
    assert_eq!((went.status, went.body.as_str()), (502, ""));
}

#[test]
fn what_is_wrong_is_told() {
    for (config, message) in [
        (json!({}), "apiKey: no apiKey found in config"),
        (json!({"apiKey": "k\n"}), "apiKey: cannot be sent in a header"),
        (
            json!({"apiKey": "k", "chatgptUri": "http://a.com"}),
            "chatgptUri: not found path in chatgptUri",
        ),
        (
            json!({"apiKey": "k", "chatgptUri": "/v1"}),
            "chatgptUri: not found host in chatgptUri",
        ),
    ] {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message));
    }
    for uri in ["api.openai.com/v1/completions", "https://x/y?z=1"] {
        assert!(global(NAME, &json!({"apiKey": "k", "chatgptUri": uri})).is_ok());
    }
}
