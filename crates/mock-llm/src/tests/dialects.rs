//! Anthropic's, DashScope's, Gemini's and the Responses format, and the first document's other dialogues.

use serde_json::{Value, json};

use super::client::{Answer, Ended, post};
use crate::{Handle, Options, start, tokens};

fn mock() -> Handle {
    start(Options::default()).unwrap()
}

const MESSAGES: &str = "/v1/messages";
const ANTHROPIC: [&str; 2] = ["x-api-key: k", "anthropic-version: 2023-06-01"];
const GENERATION: &str = "/api/v1/services/aigc/text-generation/generation";

fn message(question: &str) -> Value {
    json!({ "model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{ "role": "user", "content": question }] })
}

fn with(mut body: Value, key: &str, value: Value) -> Value {
    body[key] = value;
    body
}

fn anthropic(mock: &Handle, body: &Value) -> Answer {
    post(mock.addr(), MESSAGES, &ANTHROPIC, body).unwrap()
}

/// The names of the events, repeated ones once.
fn names(answer: &Answer) -> Vec<String> {
    let mut names: Vec<String> = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("event:"))
        .map(|name| name.trim().to_owned())
        .collect();
    names.dedup();
    names
}

#[test]
fn anthropic_answers_plain_and_streamed() {
    let mock = mock();
    let plain = anthropic(&mock, &message("hi")).json();
    assert_eq!(
        (&plain["type"], &plain["stop_reason"]),
        (&json!("message"), &json!("end_turn"))
    );
    let text = plain["content"][0]["text"].as_str().unwrap();
    assert_eq!(plain["usage"]["output_tokens"], tokens::count(text));
    assert_eq!(plain["usage"]["input_tokens"], 1 + 4 + 3);

    let stream = anthropic(&mock, &with(message("hi"), "stream", json!(true)));
    assert_eq!(
        names(&stream),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let events = stream.events();
    let joined: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(joined, text);
    let start = &events[0]["message"];
    assert_eq!(
        (&start["id"], &start["usage"]["output_tokens"]),
        (&plain["id"], &json!(1))
    );
    assert_eq!(start["usage"]["input_tokens"], plain["usage"]["input_tokens"]);
    let delta = &events[events.len() - 2];
    assert_eq!(delta["usage"]["output_tokens"], plain["usage"]["output_tokens"]);
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
}

#[test]
fn anthropic_thinks_and_uses_tools() {
    let mock = mock();
    let tools = json!([{ "name": "get_weather", "input_schema": { "type": "object", "properties": { "city": { "type": "string" } } } }]);
    let body = with(message("get_weather in \"Ürümqi\""), "tools", tools);
    let body = with(
        body,
        "thinking",
        json!({ "type": "enabled", "budget_tokens": 2000 }),
    );
    let plain = anthropic(&mock, &body).json();
    assert_eq!(plain["stop_reason"], "tool_use");
    assert_eq!(plain["content"][0]["type"], "thinking");
    let call = &plain["content"][1];
    assert_eq!(
        (&call["name"], &call["input"]),
        (&json!("get_weather"), &json!({ "city": "Ürümqi" }))
    );
    assert!(call["id"].as_str().unwrap().starts_with("toolu_"));

    let stream = anthropic(&mock, &with(body.clone(), "stream", json!(true)));
    let events = stream.events();
    let starts: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "content_block_start")
        .collect();
    assert_eq!(starts[0]["content_block"]["type"], "thinking");
    assert_eq!(
        (&starts[1]["index"], &starts[1]["content_block"]["id"]),
        (&json!(1), &call["id"])
    );
    let joined: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&joined).unwrap(), call["input"]);
    assert!(
        events
            .iter()
            .any(|event| event["delta"]["type"] == "signature_delta")
    );
    let stops = events
        .iter()
        .filter(|event| event["type"] == "content_block_stop")
        .count();
    assert_eq!(stops, starts.len());

    let result = json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": call["id"],
        "content": [{ "type": "text", "text": "13 degrees" }] }] });
    let mut messages = body["messages"].clone();
    messages.as_array_mut().unwrap().extend([
        json!({ "role": "assistant", "content": plain["content"] }),
        result,
    ]);
    let answer = anthropic(&mock, &with(body, "messages", messages)).json();
    assert_eq!(answer["content"][1]["text"], "The tool answered: 13 degrees");
}

#[test]
fn anthropic_counts_and_limits_tokens() {
    let mock = mock();
    let body =
        json!({ "model": "c", "system": "be brief", "messages": [{ "role": "user", "content": "hi" }] });
    let answer = post(mock.addr(), "/v1/messages/count_tokens", &ANTHROPIC, &body)
        .unwrap()
        .json();
    // "be", " bri" + "ef" → 2 of 4 letters each at most: be, brie, f.
    assert_eq!(answer, json!({ "input_tokens": (3 + 4) + (1 + 4) + 3 }));
    let answer = anthropic(&mock, &with(message("hi"), "max_tokens", json!(2))).json();
    assert_eq!(
        (&answer["stop_reason"], &answer["usage"]["output_tokens"]),
        (&json!("max_tokens"), &json!(2))
    );
}

#[test]
fn anthropic_refuses_in_its_own_shape() {
    let mock = mock();
    for (headers, body, status, kind) in [
        (
            &["anthropic-version: 2023-06-01"][..],
            message("hi"),
            401,
            "authentication_error",
        ),
        (
            &["x-api-key: sk-bad", "anthropic-version: 2023-06-01"],
            message("hi"),
            401,
            "authentication_error",
        ),
        (&["x-api-key: k"], message("hi"), 400, "invalid_request_error"),
        (
            &ANTHROPIC,
            json!({ "model": "c", "messages": [] }),
            400,
            "invalid_request_error",
        ),
        (
            &ANTHROPIC,
            with(message("hi"), "messages", json!([{ "role": "system" }])),
            400,
            "invalid_request_error",
        ),
        (
            &ANTHROPIC,
            with(message("hi"), "model", json!("fault-529")),
            529,
            "overloaded_error",
        ),
        (
            &ANTHROPIC,
            with(message("hi"), "model", json!("fault-429")),
            429,
            "rate_limit_error",
        ),
    ] {
        let answer = post(mock.addr(), MESSAGES, headers, &body).unwrap();
        let error = answer.json();
        assert_eq!(
            (answer.status, error["error"]["type"].as_str()),
            (status, Some(kind)),
            "{error}"
        );
        assert_eq!(error["type"], "error");
        assert!(error["request_id"].as_str().unwrap().starts_with("req_"));
    }
}

fn generation(question: &str) -> Value {
    json!({ "model": "qwen-max-0403", "input": { "messages": [{ "role": "user", "content": question }] },
            "parameters": { "result_format": "message" } })
}

#[test]
fn dashscope_answers_plain() {
    let mock = mock();
    let plain = post(mock.addr(), GENERATION, &[], &generation("你是谁？"))
        .unwrap()
        .json();
    assert_eq!(plain["request_id"], "930774f8-7fc9-9d97-8d13-fc9201ae66f9");
    assert_eq!(
        plain["usage"],
        json!({ "input_tokens": 11, "output_tokens": 111, "total_tokens": 122 })
    );
    let choice = &plain["output"]["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["role"]),
        (&json!("stop"), &json!("assistant"))
    );
    assert!(
        choice["message"]["content"]
            .as_str()
            .unwrap()
            .starts_with("我是阿里云")
    );
}

#[test]
fn dashscope_streams_increments_or_everything_so_far() {
    let mock = mock();
    let question = generation("你好");
    let plain = post(mock.addr(), GENERATION, &[], &question).unwrap().json();
    let text = plain["output"]["choices"][0]["message"]["content"]
        .as_str()
        .unwrap();
    let content = |event: &Value| {
        event["output"]["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    let whole = post(mock.addr(), GENERATION, &["x-dashscope-sse: enable"], &question).unwrap();
    assert!(
        whole
            .text()
            .starts_with("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\""),
        "{}",
        whole.text()
    );
    let events = whole.events();
    assert_eq!(events[0]["output"]["choices"][0]["finish_reason"], "null");
    assert_eq!(content(events.last().unwrap()), text);
    assert!(content(&events[1]).starts_with(&content(&events[0])));
    assert_eq!(events.last().unwrap()["usage"], plain["usage"]);
    assert!(!whole.text().contains("[DONE]"));

    let mut body = question;
    body["parameters"]["incremental_output"] = json!(true);
    let parts = post(mock.addr(), GENERATION, &["accept: text/event-stream"], &body).unwrap();
    let joined: String = parts.events().iter().map(content).collect();
    assert_eq!(joined, text);
}

#[test]
fn dashscope_streams_tools_and_errors() {
    let mock = mock();
    let mut body = generation("get_weather");
    body["parameters"]["tools"] = json!([{ "type": "function", "function": { "name": "get_weather",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let stream = post(mock.addr(), GENERATION, &["x-dashscope-sse: enable"], &body).unwrap();
    let last = stream.events().pop().unwrap();
    let choice = &last["output"]["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"]["arguments"],
        "{\"city\":\"city\"}"
    );

    let headers = ["x-dashscope-sse: enable", "x-mock-fault: error-event;after=1"];
    let stream = post(mock.addr(), GENERATION, &headers, &generation("hi")).unwrap();
    assert!(
        stream
            .text()
            .contains("event:error\n:HTTP_STATUS/429\ndata:{\"code\":\"Throttling.RateQuota\"")
    );
    let refused = post(
        mock.addr(),
        GENERATION,
        &["authorization: Bearer sk-bad"],
        &generation("hi"),
    )
    .unwrap();
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (401, &json!("InvalidApiKey"))
    );
}

#[test]
fn dashscope_embeds() {
    let mock = mock();
    let body =
        json!({ "model": "text-embedding-v3", "input": { "texts": ["一", "二三"] }, "parameters": {} });
    let path = "/api/v1/services/embeddings/text-embedding/text-embedding";
    let answer = post(mock.addr(), path, &[], &body).unwrap().json();
    assert_eq!(answer["output"]["embeddings"][1]["text_index"], 1);
    assert_eq!(answer["usage"]["total_tokens"], 3);
    assert_eq!(
        post(mock.addr(), path, &[], &json!({ "model": "m" }))
            .unwrap()
            .status,
        400
    );
}

#[test]
fn responses_answer_plain_and_streamed() {
    let mock = mock();
    let body = json!({ "model": "gpt-4o", "instructions": "be kind", "input": "hi" });
    let plain = post(mock.addr(), "/v1/responses", &[], &body).unwrap().json();
    assert_eq!(
        (&plain["object"], &plain["status"]),
        (&json!("response"), &json!("completed"))
    );
    let text = plain["output"][0]["content"][0]["text"].as_str().unwrap();
    assert_eq!(plain["usage"]["output_tokens"], tokens::count(text));

    let stream = post(
        mock.addr(),
        "/v1/responses",
        &[],
        &with(body, "stream", json!(true)),
    )
    .unwrap();
    assert_eq!(
        names(&stream),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    let events = stream.events();
    assert!(
        events
            .iter()
            .enumerate()
            .all(|(number, event)| event["sequence_number"] == number)
    );
    assert_eq!(events.last().unwrap()["response"], plain);
    let joined: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(joined, text);
}

#[test]
fn responses_call_functions_and_may_end_early() {
    let mock = mock();
    let tools = json!([{ "type": "function", "name": "get_time", "parameters": { "type": "object", "properties": { "zone": { "enum": ["UTC"] } } } }]);
    let body = json!({ "model": "gpt-4o", "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "get_time" }] }], "tools": tools });
    let plain = post(mock.addr(), "/v1/responses", &[], &body).unwrap().json();
    let call = &plain["output"][0];
    assert_eq!(
        (&call["type"], &call["arguments"]),
        (&json!("function_call"), &json!("{\"zone\":\"UTC\"}"))
    );
    let stream = post(
        mock.addr(),
        "/v1/responses",
        &[],
        &with(body.clone(), "stream", json!(true)),
    )
    .unwrap();
    let events = stream.events();
    let done = events
        .iter()
        .find(|event| event["type"] == "response.function_call_arguments.done")
        .unwrap();
    assert_eq!(done["arguments"], call["arguments"]);

    let mut input = body["input"].clone();
    let output = json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "noon" });
    input.as_array_mut().unwrap().extend([call.clone(), output]);
    let answer = post(mock.addr(), "/v1/responses", &[], &with(body, "input", input))
        .unwrap()
        .json();
    assert_eq!(
        answer["output"][0]["content"][0]["text"],
        "The tool answered: noon"
    );

    let body = json!({ "model": "gpt-4o", "input": "hi", "max_output_tokens": 1, "stream": true });
    let stream = post(mock.addr(), "/v1/responses", &[], &body).unwrap();
    assert_eq!(stream.ended, Ended::Whole);
    assert_eq!(names(&stream).last().unwrap(), "response.incomplete");
}

fn say(mock: &Handle, model: &str, messages: &Value) -> Value {
    post(
        mock.addr(),
        "/v1/chat/completions",
        &[],
        &json!({ "model": model, "messages": messages }),
    )
    .unwrap()
    .json()
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn the_equation_is_solved_in_json_only_when_the_schema_is_shown() {
    let mock = mock();
    let question = json!({ "role": "user", "content": "2x + 7 = 17，x 等于多少" });
    for (model, part) in [
        ("qwen-max-0403", "\"answer\": \"因此，x 的值为 5.\""),
        ("qwen-plus", "\"answer\": \"x等于5\""),
        ("qwen-turbo", "\\[2x + 7 = 17\\]"),
    ] {
        let first = say(&mock, model, &json!([question]));
        assert!(!content(&first).contains('{'), "the first answer is no JSON");
        let schema = "Schema: {\"properties\":{\"reasoning_steps\":{\"type\":\"array\"}}}. Only JSON.";
        let again = say(
            &mock,
            model,
            &json!([question, { "role": "system", "content": content(&first) }, { "role": "user", "content": schema }]),
        );
        assert!(content(&again).contains(part), "{again}");
        let valid = serde_json::from_str::<Value>(content(&again)).is_ok();
        assert_eq!(valid, model != "qwen-turbo");
    }
}

#[test]
fn the_agent_asks_for_the_weather_and_believes_the_answer() {
    let mock = mock();
    let prompt = "tools … Action: … Observation: …\nQuestion: 今天北京和乌鲁木齐哪里温度更高？";
    let mut messages = vec![json!({ "role": "user", "content": prompt })];
    for (location, temperature) in [("北京", "24"), ("乌鲁木齐", "-13")] {
        let answer = say(&mock, "qwen-max-0403", &json!(messages));
        let text = content(&answer).to_owned();
        let blob = text.split("```").nth(1).unwrap();
        let action: Value = serde_json::from_str(blob).unwrap();
        assert_eq!(action["action"], "get_weather_now");
        let input: Value = serde_json::from_str(action["action_input"].as_str().unwrap()).unwrap();
        assert_eq!(input["location"], location);
        messages.push(json!({ "role": "assistant", "content": text }));
        let observed =
            format!("Observation: {{\"results\":[{{\"now\":{{\"temperature\":\"{temperature}\"}}}}]}}");
        messages.push(json!({ "role": "user", "content": observed }));
    }
    let answer = say(&mock, "qwen-max-0403", &json!(messages));
    let blob = content(&answer).split("```").nth(1).unwrap();
    let action: Value = serde_json::from_str(blob).unwrap();
    assert_eq!(action["action"], "Final Answer");
    assert_eq!(
        action["action_input"],
        " 今天北京的温度（24℃）比乌鲁木齐（-13℃）高。"
    );

    let prompt = json!([{ "role": "user", "content": "Action …\nQuestion: 今天北京的温度是多少？" }]);
    let first = say(&mock, "qwen-max-0403", &prompt);
    assert_eq!(
        first["usage"],
        json!({ "prompt_tokens": 611, "completion_tokens": 53, "total_tokens": 664 })
    );
    assert!(content(&say(&mock, "qwen-turbo", &prompt)).ends_with("以适应当前天气。"));
    assert!(content(&say(&mock, "qwen-plus", &prompt)).ends_with("Final Answer: 北京今天的温度是22℃。"));
}

const GEMINI: &str = "/v1beta/models/gemini-2.5-flash:";

/// What Gemini answers to this; `fault` in the spelling of the header.
fn gemini(mock: &Handle, action: &str, fault: &str) -> Result<Answer, Ended> {
    let body = json!({ "systemInstruction": { "parts": [{ "text": "Be brief." }] },
        "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] });
    let fault = format!("x-mock-fault: {fault}");
    post(
        mock.addr(),
        &format!("{GEMINI}{action}"),
        &["x-goog-api-key: k", &fault],
        &body,
    )
}

#[test]
fn gemini_answers_plain_as_events_and_as_an_array() {
    let mock = mock();
    let plain = gemini(&mock, "generateContent", "tokens").unwrap().json();
    let text = plain["candidates"][0]["content"]["parts"][0]["text"]
        .as_str()
        .unwrap();
    assert_eq!(plain["candidates"][0]["finishReason"], "STOP");
    let usage = &plain["usageMetadata"];
    assert_eq!(usage["promptTokenCount"], 4 + 4 + 1 + 4 + 3);
    assert_eq!(usage["candidatesTokenCount"], tokens::count(text));
    assert_eq!(plain["modelVersion"], "gemini-2.5-flash");

    let events = gemini(&mock, "streamGenerateContent?alt=sse", "tokens").unwrap();
    assert!(
        events
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    let array = gemini(&mock, "streamGenerateContent", "tokens").unwrap();
    assert_eq!(
        array.header("content-type"),
        Some("application/json; charset=UTF-8")
    );
    let elements = array.json().as_array().unwrap().clone();
    assert_eq!(elements, events.events());
    let piece = |element: &Value| {
        element["candidates"][0]["content"]["parts"][0]["text"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(elements.iter().filter_map(piece).collect::<String>(), text);
    let (first, last) = (&elements[0], &elements[elements.len() - 1]);
    assert_eq!(first["usageMetadata"]["candidatesTokenCount"], 1);
    assert_eq!(&last["usageMetadata"], usage);
    assert_eq!(
        (
            &first["candidates"][0]["finishReason"],
            &last["candidates"][0]["finishReason"]
        ),
        (&Value::Null, &json!("STOP"))
    );
}

#[test]
fn gemini_fails_in_its_own_shape() {
    let mock = mock();
    let error = gemini(&mock, "generateContent", "429").unwrap().json();
    assert_eq!(error["error"]["status"], "RESOURCE_EXHAUSTED");
    let error = gemini(&mock, "streamGenerateContent", "503").unwrap().json();
    assert_eq!(error[0]["error"]["code"], 503);
    let ended = gemini(&mock, "streamGenerateContent", "error-event;after=2;code=503")
        .unwrap()
        .json();
    assert_eq!(ended.as_array().unwrap().len(), 3);
    assert_eq!(ended[2]["error"]["status"], "UNAVAILABLE");
    let cut = gemini(&mock, "streamGenerateContent", "cut;after=2;how=end").unwrap();
    assert!(cut.text().starts_with("[{\n  \"candidates\""), "{}", cut.text());
    assert!(!cut.text().trim_end().ends_with(']'), "{}", cut.text());
}
