//! Names: TTLs, refreshes, stale answers, `--resolve`; once through real UDP, otherwise with a scripted look-up.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tollgate_base::{Flag, clock};
use tollgate_snapshot::{Cluster, Endpoints};

use crate::dns::{Found, Looking, Lookup};
use crate::tests::support::{Server, get, record, send, text, worker};
use crate::{Nameservers, Options, SendTimers, Shared, Upstreams};

const REFRESH: Duration = Duration::from_secs(200);

pub(crate) fn named(host: &str, port: u16) -> Arc<Cluster> {
    let endpoints = Endpoints::Dns {
        names: vec![(host.into(), port)],
        refresh: REFRESH,
    };
    Arc::new(Cluster::new("outbound|80||test.dns", endpoints))
}

pub(crate) fn upstreams_with(lookup: Arc<dyn Lookup>) -> Upstreams {
    Upstreams::new(Shared::with_lookup(
        lookup,
        Handle::current(),
        &Options::default(),
    ))
}

/// A resolver that never answers.
pub(crate) fn silent() -> Arc<dyn Lookup> {
    struct Silent;
    impl Lookup for Silent {
        fn lookup(&self, _host: Arc<str>) -> Looking {
            Box::pin(std::future::pending())
        }
    }
    Arc::new(Silent)
}

/// Answers in turn, the last one for ever; counts the questions.
struct Script {
    answers: Mutex<VecDeque<Result<Found, String>>>,
    asked: AtomicUsize,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Result<Found, String>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Script {
    fn lookup(&self, _host: Arc<str>) -> Looking {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.pop_front().unwrap()
        } else {
            answers[0].clone()
        };
        Box::pin(async move { answer })
    }
}

fn found(ip: &str, seconds: u64) -> Result<Found, String> {
    Ok(Found {
        addresses: vec![ip.parse().unwrap()],
        ttl: Duration::from_secs(seconds),
    })
}

/// Two polite servers on the same port of two loopback addresses, told apart by what they note.
async fn pair() -> (Server, Server, u16) {
    for _ in 0..20 {
        let one = Server::polite().await;
        let port = one.address.port();
        if let Some(two) = Server::polite_at(SocketAddr::from(([127, 0, 0, 2], port))).await {
            return (one, two, port);
        }
    }
    panic!("no port is free on both addresses");
}

async fn ask(upstreams: &Upstreams, cluster: &Arc<Cluster>) {
    let response = send(upstreams, cluster, get("/")).await.unwrap();
    text(response).await.unwrap();
}

#[test]
fn an_answer_is_kept_for_its_ttl_and_then_asked_for_again_in_the_background() {
    worker(true, async {
        let (one, two, port) = pair().await;
        let script = Script::of([found("127.0.0.1", 10), found("127.0.0.2", 10)]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        ask(&upstreams, &cluster).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        ask(&upstreams, &cluster).await;
        assert_eq!((script.asked(), one.notes().len()), (1, 2));

        tokio::time::sleep(Duration::from_secs(2)).await;
        // This one still goes to the old address and starts the look-up.
        ask(&upstreams, &cluster).await;
        assert_eq!((script.asked(), one.notes().len()), (2, 3));
        ask(&upstreams, &cluster).await;
        assert_eq!((one.notes().len(), two.notes().len()), (3, 1));
    });
}

#[test]
fn a_ttl_longer_than_the_clusters_refresh_is_cut() {
    worker(true, async {
        let (_one, _two, port) = pair().await;
        let script = Script::of([found("127.0.0.1", 100_000)]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        ask(&upstreams, &cluster).await;
        tokio::time::sleep(REFRESH - Duration::from_secs(1)).await;
        ask(&upstreams, &cluster).await;
        assert_eq!(script.asked(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        ask(&upstreams, &cluster).await;
        assert_eq!(script.asked(), 2);
    });
}

#[test]
fn an_answer_far_beyond_its_ttl_is_not_used_unasked() {
    worker(true, async {
        let (one, two, port) = pair().await;
        let script = Script::of([found("127.0.0.1", 10), found("127.0.0.2", 10)]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        ask(&upstreams, &cluster).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        ask(&upstreams, &cluster).await;
        assert_eq!((one.notes().len(), two.notes().len()), (1, 1));
    });
}

#[test]
fn an_old_answer_outlives_a_failed_look_up() {
    worker(true, async {
        let (one, _two, port) = pair().await;
        let failed = Err("DNS: a.example: server failure".to_owned());
        let script = Script::of([found("127.0.0.1", 10), failed]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        for _ in 0..3 {
            ask(&upstreams, &cluster).await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        assert_eq!(one.notes().len(), 3);
        assert!(script.asked() >= 3);
    });
}

#[test]
fn a_name_that_does_not_resolve_is_503_uf_and_not_asked_for_with_every_request() {
    worker(true, async {
        let (one, _two, port) = pair().await;
        let failed = Err("DNS: a.example: no such name".to_owned());
        let script = Script::of([failed, found("127.0.0.1", 10)]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        for _ in 0..3 {
            let noted = record();
            let error = upstreams
                .send(&cluster, get("/"), &SendTimers::default(), &noted)
                .await
                .err()
                .unwrap();
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(error.flag(), Some(Flag::UpstreamConnectFailure));
            assert!(!error.message().contains("a.example"));
            let failure = noted.upstream_failure.borrow().clone();
            assert_eq!(failure.as_deref(), Some("DNS: a.example: no such name"));
        }
        assert_eq!(script.asked(), 1);
        tokio::time::sleep(Duration::from_secs(6)).await;
        ask(&upstreams, &cluster).await;
        assert_eq!((script.asked(), one.notes().len()), (2, 1));
    });
}

#[test]
fn connections_to_an_address_that_stays_are_kept_over_a_refresh() {
    worker(true, async {
        let (one, _two, port) = pair().await;
        let script = Script::of([found("127.0.0.1", 1)]);
        let (upstreams, cluster) = (upstreams_with(script.clone()), named("a.example", port));
        for _ in 0..4 {
            ask(&upstreams, &cluster).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert!(script.asked() >= 3);
        assert_eq!(one.connections(), 1);
    });
}

#[test]
fn resolve_sends_the_connection_elsewhere_and_keeps_the_name() {
    worker(false, async {
        let server = Server::polite().await;
        let rule = format!("LLM.Example:443:127.0.0.1:{}", server.address.port());
        let options = Options {
            overrides: vec![rule.parse().unwrap()],
            ..Options::default()
        };
        let upstreams = Upstreams::new(Shared::with_lookup(silent(), Handle::current(), &options));
        let response = send(&upstreams, &named("llm.example", 443), get("/"))
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok 0");
        assert!(server.notes()[0].contains("host: llm.example\r\n"));
        // Another port of the same name is not meant.
        let other = named("llm.example", 80);
        let timers = SendTimers {
            connect: Some(Duration::from_millis(1)),
            ..SendTimers::default()
        };
        let error = upstreams
            .send(&other, get("/"), &timers, &record())
            .await
            .err()
            .unwrap();
        assert_eq!(error.timer(), Some(tollgate_base::Timer::Connect));
    });
}

/// A name server: every `A` question gets the next address with TTL 0, everything else an empty answer.
async fn name_server(answers: &'static [[u8; 4]]) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tollgate_base::task::spawn_local("test name server", async move {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..length];
            // One question: header of 12 bytes, labels up to a zero, type and class.
            let name = query[12..].iter().position(|byte| *byte == 0).unwrap() + 13;
            let question = &query[12..name + 4];
            let wants_a = query[name..name + 2] == [0, 1];
            let mut reply = query[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_a), 0, 0, 0, 0]);
            reply.extend(question);
            if wants_a {
                let turn = counted.fetch_add(1, Ordering::SeqCst);
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                reply.extend(answers[turn.min(answers.len() - 1)]);
            }
            socket.send_to(&reply, client).await.unwrap();
        }
    });
    (address, asked)
}

#[test]
fn a_real_name_server_is_asked_again_when_its_ttl_is_over() {
    worker(false, async {
        let (one, two, port) = pair().await;
        let (nameserver, asked) = name_server(&[[127, 0, 0, 1], [127, 0, 0, 2]]).await;
        let options = Options {
            nameservers: Nameservers::At(vec![nameserver]),
            shortest_ttl: Duration::ZERO,
            ..Options::default()
        };
        let upstreams = Upstreams::new(Shared::new(Handle::current(), &options));
        let cluster = named("a.example", port);
        ask(&upstreams, &cluster).await;
        assert_eq!(one.notes().len(), 1);
        let until = clock::now() + Duration::from_secs(10);
        while two.notes().is_empty() {
            assert!(clock::now() < until, "the second answer was never used");
            ask(&upstreams, &cluster).await;
            tokio::task::yield_now().await;
        }
        assert!(asked.load(Ordering::SeqCst) >= 2);
    });
}

#[test]
fn an_address_needs_no_look_up() {
    worker(false, async {
        let server = Server::polite().await;
        let ip: IpAddr = server.address.ip();
        let cluster = named(&ip.to_string(), server.address.port());
        ask(&upstreams_with(silent()), &cluster).await;
        assert_eq!(server.notes().len(), 1);
    });
}
