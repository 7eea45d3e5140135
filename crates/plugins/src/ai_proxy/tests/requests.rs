//! What a vendor gets.

use http_body_util::BodyExt;
use serde_json::json;

use super::*;

fn messages() -> Value {
    json!([{"role": "user", "content": "hi"}])
}

#[tokio::test]
async fn the_first_documents_request() {
    let provider = json!({"type": "qwen", "apiTokens": ["sk-secret"],
        "modelMapping": {"gpt-3": "qwen-turbo", "gpt-4-turbo": "qwen-max", "*": "qwen-turbo"}});
    let request = chat(json!({"model": "gpt-4-turbo", "messages": messages()}));
    let seen = sent(provider, request).await;
    assert_eq!(
        seen.uri,
        "http://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"
    );
    assert_eq!(seen.header("host"), Some("dashscope.aliyuncs.com"));
    assert_eq!(seen.header("authorization"), Some("Bearer sk-secret"));
    assert_eq!(seen.header("accept-encoding"), None);
    assert_eq!(seen.header("x-envoy-original-path"), Some("/v1/chat/completions"));
    assert_eq!(seen.header("x-envoy-original-host"), Some("gateway"));
    assert_eq!(seen.json(), json!({"model": "qwen-max", "messages": messages()}));
}

#[tokio::test]
async fn only_the_touched_bytes_change() {
    let body = "{ \"x\" : 1.50e1,\n\"model\":\"m\" , \"messages\":[ ],\"stream\" : true}";
    let unmapped = sent(json!({"type": "openai"}), post("/v1/chat/completions", body)).await;
    assert_eq!(
        unmapped.body,
        "{ \"x\" : 1.50e1,\n\"model\":\"m\" , \"messages\":[ ],\"stream\" : true,\"stream_options\":{\"include_usage\":true}}"
    );
    assert_eq!(unmapped.header("accept"), Some("text/event-stream"));
    assert_eq!(unmapped.header("content-length"), None);
    let mapped = json!({"type": "openai", "modelMapping": {"*": "other"}});
    let seen = sent(
        mapped,
        post("/v1/embeddings", "{\"input\":\"a\", \"model\" : \"m\" }"),
    )
    .await;
    assert_eq!(seen.body, "{\"input\":\"a\", \"model\" : \"other\" }");
    let explicit = r#"{"model":"m","stream":true,"stream_options":{"include_usage":false}}"#;
    let kept = sent(json!({"type": "openai"}), post("/v1/chat/completions", explicit)).await;
    assert_eq!(kept.body, explicit);
}

#[tokio::test]
async fn an_absent_model_is_mapped_too() {
    let no_model = r#"{"messages":[]}"#;
    let empty = sent(json!({"type": "openai"}), post("/v1/chat/completions", no_model)).await;
    assert_eq!(empty.body, r#"{"messages":[],"model":""}"#);
    let star = json!({"type": "openai", "modelMapping": {"*": "x"}});
    let mapped = sent(star, post("/v1/chat/completions", no_model)).await;
    assert_eq!(mapped.body, r#"{"messages":[],"model":"x"}"#);
    let qwen = json!({"type": "qwen", "apiTokens": "t", "modelMapping": {"*": "x"}});
    let conversations = sent(qwen, post("/v1/conversations", "{\"metadata\":{}}")).await;
    assert_eq!(conversations.body, "{\"metadata\":{}}");
    assert_eq!(
        conversations.uri,
        "http://dashscope.aliyuncs.com/compatible-mode/v1/conversations"
    );
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten_in_order() {
    let provider =
        json!({"type": "openai", "basePath": "/ai", "providerBasePath": "/pb", "providerDomain": "pd.local"});
    let request = post("/ai/v1/chat/completions?q=1", "{}");
    assert_eq!(
        sent(provider, request).await.uri,
        "http://pd.local/pb/v1/chat/completions?q=1"
    );
    let original = json!({"type": "deepseek", "apiTokens": ["t"], "protocol": "original", "basePath": "/x"});
    let seen = sent(original, post("/x/v1/chat/completions", "{\"model\" :1}")).await;
    assert_eq!(seen.uri, "http://api.deepseek.com/v1/chat/completions");
    assert_eq!(seen.body, "{\"model\" :1}");
    let prepend = json!({"type": "generic", "genericHost": "g.local", "basePath": "/custom", "basePathHandling": "prepend"});
    assert_eq!(
        sent(prepend, post("/v1/echo", "{}")).await.uri,
        "http://g.local/custom/v1/echo"
    );
    let slashes = json!({"type": "openai", "providerBasePath": "/api/ai/"});
    let seen = sent(slashes, post("/v1/chat/completions", "{}")).await;
    assert_eq!(seen.uri, "http://api.openai.com/api/ai//v1/chat/completions");
}

#[tokio::test]
async fn custom_urls_of_openai() {
    let uri = async |url: &str, path: &str| {
        let provider = json!({"type": "openai", "openaiCustomUrl": url});
        sent(provider, post(path, "{}")).await.uri
    };
    assert_eq!(
        uri("https://c.com/api", "/v1/audio/transcriptions").await,
        "http://c.com/api/audio/transcriptions"
    );
    assert_eq!(
        uri("https://c.com/api", "/v1/realtime?model=m").await,
        "http://c.com/api/realtime?model=m"
    );
    assert_eq!(
        uri("h/my/v1", "/v1/files/f-1/content?x=1").await,
        "http://h/my/v1/files/f-1/content?x=1"
    );
    assert_eq!(
        uri("https://c.com/v1/realtime/sessions", "/v1/realtime").await,
        "http://c.com/v1/realtime/sessions/realtime"
    );
    assert_eq!(
        uri("http://c.com/v1/chat/completions", "/anything?x=1").await,
        "http://c.com/v1/chat/completions"
    );
}

#[tokio::test]
async fn no_vendor_sees_the_clients_credentials() {
    let rows = tollgate_llm::providers::table::ROWS;
    for row in rows
        .iter()
        .filter(|row| row.built && row.name != "generic" && row.name != "openai")
    {
        let provider = json!({"type": row.name, "apiTokens": ["own"], "ollamaServerHost": "o", "ollamaServerPort": 1,
            "azureServiceUrl": "https://r.azure.com?api-version=V"});
        let mut request = chat(json!({"model": "m", "messages": messages()}));
        for name in [
            "x-api-key",
            "x-authorization",
            "api-key",
            "x-goog-api-key",
            "x-hi-original-auth",
            "x-mse-consumer",
        ] {
            request.headers_mut().insert(name, "clients-own".parse().unwrap());
        }
        let seen = sent(provider, request).await;
        let leaked = seen
            .headers
            .values()
            .any(|value| value.as_bytes().ends_with(b"clients-own"));
        assert!(!leaked, "{}: {:?}", row.name, seen.headers);
    }
}

#[tokio::test]
async fn openai_without_tokens_takes_the_clients() {
    let mut request = chat(json!({"model": "m"}));
    request
        .headers_mut()
        .insert("x-api-key", "sk-client".parse().unwrap());
    let seen = sent(json!({"type": "openai"}), request).await;
    assert_eq!(seen.header("authorization"), Some("Bearer sk-client"));
    assert_eq!(seen.header("x-api-key"), None);
    let own = sent(json!({"type": "openai"}), chat(json!({"model": "m"}))).await;
    assert_eq!(own.header("authorization"), Some("Bearer clients-own"));
    let generic = sent(json!({"type": "generic"}), chat(json!({"model": "m"}))).await;
    assert_eq!(generic.header("authorization"), Some("Bearer clients-own"));
    assert_eq!(generic.body, "{\"model\":\"m\"}");
}

#[tokio::test]
async fn custom_settings_come_first() {
    let settings = json!([{"name": "max_tokens", "value": 7}, {"name": "temperature", "value": 0.1, "overwrite": false},
        {"name": "top_k", "value": 3}, {"name": "foo.bar", "value": true, "mode": "raw"}]);
    let provider = json!({"type": "openai", "customSettings": settings});
    let request = chat(json!({"model": "g", "temperature": 0.9}));
    let expected = json!({"model": "g", "temperature": 0.9, "max_tokens": 7, "foo": {"bar": true}});
    assert_eq!(sent(provider, request).await.json(), expected);
}

#[tokio::test]
async fn developers_become_systems_in_place() {
    let body = r#"{"model":"a","temperature":0,"x_unknown":1,"messages":[{"role":"developer","content":"d"},{"role":"user","content":"developer"}]}"#;
    let seen = sent(json!({"type": "openai"}), post("/v1/chat/completions", body)).await;
    assert_eq!(
        seen.body,
        body.replace("\"role\":\"developer\"", "\"role\":\"system\"")
    );
}

#[tokio::test]
async fn vendors_own_edits() {
    let body = async |provider: Value, path: &str, body: Value| {
        sent(provider, post(path, &body.to_string())).await.json()
    };
    let doubao = json!({"type": "doubao", "apiTokens": ["t"]});
    let image = body(doubao.clone(), "/v1/images/generations", json!({"model": "m"})).await;
    assert_eq!(image, json!({"model": "m", "watermark": false}));
    let responses = body(
        doubao,
        "/v1/responses",
        json!({"model": "m", "tool_choice": "auto", "parallel_tool_calls": true}),
    )
    .await;
    assert_eq!(responses, json!({"model": "m"}));
    let openrouter = json!({"type": "openrouter", "apiTokens": ["t"]});
    let chat_path = "/v1/chat/completions";
    let asked = body(
        openrouter,
        chat_path,
        json!({"model": "m", "reasoning_max_tokens": 9, "reasoning_effort": "low"}),
    )
    .await;
    assert_eq!(asked, json!({"model": "m", "reasoning": {"max_tokens": 9}}));
    let zhipu = json!({"type": "zhipuai", "apiTokens": ["t"]});
    let thinking = body(zhipu, chat_path, json!({"model": "m", "reasoning_effort": "low"})).await;
    assert_eq!(thinking, json!({"model": "m", "thinking": {"type": "enabled"}}));
    let schema = json!({"type": "longcat", "apiTokens": ["t"], "responseJsonSchema": {"a": 1}, "modelMapping": {"*": "x"}});
    let formatted = body(schema, chat_path, json!({"model": "m"})).await;
    assert_eq!(formatted, json!({"model": "x", "response_format": {"a": 1}}));
}

#[tokio::test]
async fn a_claude_client_reaches_an_openai_vendor() {
    let request = json!({"model": "claude-x", "max_tokens": 5, "thinking": {"type": "enabled", "budget_tokens": 10000},
        "messages": messages()});
    let openrouter = json!({"type": "openrouter", "apiTokens": ["t"], "modelMapping": {"*": "gpt"}});
    let seen = sent(openrouter, post("/v1/messages?beta=true", &request.to_string())).await;
    assert_eq!(seen.uri, "http://openrouter.ai/api/v1/chat/completions");
    let expected =
        json!({"model": "gpt", "messages": messages(), "max_tokens": 5, "reasoning": {"max_tokens": 10000}});
    assert_eq!(seen.json(), expected);
    let zhipu = json!({"type": "zhipuai", "apiTokens": ["t"]});
    let plain = json!({"model": "m", "messages": messages()});
    let seen = sent(zhipu, post("/v1/messages", &plain.to_string())).await;
    assert_eq!(seen.json()["thinking"], json!({"type": "disabled"}));
    let native = json!({"type": "deepseek", "apiTokens": ["t"]});
    let seen = sent(native, post("/v1/messages?beta=true", &request.to_string())).await;
    assert_eq!(
        seen.uri,
        "http://api.deepseek.com/anthropic/v1/messages?beta=true"
    );
    assert_eq!(seen.body, request.to_string());
}

#[tokio::test]
async fn claude_gets_its_own_dialect() {
    let provider = json!({"type": "claude", "apiTokens": ["sk-ant"], "modelMapping": {"*": "claude-y"}});
    let request = json!({"model": "gpt", "stream": true, "messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "hi"}]});
    let seen = sent(provider.clone(), chat(request)).await;
    assert_eq!(seen.uri, "http://api.anthropic.com/v1/messages");
    assert_eq!(seen.header("x-api-key"), Some("sk-ant"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    let expected = json!({"model": "claude-y", "messages": messages(), "system": "s", "max_tokens": 4096, "stream": true});
    assert_eq!(seen.json(), expected);
    let body = json!({"model": "gpt", "unknown": {"a": 1}, "messages": []});
    let native = sent(provider, post("/v1/messages", &body.to_string())).await;
    assert_eq!(native.body, body.to_string().replace("gpt", "claude-y"));
}

#[tokio::test]
async fn what_is_not_read_passes() {
    let mut text = post("/v1/chat/completions", "not json");
    text.headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    let seen = sent(json!({"type": "openai"}), text).await;
    assert_eq!(
        (seen.body.as_ref(), seen.header("content-length")),
        (&b"not json"[..], Some("8"))
    );
    let unknown = sent(
        json!({"type": "deepseek", "apiTokens": ["t"]}),
        post("/v1/unknown", "nope"),
    )
    .await;
    assert_eq!(unknown.uri, "http://api.deepseek.com/v1/unknown");
    assert_eq!(unknown.body, "nope");
    let mut list = post("/v1/models", "");
    *list.method_mut() = Method::GET;
    let models = sent(json!({"type": "mistral", "apiTokens": ["t"]}), list).await;
    assert_eq!(models.uri, "http://api.mistral.ai/v1/models");
    let coze = sent(
        json!({"type": "coze", "apiTokens": ["t"]}),
        post("/v1/messages", "{}"),
    )
    .await;
    assert_eq!(coze.uri, "http://api.coze.cn/v1/messages");
}

#[tokio::test]
async fn without_an_active_provider_nothing_happens() {
    let plugin = parse(
        Some(&json!({"providers": [{"id": "a", "type": "nonsense"}]})),
        None,
    )
    .unwrap();
    let vendor = Vendor::default();
    run(&plugin, &vendor, post("/v1/chat/completions", "nope")).await;
    let seen = vendor.seen.borrow();
    assert_eq!(seen[0].uri, "/v1/chat/completions");
    assert_eq!(seen[0].header("authorization"), Some("Bearer clients-own"));
}

#[tokio::test]
async fn a_rule_chooses_among_the_global_providers() {
    let global = json!({"activeProviderId": "a", "providers": [
        {"id": "a", "type": "nonsense"}, {"id": "b", "type": "yi", "apiTokens": ["t"]}]});
    let vendor = Vendor::default();
    let chosen = parse(Some(&global), Some(&json!({"activeProviderId": "b"}))).unwrap();
    run(&chosen, &vendor, chat(json!({"model": "m"}))).await;
    assert_eq!(
        vendor.seen.borrow()[0].uri,
        "http://api.lingyiwanwu.com/v1/chat/completions"
    );
    assert!(
        parse(Some(&global), Some(&json!({}))).is_ok(),
        "a rule without a choice has no provider"
    );
    assert_eq!(
        parse(Some(&global), None).err().unwrap(),
        "providers[0].type: unknown provider type: nonsense"
    );
}

#[tokio::test]
async fn the_first_byte_has_its_own_timer() {
    let header = "x-envoy-upstream-rq-first-byte-timeout-ms";
    let provider = json!({"type": "openai", "firstByteTimeout": "1500"});
    let streaming = sent(provider.clone(), chat(json!({"model": "m", "stream": true}))).await;
    assert_eq!(streaming.header(header), Some("1500"));
    let mut plain = chat(json!({"model": "m"}));
    plain.headers_mut().insert(header, "1".parse().unwrap());
    assert_eq!(
        sent(provider, plain).await.header(header),
        None,
        "a client cannot set it"
    );
    let generic = json!({"type": "generic", "firstByteTimeout": 1500});
    assert_eq!(sent(generic, chat(json!({}))).await.header(header), Some("1500"));
}

#[tokio::test]
async fn a_prompt_that_passes_through_is_estimated_where_it_is_at_hand() {
    let provider = json!({"type": "openai", "apiTokens": ["t"], "protocol": "original"});
    let ask = json!({"contents": [{"parts": [{"text": "a".repeat(40)}]}]}).to_string();
    let vendor = Vendor::answering([Scripted::json(200, &json!([{"text": "abcdefgh"}]))]);
    let mut exchange = exchange();
    let request = post("/v1beta/models/m:streamGenerateContent", &ask);
    let answer = run_in(&mut exchange, &plugin(provider), &vendor, request)
        .await
        .unwrap();
    drop(answer.into_body().collect().await.unwrap());
    crate::testing::settled(&exchange.record);
    let usage = exchange.record.usage.borrow();
    assert_eq!((usage.tokens.input, usage.tokens.output), (10, 2));
}
