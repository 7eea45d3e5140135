//! The plugin through its front door: whose token gets in, what a refusal says, and what goes on to services behind.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_body::{Body, Response};

use crate::jwt::Fault;
use crate::jwt::signing::{Signer, signers};
use crate::test_chain::{Behind, Went, get, global, parse, rule, run, run_before};

const NAME: &str = "jwt-auth";

fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(clock::unix_seconds()).unwrap() + seconds
}

/// The claims of a token that is good for a minute.
fn claims(more: Value) -> Value {
    let mut claims = json!({"iss": "abcd", "sub": "test", "exp": in_seconds(60)});
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

fn consumer(name: &str, signer: &Signer, more: Value) -> Value {
    let mut consumer = json!({"name": name, "jwks": signer.jwks(), "issuer": "abcd"});
    let more = more.as_object().unwrap().clone();
    consumer.as_object_mut().unwrap().extend(more);
    consumer
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn with_token(plugin: &std::sync::Arc<dyn tollgate_plugin::Plugin>, token: &str) -> Went {
    run(plugin, get("/v1", &[("authorization", &bearer(token))])).await
}

fn refusal(text: &str) -> String {
    let details = text.replace(' ', "_");
    format!("401 [{text}] jwt_authn_access_denied{{{details}}}")
}

#[tokio::test]
async fn a_token_of_every_algorithm_lets_its_consumer_in() {
    let all = signers();
    let consumers: Vec<_> = all
        .iter()
        .map(|signer| {
            let mut key = signer.jwk();
            key["alg"] = json!(signer.algorithm);
            json!({"name": signer.algorithm, "jwks": json!({"keys": [key]}).to_string()})
        })
        .collect();
    let plugin = global(NAME, &json!({"consumers": consumers})).unwrap();
    for signer in all {
        let went = with_token(&plugin, &signer.token(&claims(json!({})))).await;
        assert_eq!(
            (went.status, went.consumer.as_deref()),
            (200, Some(signer.algorithm))
        );
        let upstream = went.upstream.unwrap();
        assert_eq!(upstream.header("x-mse-consumer"), signer.algorithm);
        assert!(
            upstream.header("authorization").starts_with("Bearer "),
            "the token stays"
        );
    }
}

#[tokio::test]
async fn the_texts_of_a_refusal() {
    let signer = Signer::secret("HS256", 1);
    let config = json!({"consumers": [consumer("c", &signer, json!({}))]});
    let plugin = global(NAME, &config).unwrap();
    let missing = run(&plugin, get("/a/b?access=1", &[])).await;
    assert_eq!(missing.line(), refusal("Jwt is missing"));
    assert_eq!(
        missing.header("www-authenticate"),
        "Bearer realm=\"http://gateway/a/b\""
    );
    assert_eq!(missing.header("content-type"), "text/plain");
    assert!(missing.upstream.is_none() && missing.consumer.is_none());
    let token = |more: Value| signer.token(&claims(more));
    let stranger = Signer::secret("HS256", 2).token(&claims(json!({})));
    let other_kind = Signer::rsa("RS256").token(&claims(json!({})));
    for (token, told) in [
        (token(json!({"exp": in_seconds(-61)})), "Jwt is expired"),
        (token(json!({"nbf": in_seconds(120)})), "Jwt not yet valid"),
        (token(json!({"iat": in_seconds(120)})), "Jwt not yet valid"),
        (token(json!({"iss": "efgh"})), "Jwt verification fails"),
        (stranger, "Jwt verification fails"),
        (other_kind, "Jwks doesn't have key to match kid or alg from Jwt"),
        (
            "a.b".to_owned(),
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        ("x".repeat(20_000), "Jwt is too long"),
        (
            signer.token_of(&format!(r#"{{"iss":"abcd","exp":1,"exp":{}}}"#, in_seconds(60))),
            "Jwt payload is an invalid JSON",
        ),
    ] {
        let went = with_token(&plugin, &token).await;
        assert_eq!(went.line(), refusal(told));
        let challenge = "Bearer realm=\"http://gateway/v1\", error=\"invalid_token\"";
        assert_eq!(went.header("www-authenticate"), challenge);
    }
    let long = format!("/\"{}?access_token=x", "a".repeat(300));
    let went = run(&plugin, get(&long, &[])).await;
    let realm = format!("\"http://gateway/{}\"", "a".repeat(255));
    assert!(
        went.header("www-authenticate").contains(&realm),
        "no query, no quote"
    );
}

#[tokio::test]
async fn the_skew_of_clocks_is_the_consumers() {
    let signer = Signer::secret("HS256", 1);
    let late = signer.token(&claims(json!({"exp": in_seconds(-30)})));
    for (skew, status) in [(json!(null), 200), (json!(3600), 200), (json!(0), 401)] {
        let config = json!({"consumers": [consumer("c", &signer, json!({"clock_skew_seconds": skew}))]});
        assert_eq!(
            with_token(&global(NAME, &config).unwrap(), &late).await.status,
            status
        );
    }
}

#[tokio::test]
async fn tokens_stand_where_the_consumer_says() {
    let signer = Signer::secret("HS256", 1);
    let token = signer.token(&claims(json!({})));
    let places = json!({
        "from_headers": [{"name": "jwt"}, {"name": "x-token", "value_prefix": "Token "}],
        "from_params": ["token"],
        "from_cookies": ["session"],
    });
    let own = global(NAME, &json!({"consumers": [consumer("c", &signer, places)]})).unwrap();
    let usual = global(NAME, &json!({"consumers": [consumer("c", &signer, json!({}))]})).unwrap();
    let (cookie, prefixed) = (format!("a=1; session={token}"), format!("Token {token}"));
    let (in_token, in_usual) = (format!("/?token={token}"), format!("/?access_token={token}"));
    let with_bearer = bearer(&token);
    for (uri, headers, by_own, by_usual) in [
        ("/", vec![("jwt", token.as_str())], 200, 401),
        ("/", vec![("JWT", token.as_str())], 200, 401),
        ("/", vec![("x-token", prefixed.as_str())], 200, 401),
        ("/", vec![("x-token", token.as_str())], 401, 401),
        ("/", vec![("cookie", cookie.as_str())], 200, 401),
        (in_token.as_str(), vec![], 200, 401),
        (in_usual.as_str(), vec![], 401, 200),
        ("/", vec![("authorization", with_bearer.as_str())], 401, 200),
        ("/", vec![("authorization", token.as_str())], 401, 401),
        ("/", vec![("authorization", "Bearer ключ")], 401, 401),
        ("/?access_token=%FF", vec![], 401, 401),
        ("/?access_token=", vec![], 401, 401),
    ] {
        assert_eq!(
            run(&own, get(uri, &headers)).await.status,
            by_own,
            "{uri} {headers:?}"
        );
        assert_eq!(
            run(&usual, get(uri, &headers)).await.status,
            by_usual,
            "{uri} {headers:?}"
        );
    }
}

#[tokio::test]
async fn every_token_of_a_request_must_be_good() {
    let signer = Signer::secret("HS256", 1);
    let plugin = global(NAME, &json!({"consumers": [consumer("c", &signer, json!({}))]})).unwrap();
    let good = signer.token(&claims(json!({})));
    let stale = signer.token(&claims(json!({"exp": 1})));
    let ask = async |in_query: &str, in_headers: &[&str]| {
        let values: Vec<String> = in_headers.iter().map(|token| bearer(token)).collect();
        let headers: Vec<_> = values
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        run(&plugin, get(&format!("/?access_token={in_query}"), &headers))
            .await
            .line()
    };
    assert_eq!(ask(&good, &[&good]).await, "200 [from upstream] ");
    assert_eq!(ask(&stale, &[&good]).await, refusal("Jwt is expired"));
    let twice = ask(&good, &[&good, &good]).await;
    assert!(twice.starts_with("401 [Jwt is not in the form"), "{twice}");
}

#[tokio::test]
async fn the_first_consumer_that_may_come_counts() {
    let (first, second) = (Signer::secret("HS256", 1), Signer::secret("HS256", 2));
    let config = json!({"consumers": [
        consumer("first", &first, json!({})),
        consumer("second", &second, json!({})),
        consumer("twin", &second, json!({})),
        consumer("team", &second, json!({"claims": {"team.name": " red "}})),
    ]});
    let by = |signer: &Signer, more: Value| signer.token(&claims(more));
    let plugin = global(NAME, &config).unwrap();
    let went = with_token(&plugin, &by(&second, json!({}))).await;
    assert_eq!(went.consumer.as_deref(), Some("second"));
    let only = rule(NAME, &config, &json!({"allow": ["twin"]})).unwrap();
    let went = with_token(&only, &by(&second, json!({}))).await;
    assert_eq!((went.status, went.consumer.as_deref()), (200, Some("twin")));
    let went = with_token(&only, &by(&first, json!({}))).await;
    assert_eq!(went.line(), "403 [Access Denied] jwt_authn_access_denied");
    assert_eq!(
        went.consumer.as_deref(),
        Some("first"),
        "the log shows who it was"
    );
    assert!(went.upstream.is_none());
    let team = rule(NAME, &config, &json!({"allow": ["team"]})).unwrap();
    for (more, status) in [
        (json!({"team": {"name": "red"}}), 200),
        (json!({"team": {"name": "blue"}}), 403),
        (json!({"team": {"name": ["red"]}}), 403),
        (json!({}), 403),
    ] {
        assert_eq!(
            with_token(&team, &by(&second, more.clone())).await.status,
            status,
            "{more}"
        );
    }
    // The first consumer's fault is told.
    let stale = by(&second, json!({"exp": 1}));
    assert_eq!(
        with_token(&plugin, &stale).await.line(),
        refusal("Jwt is expired")
    );
    assert!(plugin.admits(Some("first")) && !plugin.admits(None));
    assert!(only.admits(Some("twin")) && !only.admits(Some("first")));
}

#[tokio::test]
async fn claims_go_on_in_headers_that_no_client_can_write() {
    let signer = Signer::secret("HS256", 1);
    let headers = json!({"claims_to_headers": [
        {"claim": "sub", "header": "x-user"},
        {"claim": "exp", "header": "x-exp"},
        {"claim": "org.id", "header": "x-org", "override": false},
        {"claim": "admin", "header": "x-admin"},
        {"claim": "bad", "header": "x-bad"},
    ]});
    let plugin = global(NAME, &json!({"consumers": [consumer("c", &signer, headers)]})).unwrap();
    let end = in_seconds(60);
    let more = json!({"org": {"id": 7}, "admin": true, "bad": "a\r\nb", "exp": end});
    let token = bearer(&signer.token(&claims(more)));
    let sent = [
        ("authorization", token.as_str()),
        ("x-user", "root"),
        ("x-org", "1"),
        ("x-admin", "yes"),
        ("x-bad", "yes"),
    ];
    let upstream = run(&plugin, get("/", &sent)).await.upstream.unwrap();
    for (name, value) in [
        ("x-user", "test".to_owned()),
        ("x-exp", end.to_string()),
        ("x-org", "1|7".to_owned()),
        // Of another kind, or no header's value: nobody says it.
        ("x-admin", String::new()),
        ("x-bad", String::new()),
    ] {
        assert_eq!(upstream.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_token_can_be_taken_out() {
    let signer = Signer::secret("HS256", 1);
    let places = json!({
        "keep_token": false, "from_headers": [{"name": "jwt"}], "from_params": ["token"], "from_cookies": ["session"],
    });
    let plugin = global(NAME, &json!({"consumers": [consumer("c", &signer, places)]})).unwrap();
    let token = signer.token(&claims(json!({})));
    let uri = format!("/?a=1&token={token}");
    let cookie = format!("session={token}; a=1");
    let request = get(&uri, &[("jwt", &token), ("cookie", &cookie), ("other", "1")]);
    let upstream = run(&plugin, request).await.upstream.unwrap();
    assert_eq!(upstream.uri, "http://gateway/?a=1");
    assert_eq!(
        (upstream.header("jwt"), upstream.header("cookie")),
        (String::new(), "a=1".to_owned())
    );
    // A vendor never gets one.
    let usual = global(NAME, &json!({"consumers": [consumer("c", &signer, json!({}))]})).unwrap();
    let request = || get(&format!("/?access_token={token}&a=1"), &[]);
    let went = run(&usual, request()).await;
    let mut sent = request();
    went.exchange.remove_credentials(&mut sent);
    assert_eq!(sent.uri(), "http://gateway/?a=1");
}

#[tokio::test]
async fn only_requests_with_certain_headers_are_asked_if_the_config_says_so() {
    let signer = Signer::secret("HS256", 1);
    let config = json!({"consumers": [consumer("c", &signer, json!({}))], "enable_headers": ["x-a", "x-b"]});
    let plugin = global(NAME, &config).unwrap();
    assert_eq!(run(&plugin, get("/", &[])).await.status, 200);
    assert_eq!(run(&plugin, get("/", &[("x-b", "")])).await.status, 401);
}

#[tokio::test]
async fn who_is_asked_outside_the_rules_and_by_rules_of_their_own() {
    let (signer, other) = (Signer::secret("HS256", 1), Signer::secret("HS256", 2));
    let config = json!({"consumers": [consumer("c", &signer, json!({}))]});
    let silent = parse(NAME, Some(&config), None, true).unwrap().0;
    assert_eq!(run(&silent, get("/", &[])).await.status, 200);
    let own = json!({"consumers": [consumer("own", &other, json!({}))]});
    let plugin = rule(NAME, &config, &own).unwrap();
    let went = with_token(&plugin, &other.token(&claims(json!({})))).await;
    assert_eq!(went.consumer.as_deref(), Some("own"));
    assert_eq!(
        with_token(&plugin, &signer.token(&claims(json!({}))))
            .await
            .status,
        401
    );
    let nobody = rule(NAME, &config, &json!({"allow": []})).unwrap();
    assert_eq!(
        with_token(&nobody, &signer.token(&claims(json!({}))))
            .await
            .status,
        403
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let good = consumer("a", &Signer::secret("HS256", 1), json!({}));
    let with = |name: &str, value: Value| {
        let mut consumer = good.clone();
        consumer[name] = value;
        json!({"consumers": [consumer]})
    };
    for (config, message) in [
        (json!({}), "consumers: at least one is required"),
        (json!({"consumers": {}}), "consumers: must be a list"),
        (
            json!({"consumers": [good, good]}),
            "consumers[1].name: another consumer is called \"a\" too",
        ),
        (with("name", json!("")), "consumers[0].name: is required"),
        (
            with("name", json!("a\nb")),
            "consumers[0].name: cannot be sent in a header",
        ),
        (with("jwks", json!(null)), "consumers[0].jwks: is required"),
        (
            with("jwks", json!({"keys": []})),
            "consumers[0].jwks: must be a text: quote it",
        ),
        (
            with("jwks", json!("s3cret")),
            "consumers[0].jwks: is no JSON (line 1, column 1)",
        ),
        (
            with("issuer", json!(1)),
            "consumers[0].issuer: must be a text: quote it",
        ),
        (
            with("claims", json!(["a"])),
            "consumers[0].claims: must be an object",
        ),
        (
            with("claims", json!({"a": 1})),
            "consumers[0].claims.a: must be a text: quote it",
        ),
        (
            with("clock_skew_seconds", json!(-1)),
            "consumers[0].clock_skew_seconds: must not be negative",
        ),
        (
            with("keep_token", json!("no")),
            "consumers[0].keep_token: must be true or false",
        ),
        (
            with("from_headers", json!(["authorization"])),
            "consumers[0].from_headers[0]: must be an object",
        ),
        (
            with("from_headers", json!([{"name": "a b"}])),
            "consumers[0].from_headers[0].name: is no name of a header",
        ),
        (
            with("from_params", json!([1])),
            "consumers[0].from_params[0]: must be a text: quote it",
        ),
        (
            with("from_cookies", json!(["a", ""])),
            "consumers[0].from_cookies[1]: must not be empty",
        ),
        (
            with("claims_to_headers", json!([{"claim": "sub"}])),
            "consumers[0].claims_to_headers[0].header: is required",
        ),
        (
            with(
                "claims_to_headers",
                json!([{"claim": "sub", "header": "Content-Length"}]),
            ),
            "consumers[0].claims_to_headers[0].header: cannot be written by a claim",
        ),
        (
            with(
                "claims_to_headers",
                json!([{"claim": "sub", "header": "a"}, {"claim": "sub", "header": "b"}]),
            ),
            "consumers[0].claims_to_headers[1].claim: the same claim stands here twice",
        ),
    ] {
        assert_eq!(global(NAME, &config).err().as_deref(), Some(message), "{config}");
    }
    let bad = json!({"consumers": [good], "enable_headers": [" "]});
    assert_eq!(
        global(NAME, &bad).err().as_deref(),
        Some("enable_headers[0]: is no name of a header")
    );
    let warned = json!({"consumers": [consumer("a", &Signer::with_secret("HS256", b"short"), json!({}))]});
    assert_eq!(
        parse(NAME, Some(&warned), None, false).unwrap().1,
        ["consumers[0].jwks.keys[0]: is shorter than 32 bytes: it can be guessed from a token"]
    );
}

/// A service for each of so many issuers, and one for all.
fn many(count: usize) -> Value {
    let of = |number: usize| Signer::with_secret("HS256", format!("{number:064}").as_bytes());
    let consumers: Vec<_> = (0..count)
        .map(|number| {
            consumer(
                &number.to_string(),
                &of(number),
                json!({"issuer": number.to_string()}),
            )
        })
        .chain([json!({"name": "any", "jwks": of(count).jwks()})])
        .collect();
    json!({"consumers": consumers})
}

fn of_many(number: usize, issuer: &str) -> String {
    let signer = Signer::with_secret("HS256", format!("{number:064}").as_bytes());
    bearer(&signer.token(&claims(json!({"iss": issuer}))))
}

#[tokio::test]
async fn each_issuer_finds_its_consumer_and_any_the_one_for_all() {
    let plugin = global(NAME, &many(100)).unwrap();
    let ask = async |token: &str| run(&plugin, get("/", &[("authorization", token)])).await;
    for (token, consumer) in [
        (of_many(0, "0"), "0"),
        (of_many(57, "57"), "57"),
        (of_many(100, "57"), "any"),
        (of_many(100, "nobody"), "any"),
    ] {
        assert_eq!(ask(&token).await.consumer.as_deref(), Some(consumer));
    }
    for (token, told) in [
        (of_many(3, "4"), Fault::FAILS.0),
        (of_many(3, "0"), Fault::FAILS.0),
        // What the first consumer finds wrong, whoever else is looked at.
        (bearer("a.b"), Fault::FORM.0),
    ] {
        assert_eq!(ask(&token).await.line(), refusal(told));
    }
    let only = rule(NAME, &many(100), &json!({"allow": ["any"]})).unwrap();
    let both = format!(
        "/?access_token={}",
        of_many(57, "57").trim_start_matches("Bearer ")
    );
    let went = run(&only, get(&both, &[("authorization", &of_many(57, "57"))])).await;
    assert_eq!((went.status, went.consumer.as_deref()), (403, Some("57")));
}

/// The bound is for an unoptimised build on a busy machine; a request that looks at every consumer costs a hundred times
/// as much.
#[tokio::test]
async fn many_consumers_cost_a_request_little() {
    let fastest = async |count: usize| {
        let plugin = global(NAME, &many(count)).unwrap();
        let token = of_many(count - 1, &(count - 1).to_string());
        let mut fastest = Duration::MAX;
        for _ in 0..30 {
            let begun = clock::now();
            let went = run(&plugin, get("/", &[("authorization", &token)])).await;
            fastest = fastest.min(begun.elapsed());
            assert_eq!(went.status, 200);
        }
        fastest
    };
    let (few, many) = (fastest(10).await, fastest(5_000).await);
    println!("10 consumers: {few:?}, 5,000: {many:?}");
    assert!(many < few * 5, "{few:?} {many:?}");
}

/// One consumer whose keys `idp.static` publishes.
fn published(more: Value) -> Value {
    let mut remote = json!({"service_name": "idp.static", "path": "/certs?a=1"});
    remote
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"consumers": [{"name": "c", "remote_jwks": remote}, {"name": "d", "remote_jwks": remote}]})
}

/// A service that publishes keys, and what stands behind the plugin.
struct Publisher {
    plugin: std::sync::Arc<dyn tollgate_plugin::Plugin>,
    behind: Behind,
}

impl Publisher {
    fn new(config: &Value) -> Self {
        Self {
            plugin: global(NAME, config).unwrap(),
            behind: Behind::default(),
        }
    }

    fn publishes(&self, status: u16, set: &str) {
        let mut response = Response::new(Body::bytes(set.to_owned()));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        self.behind.services.answers.borrow_mut().push_back(Ok(response));
    }

    /// Status and text of the answer to a token, and how often the service was asked for it.
    async fn ask(&self, signer: &Signer) -> (u16, String, usize) {
        let token = bearer(&signer.token(&claims(json!({}))));
        let went = run_before(&self.plugin, get("/", &[("authorization", &token)]), &self.behind).await;
        (went.status, went.body, went.calls.len())
    }

    async fn status(&self, signer: &Signer) -> (u16, usize) {
        let (status, _, calls) = self.ask(signer).await;
        (status, calls)
    }
}

fn second() -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_secs(1))
}

#[tokio::test(start_paused = true)]
async fn published_keys_are_fetched_when_they_are_needed_and_old() {
    let publisher = Publisher::new(&published(
        json!({"cache_duration": 60, "timeout": 70, "service_port": 8080}),
    ));
    let signer = Signer::secret("HS256", 1);
    let none = run_before(&publisher.plugin, get("/", &[]), &publisher.behind).await;
    assert_eq!((none.status, none.calls.len()), (401, 0), "no token, no question");
    publisher.publishes(200, &signer.jwks());
    let token = bearer(&signer.token(&claims(json!({}))));
    let went = run_before(
        &publisher.plugin,
        get("/", &[("authorization", &token)]),
        &publisher.behind,
    )
    .await;
    assert_eq!(went.consumer.as_deref(), Some("c"));
    let [call] = &went.calls[..] else { panic!() };
    assert_eq!(
        (&*call.cluster, call.timeout),
        ("outbound|8080||idp.static", Duration::from_millis(70))
    );
    assert_eq!(
        (call.method.as_str(), call.uri.to_string()),
        ("GET", "http://idp.static/certs?a=1".to_owned())
    );
    assert_eq!(
        (call.header("host"), call.header("authorization")),
        ("idp.static".into(), String::new())
    );
    assert_eq!(publisher.status(&signer).await, (200, 0));
    tokio::time::advance(Duration::from_secs(61)).await;
    publisher.publishes(200, &Signer::secret("HS256", 2).jwks());
    assert_eq!(publisher.status(&signer).await, (401, 1), "the key is gone");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_new_key_makes_it_known() {
    let publisher = Publisher::new(&published(json!({})));
    let (old, new) = (
        Signer::secret("HS256", 1).named("1"),
        Signer::secret("HS256", 2).named("2"),
    );
    publisher.publishes(200, &old.jwks());
    assert_eq!(publisher.status(&old).await, (200, 1));
    publisher.publishes(200, &new.jwks());
    // Not twice within a second, whatever keys tokens name.
    assert_eq!(publisher.ask(&new).await, (401, Fault::NO_KEY.0.to_owned(), 0));
    second().await;
    assert_eq!(publisher.status(&new).await, (200, 1));
    assert_eq!(publisher.status(&old).await, (401, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_stay_in_force() {
    let publisher = Publisher::new(&published(json!({"cache_duration": 1})));
    let signer = Signer::secret("HS256", 1);
    let refused = (401, "Jwks remote fetch is failed".to_owned());
    // Nobody is there, and nobody is asked again at once.
    for calls in [1, 0] {
        assert_eq!(
            publisher.ask(&signer).await,
            (refused.0, refused.1.clone(), calls)
        );
    }
    for (status, set) in [(404, ""), (200, "no set"), (200, "{\"keys\":[]}")] {
        second().await;
        publisher.publishes(status, set);
        assert_eq!(publisher.status(&signer).await, (401, 1), "{set}");
    }
    second().await;
    publisher.publishes(200, &signer.jwks());
    assert_eq!(publisher.status(&signer).await, (200, 1));
    for (status, set) in [(503, ""), (200, "no set"), (200, "{\"keys\":[]}")] {
        second().await;
        publisher.publishes(status, set);
        assert_eq!(publisher.status(&signer).await, (200, 1), "{set}");
    }
}

#[test]
fn what_is_wrong_with_published_keys_is_told() {
    for (more, message) in [
        (json!({"service_name": ""}), "service_name: is required"),
        (json!({"service_port": 70000}), "service_port: is no port"),
        (json!({"path": "certs"}), "path: is no path: it begins with /"),
        (json!({"path": null}), "path: is required"),
        (json!({"timeout": -1}), "timeout: must not be negative"),
        (
            json!({"cache_duration": "long"}),
            "cache_duration: must be a whole number",
        ),
    ] {
        let told = global(NAME, &published(more)).err().unwrap();
        assert_eq!(told, format!("consumers[0].remote_jwks.{message}"));
    }
    let mut both = published(json!({}));
    both["consumers"][0]["jwks"] = json!("{}");
    let told = global(NAME, &both).err();
    assert_eq!(
        told.as_deref(),
        Some("consumers[0].remote_jwks: cannot stand next to jwks")
    );
}

/// Higress's own example, with the token that its page prints (good until 2029).
#[tokio::test]
async fn the_example_of_higress() {
    let key = "hM0k3AbXBPpKOGg__Ql2Obcq7s60myWDpbHXzgKUQdYo7YCRp0gUqkCnbGSvZ2rGEl4YFkKqIqW7mTHdj-bcqXpNr-NOznEyMpVPOIlqG_NWVC3dydBgcsIZIdD-MR2AQceEaxriPA_VmiUCwfwL2Bhs6_i7eolXoY11EapLQtutz0BV6ZxQQ4dYUmct--7PLNb4BWJyQeWu0QfbIthnvhYllyl2dgeLTEJT58wzFz5HeNMNz8ohY5K0XaKAe5cepryqoXLhA-V-O1OjSG8lCNdKS09OY6O0fkyweKEtuDfien5tHHSsHXoAxYEHPFcSRL4bFPLZ0orTt1_4zpyfew";
    let jwks = json!({"keys": [{"kty": "oct", "kid": "123", "k": key, "alg": "HS256"}]}).to_string();
    let config = json!({"consumers": [{"name": "consumer1", "issuer": "abcd", "jwks": jwks}]});
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjEyMyJ9.eyJpc3MiOiJhYmNkIiwic3ViIjoidGVzdCIsImlhdCI6MTY2NTY2MDUyNywiZXhwIjoxODY1NjczODE5fQ.-vBSV0bKeDwQcuS6eeSZN9dLTUnSnZVk8eVCXdooCQ4";
    let went = with_token(&global(NAME, &config).unwrap(), token).await;
    assert_eq!(went.consumer.as_deref(), Some("consumer1"), "{}", went.line());
}
