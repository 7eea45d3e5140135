//! What a round of the agent costs by itself: services answer at once, and what is measured is the gateway's own work.
//! The bound of an unoptimised build is for a busy machine; `--nocapture` shows the figure.

use std::time::Duration;

use serde_json::json;
use tollgate_base::clock;

use super::tests::{MODEL, WEATHER, action, config, final_answer, question, text};
use crate::scene::{Scene, completion};
use crate::table::ParseContext;

#[tokio::test]
async fn the_loop_costs_little_a_round() {
    const ROUNDS: u32 = 15;
    let again = completion(&action("get_weather_now", &json!({"location": "北京"})), (1, 1)).to_string();
    let mut fastest = Duration::MAX;
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
    println!("a round: {fastest:?}");
    let limit = if cfg!(debug_assertions) { 5000 } else { 100 };
    assert!(fastest < Duration::from_micros(limit), "{fastest:?}");
}
