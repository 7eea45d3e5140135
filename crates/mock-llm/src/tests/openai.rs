//! OpenAI's format: chat plain and streamed, tools, images, JSON answers, the other endpoints, errors.

use serde_json::{Value, json};

use super::client::{Answer, Ended, get, post};
use crate::{Handle, Options, start, tokens};

const CHAT: &str = "/v1/chat/completions";

fn mock() -> Handle {
    start(Options::default()).unwrap()
}

fn chat(mock: &Handle, body: &Value) -> Answer {
    post(mock.addr(), CHAT, &[], body).unwrap()
}

fn ask(model: &str, question: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": question }] })
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

/// The texts of all deltas joined.
fn streamed(answer: &Answer) -> String {
    answer
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[test]
fn the_documents_question_gets_the_documents_answer() {
    let mock = mock();
    let path = "/compatible-mode/v1/chat/completions";
    let answer = post(mock.addr(), path, &[], &ask("qwen-max-0403", "你是谁？")).unwrap();
    assert_eq!(answer.status, 200);
    let text = "我是阿里云开发的一款超大规模语言模型，我叫通义千问。作为一个AI助手，我的主要职责是为您提供准确、及时和有用的信息，帮助您解答各种问题、完成相关任务或者进行有益的对话。您可以向我提问关于知识性问题、实用建议、语言翻译、创意构思、信息查询等各种主题的内容，我会竭力为您提供支持。在与您交流的过程中，我会保持客观、中立，并尊重您的隐私。如果您有任何问题或需要帮助，请随时告诉我，我会竭诚为您服务。";
    let expected = json!({
        "id": "930774f8-7fc9-9d97-8d13-fc9201ae66f9",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "created": 1_726_192_573,
        "model": "qwen-max-0403",
        "object": "chat.completion",
        "usage": { "prompt_tokens": 11, "completion_tokens": 111, "total_tokens": 122 }
    });
    // The order of the members counts too.
    assert_eq!(answer.text(), expected.to_string());
}

#[test]
fn a_stream_says_what_the_plain_answer_says() {
    let mock = mock();
    for question in ["你是谁？", "tell me about rivers", ""] {
        let body = ask("qwen-max-0403", question);
        let plain = chat(&mock, &body).json();
        let body = with(
            with(body, "stream", json!(true)),
            "stream_options",
            json!({ "include_usage": true }),
        );
        let stream = chat(&mock, &body);
        assert_eq!(
            stream.header("content-type"),
            Some("text/event-stream;charset=UTF-8")
        );
        assert_eq!(stream.ended, Ended::Whole);
        assert_eq!(
            streamed(&stream),
            plain["choices"][0]["message"]["content"].as_str().unwrap()
        );
        let events = stream.events();
        assert_eq!(
            events[0]["choices"][0]["delta"],
            json!({ "role": "assistant", "content": "" })
        );
        let last = events.last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], plain["usage"]);
        let finish = &events[events.len() - 2]["choices"][0];
        assert_eq!(
            (&finish["delta"], &finish["finish_reason"]),
            (&json!({}), &json!("stop"))
        );
        assert_eq!(stream.data().last().unwrap(), "[DONE]");
        assert!(events.iter().all(|event| event["id"] == plain["id"]));
        // One token an event, one event a chunk: role, tokens, finish, usage, [DONE].
        assert_eq!(events.len(), tokens::count(&streamed(&stream)) + 3);
        assert_eq!(stream.chunks.len(), events.len() + 1);
    }
}

#[test]
fn usage_comes_in_streams_only_when_asked_for() {
    let mock = mock();
    let answer = chat(&mock, &with(ask("m", "hi"), "stream", json!(true)));
    assert!(answer.events().iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn usage_adds_up_and_the_same_question_gets_the_same_answer() {
    let mock = mock();
    let one = chat(&mock, &ask("gpt-4o", "How are you?")).json();
    assert_eq!(one, chat(&mock, &ask("gpt-4o", "How are you?")).json());
    assert_ne!(
        one["id"],
        chat(&mock, &ask("gpt-4o", "How are they?")).json()["id"]
    );
    let text = one["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with("You said: \"How are you?\"."), "{text}");
    assert_eq!(one["usage"]["completion_tokens"], tokens::count(text));
    assert!(tokens::count(text) >= Options::default().reply_tokens);
    // 4 tokens of text, 4 for the message, 3 for the prompt.
    assert_eq!(one["usage"]["prompt_tokens"], 4 + 4 + 3);
    assert_eq!(one["usage"]["total_tokens"], tokens::count(text) + 11);
}

#[test]
fn max_tokens_cuts_the_answer() {
    let mock = mock();
    let answer = chat(
        &mock,
        &with(ask("qwen-max-0403", "你是谁？"), "max_tokens", json!(3)),
    )
    .json();
    assert_eq!(answer["choices"][0]["message"]["content"], "我是阿");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[test]
fn several_choices_are_answered_and_counted() {
    let mock = mock();
    let body = with(ask("gpt-4o", "hi"), "n", json!(2));
    let answer = chat(&mock, &body).json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    assert_eq!(answer["choices"][1]["index"], 1);
    let stream = chat(&mock, &with(body, "stream", json!(true)));
    let second: String = stream
        .events()
        .iter()
        .filter(|event| event["choices"][0]["index"] == 1)
        .filter_map(|event| {
            event["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(
        second,
        answer["choices"][1]["message"]["content"].as_str().unwrap()
    );
}

fn weather_tools() -> Value {
    json!([{ "type": "function", "function": { "name": "get_weather", "parameters": { "type": "object",
        "properties": { "city": { "type": "string" }, "unit": { "enum": ["c", "f"] }, "days": { "type": "integer" } } } } },
        { "type": "function", "function": { "name": "get_time", "parameters": { "type": "object", "properties": {} } } }])
}

#[test]
fn tools_are_called_by_name_and_their_answers_quoted() {
    let mock = mock();
    let body = with(
        ask("gpt-4o", "call get_weather for \"上海\" and 3 days"),
        "tools",
        weather_tools(),
    );
    let answer = chat(&mock, &body).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "get_weather");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "上海", "unit": "c", "days": 3 }));

    let stream = chat(&mock, &with(body.clone(), "stream", json!(true)));
    let events = stream.events();
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(
        (&calls[0]["id"], &calls[0]["function"]["name"]),
        (&call["id"], &json!("get_weather"))
    );
    let joined: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(joined, call["function"]["arguments"].as_str().unwrap());
    assert!(calls.len() > 4, "arguments come in fragments");

    let mut messages = body["messages"].clone();
    messages.as_array_mut().unwrap().extend([
        choice["message"].clone(),
        json!({ "role": "tool", "tool_call_id": call["id"], "content": "24 degrees" }),
    ]);
    let answer = chat(&mock, &with(body, "messages", messages)).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "工具返回：24 degrees");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn tool_choice_decides() {
    let mock = mock();
    let body = with(ask("gpt-4o", "hi"), "tools", weather_tools());
    for (choice, called) in [
        (json!("auto"), None),
        (json!("required"), Some("get_weather")),
        (
            json!({ "type": "function", "function": { "name": "get_time" } }),
            Some("get_time"),
        ),
    ] {
        let answer = chat(&mock, &with(body.clone(), "tool_choice", choice)).json();
        let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"];
        assert_eq!(call.as_str(), called);
    }
    let body = with(
        ask("gpt-4o", "get_weather and get_time"),
        "tools",
        weather_tools(),
    );
    let answer = chat(&mock, &body).json();
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let answer = chat(&mock, &with(body, "tool_choice", json!("none"))).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn images_are_counted() {
    let mock = mock();
    let content = json!([
        { "type": "text", "text": "What is this?" },
        { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
        { "type": "image_url", "image_url": { "url": "https://images.invalid/a.png" } }
    ]);
    let body = json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": content }] });
    let answer = chat(&mock, &body).json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(
        text.starts_with("I see 2 images. You said: \"What is this?\""),
        "{text}"
    );
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        4 + 4 + 3 + 2 * tokens::PER_IMAGE
    );
}

#[test]
fn json_answers_fit_their_schema() {
    let mock = mock();
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" }, "age": { "type": "integer" } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "person", "schema": schema } });
    let answer = chat(
        &mock,
        &with(ask("gpt-4o", "\"Ann\" is 7"), "response_format", format),
    )
    .json();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "{\"name\":\"Ann\",\"age\":7}"
    );
    let format = json!({ "type": "json_object" });
    let answer = chat(&mock, &with(ask("gpt-4o", "hi"), "response_format", format)).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"answer\":\"hi\"}");
}

#[test]
fn reasoning_comes_before_the_text_and_is_counted() {
    let mock = mock();
    let body = with(ask("deepseek-reasoner", "hi"), "reasoning_effort", json!("low"));
    let plain = chat(&mock, &body).json();
    let message = &plain["choices"][0]["message"];
    let reasoning = message["reasoning_content"].as_str().unwrap();
    let counted = tokens::count(reasoning);
    assert_eq!(
        plain["usage"]["completion_tokens_details"]["reasoning_tokens"],
        counted
    );
    assert_eq!(
        plain["usage"]["completion_tokens"],
        counted + tokens::count(message["content"].as_str().unwrap())
    );
    let stream = chat(&mock, &with(body, "stream", json!(true)));
    let thought: String = stream
        .events()
        .iter()
        .filter_map(|event| {
            event["choices"][0]["delta"]["reasoning_content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(thought, reasoning);
}

#[test]
fn text_completions_answer_plain_and_streamed() {
    let mock = mock();
    let body = json!({ "model": "m", "prompt": "once upon", "max_tokens": 8 });
    let plain = post(mock.addr(), "/v1/completions", &[], &body).unwrap().json();
    assert_eq!(plain["object"], "text_completion");
    let stream = post(
        mock.addr(),
        "/v1/completions",
        &[],
        &with(body, "stream", json!(true)),
    )
    .unwrap();
    let text: String = stream
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, plain["choices"][0]["text"].as_str().unwrap());
    assert_eq!(plain["usage"]["completion_tokens"], 8);
}

#[test]
fn embeddings_are_unit_vectors_near_for_near_texts() {
    let mock = mock();
    let body = json!({ "model": "e", "dimensions": 64,
        "input": ["the cat sat on the mat", "the cat sat on a mat", "量子力学导论"] });
    let answer = post(mock.addr(), "/v1/embeddings", &[], &body).unwrap().json();
    let vectors: Vec<Vec<f64>> = (0..3)
        .map(|index| serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-3);
    assert!(dot(&vectors[0], &vectors[1]) > 0.7);
    assert!(dot(&vectors[0], &vectors[2]).abs() < 0.5);
    assert_eq!(answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]);

    let body = with(
        with(body, "encoding_format", json!("base64")),
        "input",
        json!("the cat sat on the mat"),
    );
    let answer = post(mock.addr(), "/v1/embeddings", &[], &body).unwrap().json();
    // 64 floats of 4 bytes, in groups of three bytes.
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 344);
}

#[test]
fn models_are_listed_and_found() {
    let mock = mock();
    let list = get(mock.addr(), "/v1/models").json();
    assert_eq!(list["object"], "list");
    assert!(
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "qwen-max-0403")
    );
    assert_eq!(get(mock.addr(), "/v1/models/gpt-4o").json()["object"], "model");
    let missing = get(mock.addr(), "/v1/models/no%20such");
    assert_eq!(missing.status, 404);
    assert_eq!(
        missing.json()["error"]["message"],
        "The model 'no such' does not exist"
    );
    assert_eq!(missing.json()["error"]["code"], "model_not_found");
}

#[test]
fn images_are_made() {
    let mock = mock();
    let body = json!({ "model": "i", "prompt": "a river", "n": 2 });
    let answer = post(mock.addr(), "/v1/images/generations", &[], &body)
        .unwrap()
        .json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert!(
        answer["data"][0]["b64_json"]
            .as_str()
            .unwrap()
            .starts_with("iVBOR")
    );
}

#[test]
fn bad_requests_are_refused_in_the_vendors_shape() {
    let mock = mock();
    for (body, part) in [
        (json!({ "messages": [] }), "model parameter"),
        (json!({ "model": "m" }), "messages parameter"),
        (json!({ "model": "m", "messages": [] }), "too short"),
        (
            json!({ "model": "m", "messages": [{ "role": "ghost" }] }),
            "messages.[0].role",
        ),
        (json!([]), "not a JSON object"),
        (ask("fault-nonsense", "hi"), "unknown fault `nonsense`"),
    ] {
        let answer = chat(&mock, &body);
        assert_eq!(answer.status, 400, "{body}");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    let answer = get(mock.addr(), CHAT);
    assert_eq!(answer.status, 405);
    let answer = get(mock.addr(), "/v2/nothing");
    assert_eq!(answer.status, 404);
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/v2/nothing")
    );
}

#[test]
fn keys_are_checked_only_when_wanted() {
    let open = mock();
    for (header, status) in [
        ("x: y", 200),
        ("authorization: Bearer sk-good", 200),
        ("authorization: Bearer sk-bad-1", 401),
    ] {
        assert_eq!(
            post(open.addr(), CHAT, &[header], &ask("m", "hi"))
                .unwrap()
                .status,
            status,
            "{header}"
        );
    }
    let closed = start(Options {
        require_key: true,
        ..Options::default()
    })
    .unwrap();
    let answer = post(closed.addr(), CHAT, &[], &ask("m", "hi")).unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    assert_eq!(
        post(closed.addr(), CHAT, &["api-key: k"], &ask("m", "hi"))
            .unwrap()
            .status,
        200
    );
}
