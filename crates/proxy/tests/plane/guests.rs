//! Plugins that break or stop an answer: the request is told so, settled once and the same in line, counters and ledger.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tollgate_base::Error;
use tollgate_body::{Body, Request, Response};
use tollgate_mock_llm::Options as MockOptions;
use tollgate_observe::entry::Journal;
use tollgate_observe::usage::Tokens;
use tollgate_observe::{Books, Entry, Format, Spend};
use tollgate_plugin::{Candidate, Condition, Exchange, Link, Next, Order, Origin, Phase, Plugin};
use tollgate_snapshot::{Policy, Settings, Snapshot};
use tollgate_testkit::client::{self, post_json};

use crate::common::{snapshot, start_with};

const ASKED: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// What a plugin does once the vendor has been paid.
#[derive(Debug, Clone, Copy)]
enum Guest {
    /// Panics before it looks at the answer.
    PanicsAtOnce,
    /// Panics in the middle of the answer.
    PanicsLater,
    /// Ends the answer, as a guard that does not like it.
    Stops,
}

#[async_trait(?Send)]
impl Plugin for Guest {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let record = exchange.record.clone();
        let mut response = next.run(exchange, request).await?;
        let tokens = Tokens {
            input: 7,
            output: 3,
            total: 10,
            ..Tokens::default()
        };
        let mut usage = record.usage.borrow_mut();
        usage.begin(true);
        usage.report(tokens, false);
        drop(usage);
        let guest = *self;
        assert!(!matches!(guest, Guest::PanicsAtOnce), "a plugin panics");
        let frames = stream::iter((0..2).map(move |number| match (number, guest) {
            (0, _) => Ok(Frame::data(Bytes::from_static(b"data: {\"a\":1}\n\n"))),
            (_, Guest::Stops) => Err(Error::gateway(StatusCode::FORBIDDEN, "guard_stopped", "not this")),
            _ => panic!("a plugin panics in its body"),
        }));
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().remove("content-length");
        response.headers_mut().insert("content-type", kind);
        *response.body_mut() = Body::boxed(StreamBody::new(frames));
        Ok(response)
    }
}

#[derive(Default)]
struct Ledger(Mutex<Vec<Entry>>);

impl Journal for Ledger {
    fn enter(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

fn with(guest: Guest, mut snapshot: Snapshot) -> Snapshot {
    let origin = Origin {
        object: "t/guest".into(),
        place: "test:1".into(),
    };
    let link = Link {
        name: "guest".into(),
        ordinal: 1,
        order: Order::new(Phase::default(), None),
        candidates: vec![Candidate {
            condition: Condition::Always,
            plugin: Some(Arc::new(guest)),
            origin,
        }],
    };
    let host = snapshot.hosts.any.as_mut().unwrap();
    Arc::get_mut(&mut host.routes[0]).unwrap().links.push(link);
    let format = Format::parse("%RESPONSE_CODE% %TOLLGATE(termination)% %RESPONSE_CODE_DETAILS%").unwrap();
    snapshot.settings = Settings {
        access_log: format.into(),
        ..Settings::default()
    };
    snapshot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_panics_or_stops_an_answer_costs_one_line_and_one_row() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    for (guest, status, ending) in [
        (Guest::PanicsAtOnce, 500, "refused"),
        (Guest::PanicsLater, 200, "refused"),
        (Guest::Stops, 200, "refused"),
    ] {
        let ledger = Arc::new(Ledger::default());
        let books = Books::new(Spend::default(), ledger.clone());
        let plane = start_with(with(guest, snapshot(mock.addr(), Policy::default())), books);
        let answer = client::send(plane.http, post_json("/v1/chat/completions", ASKED))
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{guest:?}");
        if status == 200 {
            // What was said is there, and nobody takes it for all of it.
            assert_eq!(answer.events()[0], r#"{"a":1}"#, "{guest:?}");
            assert!(
                answer.events().last().unwrap().contains("error"),
                "{guest:?}: {answer:?}"
            );
        }
        // The worker goes on.
        let again = client::send(plane.http, post_json("/v1/chat/completions", ASKED)).await;
        assert_eq!(again.unwrap().status, status, "{guest:?}");
        let page = plane.metrics();
        let log = plane.stop().await;
        assert_eq!(log.lines().count(), 2, "{guest:?}: {log}");
        assert!(
            log.lines()
                .all(|line| line.starts_with(&format!("{status} {ending} "))),
            "{guest:?}: {log}"
        );
        let rows = ledger.0.lock().unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.status, row.tokens.total)).collect();
        assert_eq!(told, [(status, 10), (status, 10)], "{guest:?}");
        for (kind, sum) in [("input", 14), ("output", 6)] {
            let series =
                format!("tollgate_usage_tokens_total{{source=\"provider\",type=\"{kind}\"}} {sum}\n");
            assert!(page.contains(&series), "{guest:?}: {page}");
        }
        let settled = format!("tollgate_requests_total{{termination=\"{ending}\"}} 2\n");
        assert!(page.contains(&settled), "{guest:?}: {page}");
    }
}
