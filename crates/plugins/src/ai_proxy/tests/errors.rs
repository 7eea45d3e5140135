//! What a wrong config or request gets.

use serde_json::json;

use super::*;

fn fault(provider: Value) -> String {
    parse(Some(&json!({"provider": provider})), None).err().unwrap()
}

#[test]
fn configs_are_refused_with_the_references_words() {
    let cases = [
        (json!({}), "provider.type: missing type in provider config"),
        (
            json!({"type": "nvidia"}),
            "provider.type: unknown provider type: nvidia",
        ),
        (
            json!({"type": "gemini"}),
            "provider.type: provider type gemini is not supported yet",
        ),
        (
            json!({"type": "qwen"}),
            "provider.apiTokens: no apiToken found in provider config",
        ),
        (
            json!({"type": "qwen", "protocol": "x"}),
            "provider.protocol: invalid protocol in config",
        ),
        (
            json!({"type": "openai", "context": {}}),
            "provider.context.fileUrl: missing fileUrl in context config",
        ),
        (
            json!({"type": "openai", "context": {"fileUrl": "http://f"}}),
            "provider.context.serviceName: missing serviceName in context config",
        ),
        (
            json!({"type": "openai", "context": {"fileUrl": "http://f", "serviceName": "s"}}),
            "provider.context.servicePort: missing servicePort in context config",
        ),
        (
            json!({"type": "openai", "failover": {"enabled": true}}),
            "provider.failover.healthCheckModel: missing healthCheckModel in failover config",
        ),
        (
            json!({"type": "ollama"}),
            "provider.ollamaServerHost: missing ollamaServerHost in provider config",
        ),
        (
            json!({"type": "ollama", "ollamaServerHost": "h"}),
            "provider.ollamaServerPort: missing ollamaServerPort in provider config",
        ),
        (
            json!({"type": "hunyuan", "hunyuanAuthId": "x"}),
            "provider.hunyuanAuthId: hunyuanAuthId / hunyuanAuthKey is illegal in config file",
        ),
        (
            json!({"type": "minimax", "apiTokens": ["t"], "minimaxApiType": "pro"}),
            "provider.minimaxGroupId: missing minimaxGroupId in provider config when minimaxApiType is pro",
        ),
        (
            json!({"type": "openai", "providerDomain": "a b"}),
            "provider.providerDomain: invalid host \"a b\"",
        ),
    ];
    for (provider, expected) in cases {
        assert_eq!(fault(provider), expected);
    }
    assert!(
        fault(json!({"type": "openai", "modelMapping": {"~(": "x"}}))
            .starts_with("provider.modelMapping: invalid")
    );
}

#[test]
fn the_faulty_entry_of_a_list_is_named_and_others_are_not_looked_at() {
    let providers = json!({"activeProviderId": "b", "providers": [{"id": "a"}, {"id": "b", "type": "x"}]});
    assert_eq!(
        parse(Some(&providers), None).err().unwrap(),
        "providers[1].type: unknown provider type: x"
    );
    let warned = ParseContext::default();
    let config = json!({"activeProviderId": "zz", "providers": []});
    (find("ai-proxy").unwrap().parse)(Some(&config), None, &warned)
        .ok()
        .unwrap();
    assert_eq!(warned.take_warnings()[0].field, "activeProviderId");
}

async fn refusal(provider: Value, path: &str, body: &str) -> (u16, String, String) {
    let vendor = Vendor::default();
    let mut exchange = exchange();
    let response = run_in(&mut exchange, &plugin(provider), &vendor, post(path, body))
        .await
        .unwrap();
    assert!(vendor.seen.borrow().is_empty(), "nothing reaches the vendor");
    assert_eq!(*exchange.record.details.borrow(), "ai-proxy.proc_req_body_failed");
    assert_eq!(exchange.record.termination.get().unwrap().name(), "refused");
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    (status, content_type, text_of(response).await)
}

#[tokio::test]
async fn higress_texts_are_kept() {
    let claude = json!({"type": "claude", "apiTokens": ["t"]});
    let chat = "/v1/chat/completions";
    let cases = [
        (
            json!({"type": "deepseek", "apiTokens": ["t"]}),
            "/v1/embeddings",
            "{}",
            "unsupported API name",
        ),
        (
            json!({"type": "openai"}),
            chat,
            "[1]",
            "cannot set array element for non-numeric key 'model'",
        ),
        (claude.clone(), chat, "nope", "unable to unmarshal request: "),
        (claude.clone(), chat, "[]", "unable to unmarshal request: "),
        (
            claude.clone(),
            chat,
            r#"{"model":1,"messages":[{}]}"#,
            "unable to unmarshal request: ",
        ),
        (
            claude.clone(),
            chat,
            r#"{"model":"m"}"#,
            "no message found in the request body: {\"model\":\"m\"}",
        ),
        (
            claude,
            chat,
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            "missing model in request",
        ),
        (
            json!({"type": "openai"}),
            "/v1/messages",
            "nope",
            "failed to convert claude request to openai: unable to unmarshal claude request: ",
        ),
        (
            json!({"type": "openai"}),
            "/v1/messages",
            r#"{"messages":1}"#,
            "failed to convert claude request to openai: unable to unmarshal claude request: ",
        ),
    ];
    for (provider, path, body, expected) in cases {
        let (status, content_type, text) = refusal(provider, path, body).await;
        assert_eq!((status, content_type.as_str()), (500, "text/plain"), "{body}");
        let expected = format!("failed to process request body: {expected}");
        assert!(text.starts_with(&expected), "{text} / {expected}");
    }
}

#[tokio::test]
async fn what_higress_would_have_sent_broken_is_a_400_in_the_clients_dialect() {
    for body in [
        "not json",
        "\"scalar\"",
        "{\"model\":",
        "{\"model\":\"m\"} trailing",
    ] {
        let (status, content_type, text) =
            refusal(json!({"type": "openai"}), "/v1/chat/completions", body).await;
        assert_eq!(
            (status, content_type.as_str()),
            (400, "application/json"),
            "{body}"
        );
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert_eq!(error["error"]["code"], "invalid_request_body");
    }
    let native = json!({"type": "deepseek", "apiTokens": ["t"]});
    let (status, _, text) = refusal(native, "/v1/messages", "nope").await;
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &error["type"]), (400, &json!("error")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_names_it() {
    let mut request = post("/v1/chat/completions", "{}");
    let frames = (0..101).map(|_| Ok(Frame::data(Bytes::from(vec![b' '; 1024 * 1024]))));
    *request.body_mut() = Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(
        frames,
    )));
    let provider = plugin(json!({"type": "openai"}));
    let error = run_in(&mut exchange(), &provider, &Vendor::default(), request)
        .await
        .unwrap_err();
    assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        error.message().contains("ai-proxy body limit is 104857600 bytes"),
        "{error}"
    );
}
