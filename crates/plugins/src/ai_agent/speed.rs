//! What the plugins cost by themselves: services answer at once, and what is measured is the gateway's own work. The
//! bounds are for unoptimised builds on a busy machine; `--nocapture` shows the figures.

use std::time::Duration;

use serde_json::json;
use tollgate_base::clock;

use super::tests::{MODEL, WEATHER, action, config, final_answer, question, scene, text};
use crate::scene::{Scene, completion};
use crate::table::ParseContext;

#[tokio::test]
async fn the_loop_costs_little_a_round() {
    const ROUNDS: u32 = 15;
    let again = completion(&action("get_weather_now", &json!({"location": "北京"})), (1, 1)).to_string();
    let (mut fastest, mut idle) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        let scene = Scene::new(
            super::parse(
                Some(&config(&json!({"llm": {"maxIterations": ROUNDS}}))),
                None,
                &ParseContext::default(),
            )
            .unwrap(),
        );
        scene.forwards(200, &again);
        for _ in 1..ROUNDS {
            scene.answers(WEATHER, 200, r#"{"temperature":"24"}"#);
            scene.answers(MODEL, 200, &again);
        }
        scene.answers(WEATHER, 200, "{}");
        scene.answers(MODEL, 200, &completion(&final_answer("done"), (1, 1)).to_string());
        let began = clock::now();
        let response = scene.post("/v1/chat/completions", &question("q")).await.unwrap();
        fastest = fastest.min(began.elapsed() / ROUNDS);
        assert!(text(response).await.contains("done"));
    }
    for _ in 0..20 {
        let scene = scene();
        for _ in 0..100 {
            scene.forwards(200, "{}");
        }
        let began = clock::now();
        for _ in 0..100 {
            scene.send("GET", "/v1/models", &[], String::new()).await.unwrap();
        }
        idle = idle.min(began.elapsed() / 100);
    }
    println!("a round: {fastest:?}; a request that is none of its business, with all of the scene: {idle:?}");
    assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    assert!(idle < Duration::from_micros(500), "{idle:?}");
}
