//! What a hundred thousand consumers of `key-auth` cost. A process of its own, so that its memory tells.
//!
//! The limits are those of an optimised build (`cargo test --profile quick -p tollgate-plugins --test key_auth_size --
//! --nocapture` shows the figures); an unoptimised one gets ten times the time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_plugins::table::Shared;
use tollgate_plugins::{ParseContext, find};

const CONSUMERS: usize = 100_000;
/// Megabytes.
const MEMORY: usize = 60;

#[test]
fn a_hundred_thousand_consumers_are_read_quickly_and_held_small() {
    let consumers: Vec<Value> = (0..CONSUMERS)
        .map(
            |number| json!({"name": format!("consumer-{number}"), "credential": format!("sk-{number:032x}")}),
        )
        .collect();
    let global = json!({"consumers": consumers, "keys": ["authorization", "x-api-key"]});
    let rule = json!({"allow": ["consumer-7", "consumer-99999"]});
    let context = ParseContext::new(true, Shared::default());
    let parse = find("key-auth").unwrap().parse;
    let (before, begun) = (resident(), clock::now());
    let whole = parse(Some(&global), None, &context).unwrap();
    let compiled = begun.elapsed();
    // Rules share the consumers with the global config.
    let rules: Vec<_> = (0..100)
        .map(|_| parse(Some(&global), Some(&rule), &context).unwrap())
        .collect();
    let (all, grown) = (begun.elapsed(), resident().saturating_sub(before) / 1_000_000);
    println!("{CONSUMERS} consumers: {compiled:?}, with 100 rules {all:?}, {grown} MB");
    assert!(rules.iter().all(|rule| rule.admits(Some("consumer-99999"))));
    assert!(context.take_warnings().is_empty());
    drop(whole);
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
    assert!(all < limit, "{all:?}");
    assert!(grown < MEMORY, "{grown} MB");
}

/// This process's memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
