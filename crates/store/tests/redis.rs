//! Real Redis servers: the semantics, sharing, and what happens when one goes away.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::{MINUTE, semantics, settings, stores};
use tollgate_base::clock;
use tollgate_store::{Failure, Reservation, Settings};
use tollgate_testkit::redis::Redis;

fn at(redis: &Redis) -> Settings {
    settings(&format!("redis://{}", redis.address))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_counters_as_higress_writes_them() {
    let redis = Redis::start(&[]).unwrap();
    let (stores, _) = stores();
    semantics(&stores, &stores.redis(at(&redis))).await;
    assert_eq!(redis.ask("GET charged").unwrap(), "$2\r\n15\r\n");
    assert!(redis.ask("TTL charged").unwrap().starts_with(":"));
    assert_eq!(redis.ask("TTL quota").unwrap(), ":-1\r\n");
    // Its scripts forgotten, it learns them again.
    redis.ask("SCRIPT FLUSH").unwrap();
    let store = stores.redis(at(&redis));
    assert_eq!(store.take("taken", 9, MINUTE).await.unwrap().current, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_by_its_scheme_and_by_one_of_its_nodes() {
    let nodes = Redis::cluster().unwrap();
    let (stores, _) = stores();
    let all: Vec<_> = nodes.iter().map(|node| node.address.to_string()).collect();
    semantics(
        &stores,
        &stores.redis(settings(&format!("redis+cluster://{}", all.join(",")))),
    )
    .await;
    let one = stores.redis(at(&nodes[1]));
    for number in 0..50 {
        assert_eq!(
            one.take(&format!("key {number}"), 5, MINUTE)
                .await
                .unwrap()
                .current,
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_knows_the_master_and_an_acl_its_user() {
    let redis = Redis::start(&["--user", "ann", "on", ">p@ss", "~*", "+@all"]).unwrap();
    let sentinel = redis.sentinel().unwrap();
    let (stores, _) = stores();
    semantics(
        &stores,
        &stores.redis(settings(&format!("redis+sentinel://{}/main", sentinel.address))),
    )
    .await;
    let ann = stores.redis(settings(&format!("redis://ann:p%40ss@{}/3", redis.address)));
    assert_eq!(ann.get("quota").await.unwrap(), None, "another database");
    let eve = stores.redis(settings(&format!("redis://eve:guess@{}", redis.address)));
    let failure = eve.get("quota").await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    assert!(!failure.to_string().contains("guess"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_is_told_at_once_and_found_again() {
    let mut redis = Redis::start(&[]).unwrap();
    let (stores, metrics) = stores();
    let store = stores.redis(at(&redis));
    store.set("quota", 1).await.unwrap();
    assert_eq!(stores.troubles(), Vec::<String>::new());
    redis.kill();
    for _ in 0..20 {
        let begun = clock::now();
        let failure = store.get("quota").await.unwrap_err();
        assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{:?}",
            begun.elapsed()
        );
    }
    assert_eq!(stores.troubles().len(), 1);
    let mut page = String::new();
    metrics.render(&mut page);
    let up = format!("tollgate_store_up{{store=\"{}\"}} 0", redis.address);
    assert!(page.contains(&up), "{page}");
    // Whoever looks for it often enough in vain has come to the longest pause.
    let vain = tokio::net::TcpListener::bind(redis.address).await.unwrap();
    for _ in 0..6 {
        drop(vain.accept().await.unwrap());
    }
    drop(vain);
    redis.restart().unwrap();
    let begun = clock::now();
    while store.get("quota").await != Ok(None) {
        assert!(begun.elapsed() < Duration::from_secs(1), "not found again");
        tokio::task::yield_now().await;
    }
    assert_eq!(stores.troubles(), Vec::<String>::new());
    // Restarted between two requests, nobody notices.
    redis.restart().unwrap();
    assert_eq!(store.get("quota").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_falls_silent_costs_its_timeout_once() {
    let redis = Redis::start(&[]).unwrap();
    let (stores, _) = stores();
    let mut settings = at(&redis);
    settings.timeout = Duration::from_millis(200);
    let store = stores.redis(settings);
    store.set("quota", 1).await.unwrap();
    redis.signal("STOP").unwrap();
    let begun = clock::now();
    assert_eq!(store.get("quota").await, Err(Failure::Timeout));
    assert!(
        begun.elapsed() < Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    let begun = clock::now();
    for _ in 0..10 {
        let failure = store.get("quota").await.unwrap_err();
        assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    }
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
    redis.signal("CONT").unwrap();
    let begun = clock::now();
    while store.get("quota").await != Ok(Some(1)) {
        assert!(begun.elapsed() < Duration::from_secs(5), "not found again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reserved_at_once_never_goes_over() {
    let redis = Redis::start(&[]).unwrap();
    let ((first, _), (second, _)) = (stores(), stores());
    let both = [first.redis(at(&redis)), second.redis(at(&redis))];
    let attempts = (0..200).map(|number| {
        let store = both[number % 2].clone();
        async move { store.reserve("k", 100, MINUTE, 10).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let granted = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Reservation::Granted { .. }));
    assert_eq!(granted.count(), 10);
}
