//! Pipelines on a paused clock with a collector that does as it is told, and the formats that no real part reads here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tollgate_base::clock;

use super::*;
use crate::trace::{Kind, MAX_ATTRIBUTES, Settings, Tracer, Wire};
use crate::{Metrics, Record};

struct Unit(u64);

impl Item for Unit {
    fn units(&self) -> u64 {
        self.0
    }

    fn size(&self) -> usize {
        1
    }
}

/// Writes how many units a report has.
struct Count;

impl Encoder<Unit> for Count {
    fn encode(&self, batch: &[Unit]) -> http::Request<Bytes> {
        let units: u64 = batch.iter().map(|unit| unit.0).sum();
        http::Request::new(Bytes::from(units.to_string()))
    }

    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        judge_http(answer)?;
        let refused = answer.body.len() as u64;
        Ok(Accepted { refused })
    }
}

/// Answers in turn, the last one for ever.
#[derive(Clone)]
struct Script {
    answers: Rc<RefCell<VecDeque<Result<u16, String>>>>,
    seen: Rc<RefCell<Vec<(Duration, String)>>>,
    began: clock::Instant,
}

impl Script {
    fn new(answers: &[Result<u16, &str>]) -> Self {
        let answers = answers.iter().map(|answer| answer.map_err(str::to_owned));
        Self {
            answers: Rc::new(RefCell::new(answers.collect())),
            seen: Rc::default(),
            began: clock::now(),
        }
    }

    fn reports(&self) -> Vec<String> {
        self.seen.borrow().iter().map(|(_, text)| text.clone()).collect()
    }
}

#[async_trait(?Send)]
impl Transport for Script {
    async fn send(&self, request: http::Request<Bytes>) -> Result<Answer, String> {
        let text = String::from_utf8(request.into_body().to_vec()).unwrap();
        self.seen.borrow_mut().push((self.began.elapsed(), text));
        let mut answers = self.answers.borrow_mut();
        let answer = if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        };
        let status = answer.unwrap()?;
        Ok(Answer {
            status,
            ..Answer::default()
        })
    }
}

struct Scene {
    queue: Queue<Unit>,
    counts: Counts,
    script: Script,
    running: tokio::task::JoinHandle<()>,
    ending: watch::Sender<Option<clock::Instant>>,
}

fn scene(answers: &[Result<u16, &str>]) -> Scene {
    let counts = Counts::new(&Metrics::new(), "trace_spans", "test");
    let (ending, ended) = watch::channel(None);
    let script = Script::new(answers);
    let (pipeline, queue) = Pipeline::new("test".to_owned(), Count, script.clone(), counts.clone(), ended);
    let running = tollgate_base::task::spawn_local("pipeline", pipeline.run());
    Scene {
        queue,
        counts,
        script,
        running,
        ending,
    }
}

/// Runs on a paused clock, with local tasks.
fn paused(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work);
}

#[test]
fn what_comes_together_goes_together_and_a_full_batch_does_not_wait() {
    paused(async {
        let scene = scene(&[Ok(200)]);
        for _ in 0..3 {
            scene.queue.offer(Unit(200));
        }
        scene.queue.offer(Unit(1));
        drop(scene.queue);
        scene.running.await.unwrap();
        assert_eq!(scene.script.reports(), ["600", "1"]);
        assert_eq!(scene.counts.exported.get(), 601);
        assert!(scene.script.seen.borrow()[0].0 < Duration::from_millis(1));
    });
}

#[test]
fn pauses_grow_and_a_collector_that_comes_back_gets_everything() {
    paused(async {
        let scene = scene(&[Err("refused"), Ok(503), Err("refused"), Ok(200)]);
        scene.queue.offer(Unit(7));
        drop(scene.queue);
        scene.running.await.unwrap();
        let times: Vec<_> = scene.script.seen.borrow().iter().map(|(at, _)| *at).collect();
        assert_eq!(times.len(), 4);
        let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, longest) in pauses.iter().zip([200, 400, 800]) {
            let longest = Duration::from_millis(longest + 2);
            assert!(
                *pause <= longest && *pause >= longest / 2 - Duration::from_millis(2),
                "{pauses:?}"
            );
        }
        assert_eq!(
            (scene.counts.exported.get(), scene.counts.unreachable.get()),
            (7, 0)
        );
    });
}

#[test]
fn a_dead_collector_costs_what_is_too_old_and_what_finds_no_room() {
    paused(async {
        let scene = scene(&[Err("dead")]);
        for _ in 0..5000 {
            scene.queue.offer(Unit(1));
        }
        assert_eq!(scene.counts.queue_full.get(), 5000 - 4096);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(scene.counts.unreachable.get(), 512);
        // At the end there is one more try each, within the time that is left.
        let before = clock::now();
        scene.ending.send_replace(Some(before + Duration::from_secs(2)));
        scene.running.await.unwrap();
        assert!(
            before.elapsed() <= Duration::from_secs(15),
            "{:?}",
            before.elapsed()
        );
        let lost = scene.counts.unreachable.get() + scene.counts.shutdown.get();
        assert_eq!(lost, 4096);
    });
}

#[test]
fn what_is_refused_is_not_sent_again() {
    paused(async {
        let scene = scene(&[Ok(400), Ok(200)]);
        scene.queue.offer(Unit(512));
        scene.queue.offer(Unit(3));
        drop(scene.queue);
        scene.running.await.unwrap();
        assert_eq!(scene.script.reports(), ["512", "3"]);
        assert_eq!(
            (scene.counts.refused.get(), scene.counts.exported.get()),
            (512, 3)
        );
    });
}

#[test]
fn grpc_statuses_say_whether_to_try_again() {
    let answer = |status: u16, trailer: Option<&'static str>| {
        let mut trailers = HeaderMap::new();
        if let Some(code) = trailer {
            trailers.insert("grpc-status", http::HeaderValue::from_static(code));
        }
        Answer {
            status,
            trailers,
            ..Answer::default()
        }
    };
    assert!(grpc::judge(&answer(200, Some("0"))).is_ok());
    for code in ["14", "4", "8"] {
        assert!(
            matches!(grpc::judge(&answer(200, Some(code))), Err(Failure::Passing(_))),
            "{code}"
        );
    }
    for code in ["3", "12", "16", "7"] {
        assert!(
            matches!(grpc::judge(&answer(200, Some(code))), Err(Failure::Final(_))),
            "{code}"
        );
    }
    assert!(matches!(
        grpc::judge(&answer(200, None)),
        Err(Failure::Passing(_))
    ));
    assert!(matches!(
        grpc::judge(&answer(502, None)),
        Err(Failure::Passing(_))
    ));
    // An answer without body keeps its status in the head.
    let mut head = answer(200, None);
    head.headers
        .insert("grpc-status", http::HeaderValue::from_static("0"));
    assert!(grpc::judge(&head).is_ok());
}

#[test]
fn partial_success_is_read_over_both_transports() {
    use prost::Message as _;
    let said = otlp_messages::ExportResponse {
        partial_success: Some(otlp_messages::PartialSuccess {
            rejected: 3,
            error_message: "too old".to_owned(),
        }),
    };
    for grpc in [true, false] {
        let otlp = Otlp {
            grpc,
            service: Arc::from("s"),
            instance: Arc::from("i"),
        };
        let framed = super::grpc::request("/x", std::slice::from_ref(&said)).into_body();
        let mut answer = Answer {
            status: 200,
            body: if grpc { framed } else { said.encode_to_vec().into() },
            ..Answer::default()
        };
        answer
            .trailers
            .insert("grpc-status", http::HeaderValue::from_static("0"));
        let traces = OtlpTraces(otlp);
        assert_eq!(traces.judge(&answer), Ok(Accepted { refused: 3 }));
        let report = traces.encode(&[]);
        let path = if grpc {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        } else {
            "/v1/traces"
        };
        assert_eq!(report.uri().path(), path);
    }
}

/// A collector that takes everything.
struct Takes;

#[async_trait(?Send)]
impl Transport for Takes {
    async fn send(&self, _: http::Request<Bytes>) -> Result<Answer, String> {
        Ok(Answer {
            status: 200,
            ..Answer::default()
        })
    }
}

fn record() -> Record {
    let connection = crate::record::Connection {
        id: 1,
        peer: "127.0.0.1:1".parse().unwrap(),
        local: "127.0.0.1:2".parse().unwrap(),
        server_name: None,
        tls: false,
    };
    let original = crate::record::Original {
        method: http::Method::POST,
        authority: Arc::from("api.example.com"),
        path: "/v1/chat/completions".parse().unwrap(),
        version: http::Version::HTTP_11,
    };
    let id = http::HeaderValue::from_static("b3a1f8b0-aaaa-bbbb-cccc-0123456789ab");
    Record::new(Rc::new(connection), original, id, clock::now())
}

/// One request with its attempt and the tags that ai-statistics leaves; without a tracer, what is left of that.
fn request(tracer: Option<&Arc<Tracer>>) {
    let (record, mut headers) = (record(), HeaderMap::new());
    match tracer {
        Some(tracer) => record.trace.begin(tracer, &record, &mut headers),
        None => record.untagged.set(true),
    }
    if let Some(mut attempt) = record
        .trace
        .open(Kind::Attempt, "outbound|443||qwen.dns", "qwen.dns:443")
    {
        attempt.inject(&mut headers);
        attempt.answered(200);
    }
    record.status.set(200);
    record.set_span_tag("gen_ai.request.model", "gpt-4o-mini");
    record.set_span_tag("gen_ai.span.kind", "LLM");
    record.set_span_tag("gen_ai.model_name", "qwen-turbo");
    for tag in ["input_tokens", "output_tokens", "total_tokens"] {
        record.set_span_tag(format!("gen_ai.usage.{tag}"), 1234);
    }
    record.trace.finish(&record, clock::now());
}

/// A tracer of everything that hands over to this queue.
fn tracer(queue: Queue<crate::trace::Finished>) -> Arc<Tracer> {
    let settings = Settings {
        wire: Wire::OtlpHttp,
        sampling: 100.0,
        timeout: Duration::from_millis(500),
        service: Arc::from("gateway"),
        token: None,
    };
    Arc::new(Tracer {
        settings,
        instance: Arc::from("1@here"),
        queue,
    })
}

#[test]
fn a_failure_shows_however_many_tags_plugins_leave() {
    let counts = Counts::new(&Metrics::new(), "trace_spans", "test");
    let (queue, mut traces) = queue::channel(counts);
    let record = record();
    record.trace.begin(&tracer(queue), &record, &mut HeaderMap::new());
    record.set_span_tag("error", "not ours");
    for number in 0..2 * MAX_ATTRIBUTES {
        record.set_span_tag(format!("tag{number}"), number);
    }
    record.status.set(503);
    record.trace.finish(&record, clock::now());
    let trace = traces.ready().expect("a trace");
    let attributes = &trace.spans[0].attributes;
    let text = |name: &str| attributes.get(name).map(|value| value.text().into_owned());
    assert_eq!(text("error.type").as_deref(), Some("503"));
    assert_eq!(text("error").as_deref(), Some("true"));
    assert_eq!(text("tag0").as_deref(), Some("0"));
    assert_eq!(attributes.iter().count(), MAX_ATTRIBUTES);
}

#[test]
fn what_spans_cost() {
    const REQUESTS: u32 = 1_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let round = async |traced: bool| {
        let counts = Counts::new(&Metrics::new(), "trace_spans", "test");
        let (_ending, ended) = watch::channel(None);
        let encoder = OtlpTraces(Otlp {
            grpc: false,
            service: Arc::from("gateway"),
            instance: Arc::from("1@here"),
        });
        let (pipeline, queue) = Pipeline::new("test".to_owned(), encoder, Takes, counts.clone(), ended);
        let tracer = tracer(queue);
        let began = clock::now();
        for _ in 0..REQUESTS {
            request(traced.then_some(&tracer));
        }
        drop(tracer);
        let on_the_worker = began.elapsed() / REQUESTS;
        pipeline.run().await;
        let sent = if traced { 2 * u64::from(REQUESTS) } else { 0 };
        assert_eq!(counts.exported.get(), sent);
        (on_the_worker, began.elapsed() / REQUESTS)
    };
    let best = |traced| {
        let rounds = (0..20).map(|_| runtime.block_on(round(traced)));
        rounds.min().unwrap()
    };
    let ((without, _), (with, with_export)) = (best(false), best(true));
    let (worker, exporter) = (with.saturating_sub(without), with_export - with);
    println!("two spans of a request: {worker:?} on its worker, {exporter:?} in the exporter");
    // The limit holds with optimisation.
    if !cfg!(debug_assertions) {
        assert!(worker < Duration::from_micros(20), "{worker:?}");
        assert!(exporter < Duration::from_micros(20), "{exporter:?}");
    }
}
