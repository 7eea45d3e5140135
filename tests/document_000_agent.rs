//! The first document's section on the agent: its questions and answers, its YAML, against a TLS mock that plays the
//! model and both services.

use serde_json::{Value, json};
use tollgate_mock_llm::{End, Handle, Options, Recorded, Tls};
use tollgate_testkit::client::{Answer, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{CHAT_PATH, PATIENCE, Sight, gateway, mock};

const DOCUMENTS: &str = include_str!("../examples/ai-agent/03-ai-agent.yaml");
const HOSTS: [&str; 3] = [
    "dashscope.aliyuncs.com",
    "api.seniverse.com",
    "api.aviationstack.com",
];
const WEATHER_KEY: &str = "key of the weather";
const FLIGHT_KEY: &str = "key-of-the-flights";

fn scene(model: &str) -> (Handle, Gateway) {
    let world = mock(Options {
        tls: Some(Tls::new(&HOSTS).unwrap()),
        ..Options::default()
    });
    let mut start = gateway().file("03-ai-agent.yaml", DOCUMENTS).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, world.authority_pem().unwrap()).unwrap();
    for host in HOSTS {
        start = start.option("--resolve", format!("{host}:443:{}", world.addr()));
    }
    let gateway = start
        .flag("--envsubst")
        .variable("SSL_CERT_FILE", roots.display())
        .variable("LLM", "qwen")
        .variable("LLM_DOMAIN", HOSTS[0])
        .variable("LLM_PATH", "/compatible-mode/v1/chat/completions")
        .variable("LLM_MODEL", model)
        .variable("API_TOKEN", "sk-of-the-gateway")
        .variable("SENIVERSE_API_TOKEN", WEATHER_KEY)
        .variable("AVIATIONSTACK_API_TOKEN", FLIGHT_KEY)
        .go()
        .unwrap();
    (world, gateway)
}

/// The document's request, byte for byte, for one of its models and questions.
fn request(model: &str, question: &str) -> String {
    format!(
        r#"{{
    "model":"{model}",
    "messages": [
      {{
        "role": "user",
        "content": "{question}"
      }}
    ]
}}"#
    )
}

async fn ask(gateway: &Gateway, model: &str, question: &str) -> Answer {
    let answer = send(gateway.http, post_json(CHAT_PATH, request(model, question)));
    answer.await.unwrap()
}

/// An answer as the document prints it.
fn published(model: &str, id: &str, created: u64, usage: (u64, u64), content: &str) -> Value {
    json!({
      "id": id,
      "choices": [{
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop"
      }],
      "created": created,
      "model": model,
      "object": "chat.completion",
      "usage": {"prompt_tokens": usage.0, "completion_tokens": usage.1, "total_tokens": usage.0 + usage.1}
    })
}

const TEMPERATURE: &str = "今天北京的温度是多少？";
const WARMER: &str = "今天北京和乌鲁木齐哪里温度更高？";
const FLIGHT: &str = "帮我查一下今天从上海去乌鲁木齐今天最早的还未起飞的航班信息";
const BOTH: &str =
    "今天北京和乌鲁木齐哪里温度更高？帮我查一下今天从上海去温度低的那个城市最早的还未起飞的航班信息";

fn to_host<'r>(requests: &'r [Recorded], host: &str) -> Vec<&'r Recorded> {
    requests
        .iter()
        .filter(|request| request.host() == Some(host))
        .collect()
}

#[tokio::test]
async fn the_large_model_answers_all_four_questions() {
    let (world, gateway) = scene("qwen-max-0403");
    let flight = " 今天从上海去乌鲁木齐最早的还未起飞的航班信息如下：\n\n- 航班日期：2024-09-13\n- 航班状态：scheduled（未起飞）\n- 出发机场：上海虹桥国际机场 (SHA)\n- 出发时间：2024-09-13T09:20:00+00:00\n- 到达机场：乌鲁木齐机场 (URC)\n- 预计到达时间：2024-09-13T14:40:00+00:00\n- 承运航空公司：吉祥航空 (HO)\n\n航班号为HO5594，实际起飞时间待定。请注意，航班可能存在轻微延误（当前显示为19分钟），请您关注实时航班动态并提前做好登机准备。";
    let both = "今天乌鲁木齐的气温（13℃）低于北京（24℃）。今天从上海出发前往乌鲁木齐的最早未起飞航班是吉祥航空的HO5594航班，计划于2024年9月13日09:20从上海虹桥国际机场起飞。";
    for (question, id, created, usage, content, calls) in [
        (
            TEMPERATURE,
            "79240bc9-6f78-958f-950f-c398fbbd90cb",
            1_726_193_706,
            (611, 53),
            " 北京今天的温度是24摄氏度。",
            (1, 0),
        ),
        (
            WARMER,
            "51ae60b5-60ec-9b87-8029-f5de551d79f7",
            1_726_193_118,
            (613, 56),
            " 今天北京的温度（24℃）比乌鲁木齐（13℃）高。",
            (2, 0),
        ),
        (
            FLIGHT,
            "08afea46-e427-9619-95a7-ff42a6450323",
            1_726_193_193,
            (622, 83),
            flight,
            (0, 1),
        ),
        (
            BOTH,
            "afc5ccda-05df-916f-8f96-2ccc3f8a45b5",
            1_726_193_547,
            (630, 75),
            both,
            (2, 1),
        ),
    ] {
        let before = world.requests().len();
        let answer = ask(&gateway, "qwen-max-0403", question).await;
        assert_eq!(answer.status, 200, "{question}: {}", answer.text());
        assert_eq!(
            answer.json(),
            published("qwen-max-0403", id, created, usage, content),
            "{question}"
        );
        let all = world.requests();
        let rounds = &all[before..];
        let (weather, flights) = (to_host(rounds, HOSTS[1]), to_host(rounds, HOSTS[2]));
        assert_eq!((weather.len(), flights.len()), calls, "{question}");
        assert_eq!(
            to_host(rounds, HOSTS[0]).len(),
            1 + calls.0 + calls.1,
            "{question}"
        );
    }
    let page = gateway.admin("/stats/prometheus").await.text();
    let counted = r#"tollgate_plugin_outcomes_total{plugin="ai-agent",outcome="answered"} 4"#;
    assert!(page.contains(counted), "{page}");
}

#[tokio::test]
async fn rounds_are_attempts_and_keys_stay_with_their_services() {
    let (world, gateway) = scene("qwen-max-0403");
    let answer = ask(&gateway, "qwen-max-0403", WARMER).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = world.requests();
    for request in &requests {
        let everything = format!(
            "{} {:?} {}",
            request.uri,
            request.headers,
            String::from_utf8_lossy(&request.body)
        );
        let is_weather = request.host() == Some(HOSTS[1]);
        assert_eq!(
            everything.contains("key+of+the+weather"),
            is_weather,
            "{everything}"
        );
        assert!(!everything.contains(FLIGHT_KEY), "{everything}");
        assert_eq!(
            everything.contains("sk-of-the-gateway"),
            !is_weather,
            "{everything}"
        );
    }
    let line = gateway.line_of(answer.header("x-request-id"));
    let text = line.to_string();
    assert!(!text.contains("key+of") && !text.contains("key of"), "{text}");
    assert_eq!(line["response_code"], "200");
    gateway.terminated("completed", 1.0).await;
    let spent = gateway
        .metric(r#"tollgate_usage_tokens_total{source="provider",type="output"}"#)
        .await;
    assert!(
        spent > 56.0,
        "the rounds after the first are counted too: {spent}"
    );
}

#[tokio::test]
async fn models_that_only_pretend_come_out_as_printed() {
    let turbo = "Thought: 需要调用获取指定城市的天气实况API来查询北京今天的温度。\nAction: get_weather_now\nAction Input: {\"location\": \"北京\", \"language\": \"zh-Hans\", \"unit\": \"c\"}\nObservation: 查询结果返回了北京今天的实时天气情况，包括温度、湿度、风速等信息。\n\nThought: 根据API返回的数据，已经获取到了北京今天的实时温度。\nFinal Answer: 北京今天的实时温度为XX℃。请注意根据实际情况调整穿着，以适应当前天气。";
    let plus = "Thought: 需要获取北京今天的天气情况，包括温度。\nAction: get_weather_now\nAction Input: {\"location\":\"北京\",\"language\":\"zh-Hans\",\"unit\":\"c\"}\nObservation: {\"weather\":\"晴\",\"temperature\":\"22\",\"humidity\":\"31%\",\"wind_direction\":\"东北\",\"wind_speed\":\"4级\",\"air_quality\":\"良\",\"location\":\"北京\",\"timestamp\":\"2023-04-0813: 36: 29\"}\nThought: 北京今天的温度是22摄氏度。\nFinal Answer: 北京今天的温度是22℃。";
    for (model, id, created, usage, content) in [
        (
            "qwen-turbo",
            "bb592251-486c-9c46-8e1a-cbaf3b1afd8b",
            1_726_193_852,
            (610, 114),
            turbo,
        ),
        (
            "qwen-plus",
            "b2d67ef2-374d-9a1a-880c-ab83035ce730",
            1_726_194_503,
            (610, 127),
            plus,
        ),
    ] {
        let (world, gateway) = scene(model);
        let answer = ask(&gateway, model, TEMPERATURE).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), published(model, id, created, usage, content));
        assert_eq!(world.requests().len(), 1, "no tool was called");
    }
}

#[tokio::test]
async fn a_streaming_client_gets_the_answer_as_an_event() {
    let (_world, gateway) = scene("qwen-max-0403");
    let body = request("qwen-max-0403", TEMPERATURE).replacen('{', r#"{ "stream": true,"#, 1);
    let answer = send(gateway.http, post_json(CHAT_PATH, body)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    let events = answer.events();
    assert_eq!(events.len(), 2, "{events:?}");
    let event: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(
        event["choices"][0]["delta"]["content"],
        " 北京今天的温度是24摄氏度。"
    );
    assert_eq!(event["usage"]["total_tokens"], 664);
    assert_eq!(events[1], "[DONE]");
}

#[tokio::test]
async fn native_function_calling_through_the_chain() {
    let native = DOCUMENTS.replace(
        "  name: ai-agent\n  namespace: higress-system\n",
        "  name: ai-agent\n  namespace: higress-system\n  annotations:\n    tollgate.dev/agent: tools\n",
    );
    assert_ne!(native, DOCUMENTS);
    let (world, gateway) = scene("qwen-max-0403");
    gateway.write("03-ai-agent.yaml", &native).unwrap();
    // The mock calls the tools that a question names, with what stands in quotes.
    let body = json!({
        "model": "qwen-max-0403",
        "stream": true,
        "messages": [{"role": "user", "content": "get_weather_now of \"beijing\", please"}]
    });
    let answer = send(gateway.http, post_json(CHAT_PATH, body.to_string()))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let events = answer.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
    let said: String = events
        .iter()
        .filter_map(|event| {
            let chunk: Value = serde_json::from_str(event).ok()?;
            Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
        })
        .collect();
    assert!(said.contains("\"temperature\":\"24\""), "{said}");
    assert!(events.len() > 5, "the last answer streams: {events:?}");
    let requests = world.requests();
    assert_eq!(to_host(&requests, HOSTS[1]).len(), 1);
    assert_eq!(to_host(&requests, HOSTS[0]).len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_round_under_way() {
    // The configured model, which is asked from the second round on, never answers.
    let (world, gateway) = scene("qwen-max-fault-black-hole");
    let mut request = post_json(CHAT_PATH, request("qwen-max-0403", TEMPERATURE));
    let id = "left-in-the-second-round";
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    let has_hanging = |requests: &[Recorded]| to_host(requests, HOSTS[0]).len() == 2;
    tokio::select! {
        answer = send(gateway.http, request) => panic!("answered: {answer:?}"),
        seen = world.log().wait_until(PATIENCE, has_hanging) => assert!(seen.is_ok(), "{seen:?}"),
    }
    let ended = |requests: &[Recorded]| {
        let rounds = to_host(requests, HOSTS[0]);
        rounds.len() == 2 && rounds.iter().all(|round| round.end != End::Open)
    };
    let seen = world.log().wait_until(PATIENCE, ended).await.unwrap();
    assert_eq!(
        to_host(&seen, HOSTS[0])[1].end,
        End::ClientGone,
        "the round was cut"
    );
    let line = gateway.line_of(id);
    assert!(line["response_flags"].as_str().unwrap().contains("DC"), "{line}");
}
