//! A reload cuts nothing, a broken edit changes nothing, and what is removed is gone.

use futures_util::future::join_all;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{get, open, send};

use crate::support::{
    CHAT, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, documents, gateway, ingress, mock, ordered,
    verbose_log, wasm_plugin,
};

#[tokio::test]
async fn fifty_streams_outlive_fifty_rewrites() {
    let mock = mock(Options::default());
    let document = |round: usize| {
        let provider =
            format!("{{ type: openai, apiTokens: [sk-{round}], modelMapping: {{ 'x-{round}': y }} }}");
        let mut parts = vec![
            bridge(&[
                ("mock", mock.addr()),
                ("more", format!("127.0.0.1:{}", 1000 + round).parse().unwrap()),
            ]),
            ingress(
                "api",
                "/",
                "mock.static",
                &[("higress.io/timeout", &(600 + round).to_string())],
            ),
            verbose_log(),
        ];
        // Each round is another kind of edit: a plugin's config, no plugin, another plugin, another route.
        match round % 4 {
            0 | 1 => parts.push(ai_proxy("api", &provider)),
            2 => parts.push(ingress(
                &format!("extra-{round}"),
                &format!("/extra-{round}"),
                "more.static",
                &[],
            )),
            _ => parts.push(wasm_plugin("no-such-plugin", "  defaultConfig: { a: 1 }\n")),
        }
        documents(&parts)
    };
    let gateway = gateway().file("scene.yaml", &document(0)).unwrap().go().unwrap();
    let wanted = send(mock.addr(), ordered("tokens;n=60", CHAT_STREAM).0)
        .await
        .unwrap()
        .text();
    // Each stream lasts longer than the rewrites that are seen while it is open.
    let opening = (0..50).map(|_| open(gateway.http, ordered("tokens;n=60,pace;ms=250", CHAT_STREAM).0));
    let mut streams = Vec::new();
    for opened in join_all(opening).await {
        let mut stream = opened.unwrap();
        let seen = stream.read_until("data:").await.unwrap();
        streams.push((stream, seen));
    }
    let before = gateway.metric("tollgate_config_generation{}").await;
    for round in 1..=50 {
        let fresh = gateway.directory.path().join("fresh");
        std::fs::write(&fresh, document(round)).unwrap();
        std::fs::rename(&fresh, gateway.config().join("scene.yaml")).unwrap();
        if round % 5 == 0 {
            gateway.write("scene.yaml", &document(round + 1000)).unwrap();
        }
    }
    let generations = gateway.metric("tollgate_config_generation{}").await - before;
    assert!(generations >= 10.0, "{generations} generations");
    assert_eq!(
        gateway
            .metric("tollgate_requests_total{termination=\"completed\"}")
            .await,
        0.0,
        "streams are open still"
    );
    let ends = streams
        .into_iter()
        .map(|(stream, seen)| async move { (stream.finish().await, seen) });
    for (answer, seen) in join_all(ends).await {
        assert_eq!(answer.cut, None);
        assert_eq!(seen + &answer.text(), wanted);
    }
    gateway.terminated("completed", 50.0).await;
    gateway.terminated("upstream_cut", 0.0).await;
}

#[tokio::test]
async fn a_route_can_be_added_changed_and_removed() {
    let (one, two) = (mock(named("one")), mock(named("two")));
    let base = documents(&[
        bridge(&[("one", one.addr()), ("two", two.addr())]),
        ingress("base", "/base", "one.static", &[]),
    ]);
    let gateway = gateway().file("base.yaml", &base).unwrap().go().unwrap();
    gateway
        .change(
            "a.yaml",
            &ingress("a", "/echo", "one.static", &[]),
            "/echo",
            |answer| answer.json()["server"] == "one",
        )
        .await;
    gateway
        .change(
            "a.yaml",
            &ingress("a", "/echo", "two.static", &[]),
            "/echo",
            |answer| answer.json()["server"] == "two",
        )
        .await;
    gateway.remove("a.yaml").unwrap();
    assert_eq!(send(gateway.http, get("/echo")).await.unwrap().status, 404);
}

fn named(name: &str) -> Options {
    Options {
        name: name.to_owned(),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_broken_edit_keeps_the_last_good_version_and_others_go_on() {
    let (one, two) = (mock(named("one")), mock(named("two")));
    let gateway = gateway()
        .file("base.yaml", &bridge(&[("one", one.addr()), ("two", two.addr())]))
        .unwrap()
        .file("a.yaml", &ingress("a", "/echo/a", "one.static", &[]))
        .unwrap()
        .file("b.yaml", &ingress("b", "/echo/b", "one.static", &[]))
        .unwrap()
        .go()
        .unwrap();
    let broken: &[&str] = &[
        "kind: Ingress\nmetadata: {name: a\n",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: a\n  namespace: higress-system\nspec:\n  rules: [{http: {paths: 5}}]\n",
        "\u{0}\u{1}",
        "a: [",
    ];
    for text in broken {
        gateway
            .change("a.yaml", text, "/echo/a", |answer| {
                answer.json()["server"] == "one"
            })
            .await;
        let dump = gateway.admin("/config_dump").await.json();
        let told = dump["diagnostics"].as_array().unwrap().iter().any(|entry| {
            entry["severity"] == "error"
                && entry["file"]
                    .as_str()
                    .is_some_and(|file| file.ends_with("a.yaml"))
        });
        assert!(told, "{text:?}: {:#}", dump["diagnostics"]);
    }
    gateway
        .change(
            "b.yaml",
            &ingress("b", "/echo/b", "two.static", &[]),
            "/echo/b",
            |answer| answer.json()["server"] == "two",
        )
        .await;
    assert_eq!(
        send(gateway.http, get("/echo/a")).await.unwrap().json()["server"],
        "one"
    );
    gateway
        .change(
            "a.yaml",
            &ingress("a", "/echo/a", "two.static", &[]),
            "/echo/a",
            |answer| answer.json()["server"] == "two",
        )
        .await;
    let page = gateway.admin("/stats/prometheus").await.text();
    let rejected: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("tollgate_config_rejected{"))
        .collect();
    assert!(rejected.iter().all(|line| line.ends_with(" 0")), "{rejected:?}");
}

#[tokio::test]
async fn a_broken_plugin_config_keeps_the_last_good_one() {
    let scene = Scene::vendor("{ type: openai, apiTokens: [sk-good] }", &[]);
    let text = |provider: &str| {
        documents(&[
            bridge(&[("mock", scene.mock.addr())]),
            ingress("api", "/", "mock.static", &[]),
            ai_proxy("api", provider),
            verbose_log(),
        ])
    };
    scene
        .gateway
        .write("scene.yaml", &text("{ type: telepathy, apiTokens: [sk-bad] }"))
        .unwrap();
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
    assert_eq!(scene.last().header("authorization"), Some("Bearer sk-good"));
    scene
        .gateway
        .write("scene.yaml", &text("{ type: openai, apiTokens: [sk-better] }"))
        .unwrap();
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
    assert_eq!(scene.last().header("authorization"), Some("Bearer sk-better"));
}

#[tokio::test]
async fn sighup_reloads_and_reopens_the_log() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let log = start.path("access.log");
    let gateway = start.option("--access-log", log.display()).go().unwrap();
    send(gateway.http, get("/echo?first")).await.unwrap();
    wait_for_file(&log, "/echo?first").await;
    let rotated = gateway.directory.path().join("access.log.1");
    std::fs::rename(&log, &rotated).unwrap();
    let before = gateway.metric("tollgate_config_generation{}").await;
    gateway.signal("HUP").unwrap();
    gateway
        .errors
        .wait_for(|line| line.contains("configuration reloaded"))
        .unwrap();
    assert!(gateway.metric("tollgate_config_generation{}").await > before);
    send(gateway.http, get("/echo?second")).await.unwrap();
    wait_for_file(&log, "/echo?second").await;
    assert!(
        !std::fs::read_to_string(&rotated)
            .unwrap()
            .contains("/echo?second")
    );
}

/// Waits until a file holds this text.
async fn wait_for_file(path: &std::path::Path, wanted: &str) {
    let found = async {
        while !std::fs::read_to_string(path).unwrap_or_default().contains(wanted) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(crate::support::PATIENCE, found).await;
    assert!(waited.is_ok(), "{} never held {wanted}", path.display());
}

#[tokio::test]
async fn a_new_mock_behind_the_same_name_is_found() {
    let one = mock(named("one"));
    let document = |address| {
        documents(&[
            bridge(&[("mock", address)]),
            ingress("api", "/", "mock.static", &[]),
        ])
    };
    let gateway = gateway()
        .file("scene.yaml", &document(one.addr()))
        .unwrap()
        .go()
        .unwrap();
    assert_eq!(
        send(gateway.http, get("/echo")).await.unwrap().json()["server"],
        "one"
    );
    let two = mock(named("two"));
    gateway
        .change("scene.yaml", &document(two.addr()), "/echo", |answer| {
            answer.json()["server"] == "two"
        })
        .await;
}

#[tokio::test]
async fn old_generations_are_freed() {
    let mock = mock(Options::default());
    let document = |round: usize| {
        let mut parts = vec![bridge(&[("mock", mock.addr())])];
        for number in 0..100 {
            let name = format!("route-{number}");
            parts.push(ingress(
                &name,
                &format!("/echo/{number}/{round}"),
                "mock.static",
                &[],
            ));
            parts.push(
                ai_proxy(&name, &format!("{{ type: openai, apiTokens: [sk-{round}] }}"))
                    .replace("name: ai-proxy\n", &format!("name: ai-proxy-{number}\n")),
            );
        }
        documents(&parts)
    };
    let gateway = gateway().file("scene.yaml", &document(0)).unwrap().go().unwrap();
    let mut sizes = Vec::new();
    for round in 1..=40 {
        let path = format!("/echo/99/{round}");
        gateway
            .change("scene.yaml", &document(round), &path, |answer| {
                answer.status == 200
            })
            .await;
        sizes.push(gateway.memory_kib());
    }
    // The first ones warm the allocator up.
    assert!(
        sizes[39] < sizes[9] + 8 * 1024,
        "resident memory in KiB: {sizes:?}"
    );
}
