//! The first document's section on JSON: its requests and answers, its YAML, against a TLS vendor of the real name.

use serde_json::{Value, json};
use tollgate_mock_llm::Handle;
use tollgate_testkit::client::{Answer, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{CHAT_PATH, DASHSCOPE, Sight, dashscope};

const DOCUMENTS: &str = include_str!("../examples/ai-json-resp/02-ai-json-resp.yaml");
const PATH: &str = "/compatible-mode/v1/chat/completions";
const TOKEN: &str = "sk-of-the-gateway";

fn scene() -> (Handle, Gateway) {
    let (vendor, start) = dashscope("02-ai-json-resp.yaml", DOCUMENTS);
    (vendor, start.variable("LLM_PATH", PATH).go().unwrap())
}

/// The document's request, byte for byte, for one of its models.
fn request(model: &str) -> String {
    format!(
        r#"{{
    "model":"{model}",
    "messages": [
      {{
        "role": "user",
        "content": "2x + 7 = 17，x 等于多少"
      }}
    ]
}}"#
    )
}

async fn ask(gateway: &Gateway, model: &str) -> Answer {
    let mut request = post_json(CHAT_PATH, request(model));
    let key = "Bearer sk-of-the-client".parse().unwrap();
    request.headers_mut().insert("authorization", key);
    send(gateway.http, request).await.unwrap()
}

#[tokio::test]
async fn the_two_good_models_give_the_documents_json() {
    let (_vendor, gateway) = scene();
    let max = json!({
      "reasoning_steps": [
        "给定方程：2x + 7 = 17",
        "步骤1：首先，从等式的两边减去常数项 7，以消掉加在 x 上的 7：",
        "   2x + 7 - 7 = 17 - 7",
        "   得到：2x = 10",
        "步骤2：然后，为了得到 x 的值，我们需要将两边都除以 x 的系数 2：",
        "   2x / 2 = 10 / 2",
        "   得到：x = 5"
      ],
      "answer": "因此，x 的值为 5."
    });
    let plus = json!({
      "reasoning_steps": [
        "2x + 7 = 17",
        "首先，减去7：2x = 17 - 7",
        "2x = 10",
        "然后，除以2：x = 10 / 2",
        "x = 5"
      ],
      "answer": "x等于5"
    });
    for (model, expected) in [("qwen-max-0403", max), ("qwen-plus", plus)] {
        let answer = ask(&gateway, model).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(
            answer.header("content-disposition"),
            "attachment; filename=\"response.json\""
        );
        assert_eq!(answer.json(), expected, "{model}");
    }
}

#[tokio::test]
async fn the_small_model_fails_in_the_documents_words() {
    let (vendor, gateway) = scene();
    let answer = ask(&gateway, "qwen-turbo").await;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.text(),
        r#"{"Code":1006,"Msg":"retry count exceeds max retry count: response body does not contain the valid json: invalid character '[' in string escape code"}"#
    );
    assert_eq!(vendor.requests().len(), 4, "the first call and three repairs");
    let line = gateway.line_of(answer.header("x-request-id"));
    assert_eq!(line["response_code"], "500");
    assert_eq!(
        line["response_code_details"],
        "ai-json-resp.retry_count_exceeds_max_retry_count"
    );
    gateway.terminated("upstream_error", 1.0).await;
}

#[tokio::test]
async fn rounds_are_attempts_with_the_gateways_token_and_all_of_them_are_charged() {
    let (vendor, gateway) = scene();
    let answer = ask(&gateway, "qwen-max-0403").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rounds = vendor.requests();
    assert_eq!(rounds.len(), 2);
    let mut tokens = 0;
    for round in &rounds {
        assert_eq!((round.path(), round.host()), (PATH, Some(DASHSCOPE)));
        assert_eq!(
            round.header("authorization"),
            Some(format!("Bearer {TOKEN}").as_str())
        );
        tokens += round.body.len();
    }
    assert!(tokens > 0);
    assert_eq!(rounds[0].body, request("qwen-max-0403"), "the client's own bytes");
    let repair: Value = rounds[1].json();
    let last = repair["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["role"], "user");
    let line = gateway.line_of(answer.header("x-request-id"));
    assert_eq!(line["response_code_details"], "via_upstream");
    gateway.terminated("completed", 1.0).await;
    let spent = gateway
        .metric(r#"tollgate_usage_tokens_total{source="provider",type="input"}"#)
        .await;
    assert!(spent > 100.0, "both rounds are counted: {spent}");
    let counted = gateway
        .metric(r#"tollgate_plugin_outcomes_total{plugin="ai-json-resp",outcome="repaired"}"#)
        .await;
    assert_eq!(counted, 1.0);
}
