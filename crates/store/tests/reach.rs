//! Real Redis servers, reached in every way: over TLS with whichever authority, by another address than their name's, and
//! as a user who may do little.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::net::SocketAddr;

use common::{MINUTE, Map, semantics, settings, stores, stores_in};
use tollgate_mock_llm::{Authority, Pair, Validity};
use tollgate_store::{Address, Failure, Identity, Place, Settings, Tls, Trust};
use tollgate_testkit::redis::{self, Redis};

/// An authority, in a file too, and a certificate of its for these names.
struct Trusted {
    authority: Authority,
    file: tempfile::NamedTempFile,
    pair: Pair,
}

impl Trusted {
    fn new(names: &[&str]) -> Self {
        let authority = Authority::new().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        let pair = authority.issue(names, Validity::Valid).unwrap();
        Self {
            authority,
            file,
            pair,
        }
    }

    fn start(&self, options: &[&str]) -> (Redis, SocketAddr) {
        let redis = Redis::start_secure(self.identity(&self.authority.pem()), options).unwrap();
        let address = redis.secure.unwrap();
        (redis, address)
    }

    fn identity<'a>(&'a self, authority: &'a str) -> redis::Identity<'a> {
        redis::Identity {
            certificate: &self.pair.certificate,
            key: &self.pair.key,
            authority,
        }
    }
}

/// What a store says when it is asked.
async fn failure(map: Map, settings: Settings) -> String {
    let failure = stores_in(map).0.redis(settings).get("k").await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    failure.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_believes_the_authority_that_it_is_told() {
    let trusted = Trusted::new(&["127.0.0.1"]);
    let (_redis, address) = trusted.start(&["--requirepass", "p?ss"]);
    let ca = trusted.file.path().display().to_string();
    let with = |query: &str| settings(&format!("rediss://:p%3Fss@{address}{query}"));
    let (stores, _) = stores();
    semantics(&stores, &stores.redis(with(&format!("?ca={ca}")))).await;
    let unverified = stores.redis(with("?verify=off"));
    assert_eq!(unverified.get("quota").await, Ok(Some(-6)));
    let unknown = failure(Map::default(), with("")).await;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let other = Trusted::new(&["127.0.0.1"]);
    let foreign = with(&format!("?ca={}", other.file.path().display()));
    let foreign = failure(Map::default(), foreign).await;
    assert!(foreign.contains("certificate"), "{foreign}");
    assert!(!foreign.contains("p?ss"), "{foreign}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_verified_wherever_it_is_resolved_to() {
    let trusted = Trusted::new(&["redis.example"]);
    let (_redis, address) = trusted.start(&[]);
    let ca = trusted.file.path().display().to_string();
    let map = || Map {
        servers: [
            (("redis.example".to_owned(), 1), address),
            (("other.example".to_owned(), 1), address),
        ]
        .into(),
        ..Map::default()
    };
    let (stores, _) = stores_in(map());
    let named = stores.redis(settings(&format!("rediss://redis.example:1?ca={ca}")));
    named.set("k", 1).await.unwrap();
    let other = settings(&format!("rediss://other.example:1?ca={ca}"));
    let other = failure(map(), other).await;
    assert!(other.contains("not valid for name"), "{other}");
    let by_address = failure(map(), settings(&format!("rediss://{address}?ca={ca}"))).await;
    assert!(by_address.contains("not valid for name"), "{by_address}");
    // TLS is spoken to nobody who does not speak it, and to nobody in the clear who does.
    let plain = failure(map(), settings(&format!("redis://{address}"))).await;
    assert!(!plain.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_the_tls_of_the_configuration() {
    let trusted = Trusted::new(&["redis.example"]);
    let (_redis, address) = trusted.start(&["--tls-auth-clients", "yes"]);
    let client = trusted.authority.issue(&["gateway"], Validity::Valid).unwrap();
    let identity = Identity {
        chain: client.certificate.clone().into_bytes(),
        key: client.key.clone().into_bytes(),
    };
    let bundle = || Trust::Bundle(trusted.authority.pem().into_bytes().into());
    let service = |trust, server_name: Option<&str>, identity| {
        let tls = Tls {
            trust,
            server_name: server_name.map(str::to_owned),
            identity,
        };
        let place = Place {
            addresses: vec![address],
            names: Vec::new(),
            tls: Some(tls),
        };
        Map {
            services: [(("redis.static".to_owned(), 80), place)].into(),
            ..Map::default()
        }
    };
    let at = || Settings {
        address: Address::Service("redis.static".to_owned(), 80),
        ..settings("redis://unused")
    };
    let good = service(bundle(), Some("redis.example"), Some(identity.clone()));
    let (stores, _) = stores_in(good);
    stores.redis(at()).set("k", 1).await.unwrap();
    let (stores, _) = stores_in(service(Trust::Anybody, None, Some(identity.clone())));
    assert_eq!(stores.redis(at()).get("k").await, Ok(Some(1)));
    for wrong in [
        service(bundle(), Some("redis.example"), None),
        service(bundle(), None, Some(identity.clone())),
        service(Trust::System, Some("redis.example"), Some(identity)),
    ] {
        assert!(!failure(wrong, at()).await.is_empty());
    }
    assert!(
        !format!(
            "{:?}",
            Identity {
                chain: Vec::new(),
                key: b"secret".to_vec()
            }
        )
        .contains("115")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_tls() {
    let trusted = Trusted::new(&["127.0.0.1"]);
    let authority = trusted.authority.pem();
    let nodes = Redis::secure_cluster(trusted.identity(&authority)).unwrap();
    let all: Vec<_> = nodes
        .iter()
        .map(|node| node.secure.unwrap().to_string())
        .collect();
    let ca = trusted.file.path().display();
    let (stores, _) = stores();
    let cluster = settings(&format!("rediss+cluster://{}?ca={ca}", all.join(",")));
    semantics(&stores, &stores.redis(cluster)).await;
    let one = stores.redis(settings(&format!("rediss://{}?verify=off", all[1])));
    for number in 0..20 {
        assert_eq!(
            one.take(&format!("key {number}"), 5, MINUTE)
                .await
                .unwrap()
                .current,
            1
        );
    }
    let unknown = failure(Map::default(), settings(&format!("rediss+cluster://{}", all[0]))).await;
    assert!(!unknown.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_over_tls_knows_a_master_over_tls() {
    let trusted = Trusted::new(&["127.0.0.1"]);
    let (redis, _) = trusted.start(&[]);
    let authority = trusted.authority.pem();
    let sentinel = redis.secure_sentinel(trusted.identity(&authority)).unwrap();
    let secure = sentinel.secure.unwrap();
    let ca = trusted.file.path().display();
    let (stores, _) = stores();
    let known = settings(&format!("rediss+sentinel://{secure}/main?ca={ca}"));
    semantics(&stores, &stores.redis(known)).await;
    let unknown = settings(&format!("rediss+sentinel://{secure}/main"));
    let told = failure(Map::default(), unknown).await;
    assert!(told.contains("no sentinel has the master main"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_sentinels_are_where_they_are_resolved_to() {
    let nodes = Redis::named_cluster().unwrap();
    let mut servers: std::collections::HashMap<_, _> = nodes
        .iter()
        .enumerate()
        .map(|(number, node)| {
            (
                (format!("node-{number}.redis.example"), node.address.port()),
                node.address,
            )
        })
        .collect();
    servers.insert(("any.redis.example".to_owned(), 1), nodes[2].address);
    let (stores, _) = stores_in(Map {
        servers,
        ..Map::default()
    });
    semantics(
        &stores,
        &stores.redis(settings("redis+cluster://any.redis.example:1")),
    )
    .await;
    let one = stores.redis(settings(&format!(
        "redis://node-1.redis.example:{}",
        nodes[1].address.port()
    )));
    for number in 0..20 {
        assert_eq!(
            one.take(&format!("key {number}"), 5, MINUTE)
                .await
                .unwrap()
                .current,
            1
        );
    }

    let redis = Redis::start(&["--requirepass", "secret"]).unwrap();
    let sentinel = redis.sentinel().unwrap();
    let servers = [
        (("one.example".to_owned(), 1), sentinel.address),
        (("two.example".to_owned(), 2), redis.address),
    ];
    let map = || Map {
        servers: servers.clone().into(),
        ..Map::default()
    };
    let (stores, _) = stores_in(map());
    // The first one is no sentinel, the second one hangs, the third one knows.
    let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = hangs.local_addr().unwrap();
    let store = stores.redis(settings(&format!(
        "redis+sentinel://:secret@two.example:2,{hanging},one.example:1/main/2"
    )));
    store.set("k", 1).await.unwrap();
    let unknown = failure(map(), settings("redis+sentinel://:secret@one.example:1/other")).await;
    assert!(
        unknown.contains("no sentinel has the master other: one.example:1: has no master of this name"),
        "{unknown}"
    );
    assert!(!unknown.contains("secret"), "{unknown}");
}

/// The rights that docs/operations.md names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_few_rights() {
    let rights =
        "on >p@ss ~* -@all +get +set +incr +incrby +decrby +expire +ttl +pttl +eval +evalsha +script|load";
    let mut options = vec!["--user", "tollgate"];
    options.extend(rights.split(' '));
    let redis = Redis::start(&options).unwrap();
    let (stores, _) = stores();
    let as_user = |redis: &Redis| settings(&format!("redis://tollgate:p%40ss@{}", redis.address));
    semantics(&stores, &stores.redis(as_user(&redis))).await;
    let nodes = Redis::cluster().unwrap();
    for node in &nodes {
        let answer = node.ask(&format!("ACL SETUSER tollgate {rights} +info +cluster|slots"));
        assert_eq!(answer.as_deref(), Ok("+OK\r\n"));
    }
    semantics(&stores, &stores.redis(as_user(&nodes[0]))).await;
}
