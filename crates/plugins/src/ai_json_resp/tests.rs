//! The plugin through its front door: scripted services and a scripted rest of the chain, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_body::Response;
use tollgate_observe::usage::Source;

use super::config::ANNOTATION;
use super::schema::Schema;
use crate::scene::{Asked, Scene, completion};
use crate::table::ParseContext;
use crate::testing::{compiled, post, run, settled};

/// Document 000's schema.
fn reasoning_schema() -> Value {
    json!({
        "title": "ReasoningSchema", "type": "object",
        "properties": {
            "reasoning_steps": {"type": "array", "items": {"type": "string"}},
            "answer": {"type": "string"}
        },
        "required": ["reasoning_steps", "answer"], "additionalProperties": false
    })
}

fn service(extra: &Value) -> Value {
    let mut config = json!({
        "serviceName": "qwen", "serviceDomain": "dashscope.aliyuncs.com", "apiKey": "sk-config",
        "servicePath": "/compatible-mode/v1/chat/completions", "jsonSchema": reasoning_schema()
    });
    for (name, value) in extra.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

const CLUSTER: &str = "outbound|443||qwen.dns";

fn scene(config: &Value, answers: &[Value]) -> Scene {
    let plugin = super::parse(Some(config), None, &ParseContext::default()).unwrap();
    let scene = Scene::new(plugin);
    for answer in answers {
        scene.answers(CLUSTER, 200, &answer.to_string());
    }
    scene
}

fn question() -> Value {
    json!({"model": "qwen-plus", "temperature": 0.5, "logit_bias": {}, "messages": [{"role": "user", "content": "2x + 7 = 17"}]})
}

fn said(text: &str) -> Value {
    completion(text, (10, 5))
}

async fn body(response: Response) -> (StatusCode, String) {
    let (head, mut body) = response.into_parts();
    let bytes = body.buffer("test", usize::MAX).await.unwrap();
    (head.status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn the_json_is_taken_out_of_the_text() {
    let text = "Sure:\n```json\n{\"reasoning_steps\": [\"a\"],\n \"answer\": \"5\"}\n```";
    let scene = scene(&service(&json!({})), &[said(text)]);
    let response = scene.post("/v1/chat/completions?x=1", &question()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"response.json\""
    );
    let (status, text) = body(response).await;
    assert_eq!(
        (status.as_u16(), text.as_str()),
        (200, "{\"reasoning_steps\": [\"a\"],\n \"answer\": \"5\"}")
    );
    let asked: Vec<Asked> = scene.asked();
    let first = asked.first().unwrap();
    assert_eq!(
        (first.cluster.as_str(), first.uri.as_str()),
        (CLUSTER, "/compatible-mode/v1/chat/completions")
    );
    assert_eq!(
        (first.method.as_str(), first.header("host")),
        ("POST", "dashscope.aliyuncs.com")
    );
    assert_eq!(first.header("authorization"), "Bearer sk-config");
    assert_eq!(first.header("x-higress-ai-json-resp"), "true");
    assert_eq!(first.header("cookie"), "");
    assert_eq!(
        first.json(),
        question(),
        "the first call carries the client's own body"
    );
    assert!(scene.forwarded().is_empty(), "the client's request never passes");
}

#[tokio::test]
async fn what_does_not_fit_is_repaired_and_every_round_is_charged() {
    let scene = scene(
        &service(&json!({})),
        &[
            said("x is 5"),
            said(r#"{"reasoning_steps":[],"answer":5}"#),
            said(r#"{"reasoning_steps":[],"answer":"5"}"#),
        ],
    );
    let (status, text) = body(scene.post("/v1", &question()).await.unwrap()).await;
    assert_eq!(
        (status.as_u16(), text.as_str()),
        (200, r#"{"reasoning_steps":[],"answer":"5"}"#)
    );
    let asked = scene.asked();
    let second = asked[1].json();
    let keys: Vec<&String> = second.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["model", "messages", "temperature"],
        "fields that nobody knows are dropped"
    );
    let roles: Vec<&str> = second["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "system", "system", "user"]);
    assert_eq!(second["messages"][1]["content"], "x is 5");
    assert_eq!(
        second["messages"][2]["content"],
        "response body does not contain the valid json: cannot find json in the response body"
    );
    let third = asked[2].json();
    let messages = third["messages"].as_array().unwrap();
    assert_eq!(
        messages[messages.len() - 2]["content"],
        "response body does not match the Json Schema: I[#] S[#] doesn't validate with \"defaultSchema#\"\n  I[#/answer] S[#/properties/answer/type] expected string, but got number"
    );
    let record = &scene.record;
    assert_eq!(record.attempts.get(), 3);
    let usage = record.usage.borrow();
    assert_eq!(
        (usage.tokens.input, usage.tokens.output, usage.source),
        (30, 15, Some(Source::Provider))
    );
    assert!(usage.is_closed());
}

#[tokio::test]
async fn after_the_last_repair_the_fault_is_told() {
    let broken = said("{\"answer\": \"\\[x = 5\\]\"}");
    let scene = scene(
        &service(&json!({})),
        &[broken.clone(), broken.clone(), broken.clone(), broken],
    );
    let response = scene.post("/v1", &question()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    let (status, text) = body(response).await;
    assert_eq!(status, 500);
    assert_eq!(
        text,
        r#"{"Code":1006,"Msg":"retry count exceeds max retry count: response body does not contain the valid json: invalid character '[' in string escape code"}"#
    );
    assert_eq!(scene.asked().len(), 4, "three repairs after the first call");
    assert_eq!(
        *scene.record.details.borrow(),
        "ai-json-resp.retry_count_exceeds_max_retry_count"
    );
}

#[tokio::test]
async fn answers_that_end_it() {
    let cases: [(u16, &str, &str); 6] = [
        (200, "data: {}\n\n", "service unavailable: data: {}\\n\\n"),
        (200, "", "service unavailable: "),
        (200, "[1]", "service unavailable: [1]"),
        (
            200,
            r#"{"choices":[{"message":{"content":["a"]}}]}"#,
            "service unavailable: {\\\"choices\\\":[{\\\"message\\\":{\\\"content\\\":[\\\"a\\\"]}}]}",
        ),
        (
            401,
            r#"{"error":{"message":"<no>"}}"#,
            "response body does not contain the content: {\\\"error\\\":{\\\"message\\\":\\\"\\u003cno\\u003e\\\"}}",
        ),
        (
            200,
            r#"{"choices":[]}"#,
            "response body does not contain the content: {\\\"choices\\\":[]}",
        ),
    ];
    for (answered, answer, message) in cases {
        let scene = scene(&service(&json!({})), &[]);
        scene.answers(CLUSTER, answered, answer);
        let (status, text) = body(scene.post("/v1", &question()).await.unwrap()).await;
        assert_eq!(status, 500, "{answer}");
        assert_eq!(
            text,
            format!("{{\"Code\":1007,\"Msg\":\"{message}\"}}"),
            "{answer}"
        );
        assert_eq!(scene.asked().len(), 1, "{answer}: no repair");
    }
    let unreachable = scene(&service(&json!({"serviceName": "nobody"})), &[]);
    let (_, text) = body(unreachable.post("/v1", &question()).await.unwrap()).await;
    assert_eq!(text, r#"{"Code":1007,"Msg":"service unavailable: "}"#);
    assert_eq!(unreachable.record.attempts.get(), 0);
}

#[tokio::test]
async fn configs_that_cannot_work_are_told_to_every_request() {
    let null = "Json Schema compile failed: json-schema \"defaultSchema\" compilation failed. Reason:\nI[#] S[#] doesn't validate with \"http://json-schema.org/draft-07/schema#\"\n  I[#] S[#/type] expected object or boolean, but got null";
    for (config, code, message) in [
        (json!({}), 1001, "service domain is empty"),
        (json!({"jsonSchema": "text"}), 1002, null),
        (
            json!({"serviceDomain": "d", "jsonSchema": {"$ref": "#/definitions/x"}}),
            1002,
            "Json Schema compile failed: invalid $ref #/definitions/x",
        ),
        (
            json!({"serviceDomain": "d", "jsonSchema": {"$ref": "http://elsewhere/x.json"}}),
            1002,
            "Json Schema compile failed: invalid $ref http://elsewhere/x.json",
        ),
        (
            json!({"serviceDomain": "d", "jsonSchemaMaxDepth": 2, "rejectOnDepthExceeded": true, "jsonSchema": {"a": {"b": {}}}}),
            1001,
            "Json Schema depth exceeded: 3",
        ),
    ] {
        let scene = scene(&config, &[]);
        let (status, text) = body(scene.post("/v1", &question()).await.unwrap()).await;
        let expected = json!({"Code": code, "Msg": message});
        assert_eq!((status.as_u16(), text), (500, expected.to_string()), "{config}");
        assert!(scene.asked().is_empty() && scene.forwarded().is_empty());
    }
}

#[tokio::test]
async fn own_calls_and_bodies_that_nobody_reads_pass() {
    let scene = scene(&service(&json!({})), &[]);
    scene.forwards(200, "{}");
    scene.forwards(200, "{}");
    let own = [("x-higress-ai-json-resp", "T")];
    scene
        .send("POST", "/v1", &own, question().to_string())
        .await
        .unwrap();
    let binary = [
        ("content-type", "application/octet-stream"),
        ("authorization", "Bearer client"),
    ];
    scene.send("POST", "/v1", &binary, "x".to_owned()).await.unwrap();
    let forwarded = scene.forwarded();
    assert_eq!(forwarded.len(), 2);
    assert_eq!(forwarded[1].header("authorization"), "Bearer sk-config");
    assert!(scene.asked().is_empty());
}

#[tokio::test]
async fn without_a_service_the_rounds_go_through_the_chain() {
    let annotations = BTreeMap::from([(ANNOTATION.to_owned(), "chain".to_owned())]);
    let context = ParseContext::default().with_annotations(annotations);
    let plugin = super::parse(Some(&json!({"jsonSchema": reasoning_schema()})), None, &context).unwrap();
    let scene = Scene::new(plugin);
    scene.forwards(200, &said("no").to_string());
    scene.forwards(200, &said(r#"{"reasoning_steps":[],"answer":"5"}"#).to_string());
    let mut asked = question();
    asked["stream"] = true.into();
    let (status, _) = body(scene.post("/v1/chat/completions", &asked).await.unwrap()).await;
    assert_eq!(status, 200);
    let rounds = scene.forwarded();
    assert_eq!(rounds.len(), 2);
    assert_eq!(rounds[0].uri, "/v1/chat/completions");
    assert_eq!(rounds[0].json()["stream"], false);
    assert_eq!(
        rounds[0].header("cookie"),
        "a=b",
        "the chain sees the client's request"
    );
    assert_eq!(scene.record.usage.borrow().tokens.total, 30);
}

#[tokio::test]
async fn rounds_end_when_their_tokens_are_spent() {
    let scene = scene(
        &service(&json!({"maxTotalTokens": 20, "maxRetry": 50})),
        &vec![said("no"); 50],
    );
    let (_, text) = body(scene.post("/v1", &question()).await.unwrap()).await;
    assert!(text.contains("\"Code\":1006"), "{text}");
    assert_eq!(scene.asked().len(), 2, "15 tokens, then 30");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_costs_its_time_and_no_more() {
    let scene = scene(&service(&json!({"serviceTimeout": 1500})), &[]);
    scene.hangs(CLUSTER);
    let began = tollgate_base::clock::now();
    let (_, text) = body(scene.post("/v1", &question()).await.unwrap()).await;
    assert_eq!(text, r#"{"Code":1007,"Msg":"service unavailable: "}"#);
    assert_eq!(began.elapsed().as_millis(), 1500);
}

#[tokio::test]
async fn hostile_answers_have_an_answer() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!(
        "{{\"answer\":\"x\",\"reasoning_steps\":[{}1]}}",
        "1,".repeat(200_000)
    );
    for (text, expected) in [
        (deep.as_str(), "exceeded max depth"),
        (
            wide.as_str(),
            "I[#/reasoning_steps/0] S[#/properties/reasoning_steps/items/type] expected string, but got number",
        ),
        ("}{", "cannot find json"),
        (
            r#"{"answer":"a"} and {"answer":"b"}"#,
            "invalid character 'a' after top-level value",
        ),
        (
            r#"{"answer":"\ud800","reasoning_steps":7}"#,
            "expected array, but got number",
        ),
        (
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#,
            "missing properties",
        ),
    ] {
        let scene = scene(&service(&json!({"maxRetry": 1})), &[said(text), said(text)]);
        let (status, reply) = body(scene.post("/v1", &question()).await.unwrap()).await;
        assert_eq!(status, 500);
        assert!(
            reply.contains(expected),
            "{expected}: {}",
            &reply[..reply.len().min(300)]
        );
    }
    let huge = "x".repeat(5 * 1024 * 1024);
    let scene = scene(&service(&json!({})), &[said(&huge)]);
    let (_, reply) = body(scene.post("/v1", &question()).await.unwrap()).await;
    assert_eq!(reply, r#"{"Code":1007,"Msg":"service unavailable: "}"#);
}

/// Each schema, a value and what is told of it.
fn schema_faults(cases: &[(Value, Value, &str)]) {
    let base = "I[#] S[#] doesn't validate with \"defaultSchema#\"";
    for (schema, instance, expected) in cases {
        let compiled = Schema::compile(schema, jsonschema::Draft::Draft7).unwrap();
        let fault = compiled.check(instance, 10).unwrap_err();
        assert_eq!(fault, format!("{base}\n{expected}"), "{schema}");
    }
}

#[test]
fn faults_of_keywords_in_higress_words() {
    schema_faults(&[
        (
            json!({"required": ["n", "m"]}),
            json!({"a": 1}),
            r#"  I[#] S[#/required] missing properties: "n", "m""#,
        ),
        (
            json!({"type": ["object", "string"]}),
            json!([1]),
            "  I[#] S[#/type] expected object or string, but got array",
        ),
        (
            json!({"type": "integer"}),
            json!(2.0),
            "  I[#] S[#/type] expected integer, but got number",
        ),
        (
            json!({"minLength": 3}),
            json!("ab"),
            "  I[#] S[#/minLength] length must be >= 3, but got 2",
        ),
        (
            json!({"additionalProperties": false}),
            json!({"zz": 1}),
            r#"  I[#] S[#/additionalProperties] additionalProperties "zz" not allowed"#,
        ),
        (
            json!({"enum": ["x", 1]}),
            json!("z"),
            r#"  I[#] S[#/enum] value must be one of "x", "1""#,
        ),
        (
            json!({"const": 1}),
            json!(2),
            r#"  I[#] S[#/const] value must be "1""#,
        ),
        (
            json!({"minItems": 1}),
            json!([]),
            "  I[#] S[#/minItems] minimum 1 items allowed, but found 0 items",
        ),
        (
            json!({"uniqueItems": true}),
            json!([1, 1]),
            "  I[#] S[#/uniqueItems] items at index 0 and 1 are equal",
        ),
        (
            json!({"pattern": "^a"}),
            json!("b"),
            r#"  I[#] S[#/pattern] does not match pattern "^a""#,
        ),
        (
            json!({"format": "email"}),
            json!("x"),
            r#"  I[#] S[#/format] "x" is not valid "email""#,
        ),
        (
            json!({"minimum": 3}),
            json!(1),
            "  I[#] S[#/minimum] must be >= 3 but found 1",
        ),
        (
            json!({"exclusiveMaximum": 3}),
            json!(3),
            "  I[#] S[#/exclusiveMaximum] must be < 3 but found 3",
        ),
        (
            json!({"multipleOf": 2}),
            json!(3),
            "  I[#] S[#/multipleOf] 3 not multipleOf 2",
        ),
        (json!({"not": {}}), json!(3), "  I[#] S[#/not] not failed"),
        (
            json!({"contains": {"const": 1}}),
            json!([2]),
            "  I[#] S[#/contains] contains failed",
        ),
        (
            json!({"maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            "  I[#] S[#/maxProperties] maximum 1 properties allowed, but found 2 properties",
        ),
        (
            json!({"properties": {"a": false}}),
            json!({"a": 1}),
            "  I[#/a] S[#/properties/a] always fail",
        ),
    ]);
}

#[test]
fn faults_of_nested_schemas_in_higress_words() {
    schema_faults(&[
        (
            json!({"allOf": [{}, {"type": "string"}]}),
            json!(1),
            "  I[#] S[#/allOf/1] allOf failed\n    I[#] S[#/allOf/1/type] expected string, but got number",
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"minimum": 5}]}),
            json!(1),
            "  I[#] S[#/anyOf] anyOf failed\n    I[#] S[#/anyOf/0/type] expected string, but got number\n    I[#] S[#/anyOf/1/minimum] must be >= 5 but found 1",
        ),
        (
            json!({"oneOf": [{"minimum": 1}, {}]}),
            json!(1),
            "  I[#] S[#/oneOf] valid against schemas at indexes 0 and 1",
        ),
        (
            json!({"if": {"type": "number"}, "then": {"minimum": 5}}),
            json!(1),
            "  I[#] S[#/then] if-then failed\n    I[#] S[#/then/minimum] must be >= 5 but found 1",
        ),
        (
            json!({"definitions": {"s": {"type": "string"}}, "properties": {"a": {"items": {"$ref": "#/definitions/s"}}}}),
            json!({"a": ["x", 1]}),
            "  I[#/a/1] S[#/definitions/s/type] expected string, but got number",
        ),
        (
            json!({"items": [{}], "additionalItems": false}),
            json!([1, 2]),
            "  I[#] S[#/additionalItems] only 1 items are allowed, but found 2 items",
        ),
        // The first in the order of keywords, not in that of the text.
        (
            json!({"minLength": 3, "pattern": "^a", "enum": ["abc"]}),
            json!("b"),
            r#"  I[#] S[#/enum] value must be one of "abc""#,
        ),
    ]);
}

#[test]
fn drafts_are_told_apart() {
    let exclusive = |draft: &str| json!({"$schema": draft, "minimum": 3, "exclusiveMinimum": true});
    let compile = |schema: &Value| Schema::compile(schema, jsonschema::Draft::Draft7);
    assert!(compile(&exclusive("http://json-schema.org/draft-04/schema#")).is_ok());
    let failed = compile(&exclusive("http://json-schema.org/draft-07/schema#")).unwrap_err();
    assert!(
        failed.contains("S[#/properties/exclusiveMinimum/type] expected number, but got boolean"),
        "{failed}"
    );
    for draft in [
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let schema = json!({"$schema": draft, "dependentRequired": {"a": ["b"]}});
        assert!(
            compile(&schema).unwrap().check(&json!({"a": 1}), 10).is_err(),
            "{draft}"
        );
    }
    let items = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "string"}]});
    assert!(compile(&items).unwrap().check(&json!([1]), 10).is_err());
    assert!(
        compile(&json!({"$schema": "http://elsewhere/"}))
            .unwrap_err()
            .contains("unsupported $schema")
    );
}

#[tokio::test(start_paused = true)]
async fn calls_are_accounted_for_though_the_client_leaves_between_them() {
    let limit = json!({"rule_name": "left", "global_threshold": {"token_per_minute": 1}});
    let limit = compiled("ai-token-ratelimit", &limit).unwrap();
    let statistics = compiled("ai-statistics", &json!({})).unwrap();
    let plugin = super::parse(Some(&service(&json!({}))), None, &ParseContext::default()).unwrap();
    let scene = Scene::chain([limit.clone(), statistics, plugin]);
    scene.answers(CLUSTER, 200, &said("no JSON").to_string());
    scene.hangs(CLUSTER);
    let question = question();
    let left = scene.post("/v1/chat/completions", &question);
    let left = tokio::time::timeout(Duration::from_secs(1), left).await;
    assert!(left.is_err() && scene.asked().len() == 2);
    settled(&scene.record);
    let log = scene.record.ai_log_text().unwrap();
    assert!(
        log.contains(r#"\"input_token\":10,\"model\":\"m\",\"output_token\":5"#),
        "{log}"
    );
    let next = run(&limit, post("/v1/chat/completions", &[], "{}")).await;
    assert_eq!(next.status, 429);
}
