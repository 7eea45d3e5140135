//! The first document's scenario, its YAML verbatim, against a TLS vendor of the real name.

use serde_json::{Value, json};
use tollgate_mock_llm::{Authority, Handle, Options, Tls};
use tollgate_testkit::client::{Answer, post_json, send};
use tollgate_testkit::process::{Gateway, Start};

use crate::support::{CHAT_PATH, Sight, flags, gateway, mock};

/// The documents as published, with `${LLM}`, `${API_TOKEN}` and `${LLM_DOMAIN}` in them.
const DOCUMENTS: &str = include_str!("../examples/ai-proxy/01-ai-proxy.yaml");
const VENDOR: &str = "dashscope.aliyuncs.com";
const TOKEN: &str = "sk-of-the-gateway";

/// The document's request, byte for byte.
const REQUEST: &str = r#"{
    "model":"qwen-max-0403",
    "messages": [
      {
        "role": "user",
        "content": "你是谁？"
      }
    ]
}"#;

/// The document's answer.
fn published_answer() -> Value {
    json!({
      "id": "930774f8-7fc9-9d97-8d13-fc9201ae66f9",
      "choices": [
        {
          "index": 0,
          "message": {
            "role": "assistant",
            "content": "我是阿里云开发的一款超大规模语言模型，我叫通义千问。作为一个AI助手，我的主要职责是为您提供准确、及时和有用的信息，帮助您解答各种问题、完成相关任务或者进行有益的对话。您可以向我提问关于知识性问题、实用建议、语言翻译、创意构思、信息查询等各种主题的内容，我会竭力为您提供支持。在与您交流的过程中，我会保持客观、中立，并尊重您的隐私。如果您有任何问题或需要帮助，请随时告诉我，我会竭诚为您服务。"
          },
          "finish_reason": "stop"
        }
      ],
      "created": 1_726_192_573,
      "model": "qwen-max-0403",
      "object": "chat.completion",
      "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 111,
        "total_tokens": 122
      }
    })
}

fn vendor(tls: Tls) -> Handle {
    mock(Options {
        tls: Some(tls),
        ..Options::default()
    })
}

/// The document's environment; what is believed is the authority of this PEM.
fn start(vendor: &Handle, believed: &str) -> Start {
    let start = gateway().file("01-ai-proxy.yaml", DOCUMENTS).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, believed).unwrap();
    start
        .flag("--envsubst")
        .option("--resolve", format!("{VENDOR}:443:{}", vendor.addr()))
        .variable("SSL_CERT_FILE", roots.display())
        .variable("LLM", "qwen")
        .variable("LLM_DOMAIN", VENDOR)
        .variable("API_TOKEN", TOKEN)
}

fn scene() -> (Handle, Gateway) {
    let vendor = vendor(Tls::new(&[VENDOR]).unwrap());
    let gateway = start(&vendor, &vendor.authority_pem().unwrap()).go().unwrap();
    (vendor, gateway)
}

async fn ask(gateway: &Gateway, body: &str) -> Answer {
    let mut request = post_json(CHAT_PATH, body.to_owned());
    request
        .headers_mut()
        .insert("authorization", "Bearer sk-of-the-client".parse().unwrap());
    send(gateway.http, request).await.unwrap()
}

#[tokio::test]
async fn the_answer_is_the_documents() {
    let (_vendor, gateway) = scene();
    let answer = ask(&gateway, REQUEST).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), published_answer());
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        members(&answer.json()),
        members(&published_answer()),
        "the members' order"
    );
}

#[tokio::test]
async fn the_streamed_answer_says_the_same() {
    let (_vendor, gateway) = scene();
    let body = REQUEST.replacen('{', r#"{ "stream": true,"#, 1);
    let answer = ask(&gateway, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.header("content-type").starts_with("text/event-stream"),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.cut, None);
    let events = answer.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let said: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(said, published_answer()["choices"][0]["message"]["content"]);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk"),
        "{chunks:?}"
    );
    let finishes: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str())
        .collect();
    assert_eq!(finishes, ["stop"]);
}

#[tokio::test]
async fn the_vendor_is_reached_by_name_and_with_the_gateways_token() {
    let (vendor, gateway) = scene();
    assert_eq!(ask(&gateway, REQUEST).await.status, 200);
    let seen = vendor.requests().pop().unwrap();
    assert!(seen.connection.tls);
    assert_eq!(seen.connection.server_name.as_deref(), Some(VENDOR));
    assert_eq!(seen.path(), "/compatible-mode/v1/chat/completions");
    assert_eq!(seen.host(), Some(VENDOR));
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Bearer {TOKEN}").as_str())
    );
    let leaked = seen
        .headers
        .values()
        .any(|value| value.to_str().unwrap_or_default().contains("sk-of-the-client"));
    assert!(!leaked, "the client's key went to the vendor: {:?}", seen.headers);
    assert_eq!(seen.json(), serde_json::from_str::<Value>(REQUEST).unwrap());
    assert_eq!(seen.body, REQUEST, "an unchanged body is passed byte for byte");
}

#[tokio::test]
async fn route_and_cluster_have_higress_names_in_the_log() {
    let (_vendor, gateway) = scene();
    let answer = ask(&gateway, REQUEST).await;
    let line = gateway.line_of(answer.header("x-request-id"));
    assert_eq!(line["route_name"], "qwen");
    assert_eq!(line["upstream_cluster"], "outbound|443||qwen.dns");
    assert_eq!(line["response_code"], "200");
    assert_eq!(line["response_flags"], "-");
    assert_eq!(line["response_code_details"], "via_upstream");
}

#[tokio::test]
async fn a_vendor_with_an_unknown_authority_is_not_believed() {
    let vendor = vendor(Tls::new(&[VENDOR]).unwrap());
    let stranger = Authority::new().unwrap();
    let gateway = start(&vendor, &stranger.pem()).go().unwrap();
    distrusted(&vendor, &gateway, "not_signed_by_the_believed_authority").await;
}

#[tokio::test]
async fn a_vendor_with_another_name_is_not_believed() {
    let vendor = vendor(Tls::new(&["dashscope.example.com"]).unwrap());
    let gateway = start(&vendor, &vendor.authority_pem().unwrap()).go().unwrap();
    distrusted(&vendor, &gateway, "name_mismatch").await;
}

#[tokio::test]
async fn a_vendor_with_an_expired_certificate_is_not_believed() {
    let tls = Tls {
        validity: tollgate_mock_llm::Validity::Expired,
        ..Tls::new(&[VENDOR]).unwrap()
    };
    let vendor = vendor(tls);
    let gateway = start(&vendor, &vendor.authority_pem().unwrap()).go().unwrap();
    distrusted(&vendor, &gateway, "certificate_expired").await;
}

/// 503 `UF`; the reason is the operator's, not the client's.
async fn distrusted(vendor: &Handle, gateway: &Gateway, reason: &str) {
    let answer = ask(gateway, REQUEST).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        vendor.requests().is_empty(),
        "the token was sent to somebody who was not believed"
    );
    assert!(
        !answer.text().to_lowercase().contains("certificate"),
        "{}",
        answer.text()
    );
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
    let line = gateway.line_of(answer.header("x-request-id"));
    assert!(flags(&line["response_flags"]).contains(&"UF"), "{line}");
    let failure = line["upstream_transport_failure_reason"].as_str().unwrap();
    assert!(failure.contains(reason), "{failure}");
}

#[tokio::test]
async fn an_unset_variable_is_a_diagnostic_with_its_line() {
    let vendor = vendor(Tls::new(&[VENDOR]).unwrap());
    let gateway = gateway()
        .file("01-ai-proxy.yaml", DOCUMENTS)
        .unwrap()
        .flag("--envsubst")
        .option("--resolve", format!("{VENDOR}:443:{}", vendor.addr()))
        .variable("LLM", "qwen")
        .variable("LLM_DOMAIN", VENDOR)
        .go()
        .unwrap();
    // The plugin's document is refused, the other two are not: the request goes out without a token of ours.
    let line = gateway
        .errors
        .wait_for(|line| line.contains("API_TOKEN"))
        .unwrap();
    assert!(line.contains("01-ai-proxy.yaml:14: error"), "{line}");
}
