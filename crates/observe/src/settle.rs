//! `settle`: the end of an exchange's story. Called by `account`, exactly once, however the exchange ended.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smallvec::SmallVec;
use tollgate_base::clock;
use tollgate_base::clock::Instant;

use crate::Record;
use crate::access_log::{Format, LineWriter};
use crate::metrics::{ListenerMetrics, Metrics};

/// Where an exchange's line and counts go.
#[derive(Debug, Clone, Copy)]
pub struct Settlement<'a> {
    /// The format whose captures are in the record.
    pub format: &'a Format,
    /// The worker's way into the access log; `None`: it is off.
    pub log: Option<&'a LineWriter>,
    /// The process's metrics.
    pub metrics: &'a Metrics,
    /// The listener that the request came in by.
    pub listener: &'a ListenerMetrics,
}

/// What a settlement hook is told besides the record.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// When the exchange was over.
    pub ended: Instant,
    /// Where counts go.
    pub metrics: &'a Metrics,
}

type Hook = Box<dyn FnOnce(&Record, &Ending<'_>)>;

/// What runs at settlement, see [`Record::on_settle`].
#[derive(Default)]
pub(crate) struct Hooks(RefCell<SmallVec<[Hook; 1]>>);

impl Hooks {
    pub(crate) fn add(&self, hook: Hook) {
        self.0.borrow_mut().push(hook);
    }

    fn run(&self, record: &Record, ending: &Ending<'_>) {
        for hook in self.0.take() {
            // Settlement runs while things are dropped: a panic that left it could end the process.
            if catch_unwind(AssertUnwindSafe(|| hook(record, ending))).is_err() {
                tracing::error!(request_id = ?record.request_id, "a settlement hook panicked");
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hooks({})", self.0.borrow().len())
    }
}

/// Writes the access-log line and counts the exchange; a second call for the same record does nothing.
pub fn settle(record: &Record, to: Settlement<'_>) {
    if record.settled.replace(true) {
        return;
    }
    let ended = clock::now();
    to.listener.requests.increment();
    to.listener.requests_by_status.increment(record.status.get());
    to.listener
        .request_time
        .observe(ended.saturating_duration_since(record.started));
    to.metrics.server.requests(record.termination.get()).increment();
    let ending = Ending {
        ended,
        metrics: to.metrics,
    };
    record.hooks.run(record, &ending);
    record.write_ai_log();
    if let Some(log) = to.log {
        log.line(|out| to.format.write(record, ended, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderValue, Method, Version};
    use tollgate_base::Termination;

    use crate::access_log::{Sink, Target};
    use crate::record::{Connection, Original};

    #[test]
    fn an_exchange_is_settled_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let metrics = Metrics::new();
        let sink = Sink::start(Target::File(path.clone()), &metrics).unwrap();
        let (log, listener) = (sink.writer(), metrics.listener("outbound_0.0.0.0_80"));
        let format = Format::parse("%RESPONSE_CODE% %TOLLGATE(termination)%").unwrap();
        let record = record();
        record.status.set(504);
        record.terminate(Termination::Refused);
        let to = Settlement {
            format: &format,
            log: Some(&log),
            metrics: &metrics,
            listener: &listener,
        };
        settle(&record, to);
        settle(&record, to);
        assert_eq!(listener.requests.get(), 1);
        assert_eq!(listener.request_time.count(), 1);
        assert_eq!(metrics.server.requests(Some(Termination::Refused)).get(), 1);
        let mut text = String::new();
        metrics.render(&mut text);
        assert!(
            text.contains("{response_code=\"504\",response_code_class=\"5xx\","),
            "{text}"
        );
        let quiet = self::record();
        settle(&quiet, Settlement { log: None, ..to });
        assert_eq!(metrics.server.requests(None).get(), 1);
        assert!(sink.close(Duration::from_secs(20)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "504 refused\n");
    }

    #[test]
    fn hooks_run_once_in_order_and_a_panic_stops_at_its_own() {
        let metrics = Metrics::new();
        let listener = metrics.listener("a");
        let format = Format::parse("x").unwrap();
        let record = record();
        record.on_settle(|record, _| record.set_ai_log("a", 1));
        record.on_settle(|_, _| panic!("on purpose"));
        record.on_settle(|record, ending| {
            assert!(record.ai_log.borrow().contains_key("a"));
            record.set_ai_log("b", "x");
            let labels = crate::metrics::UsageLabels {
                route: "r",
                cluster: "c",
                model: "m",
                consumer: "none",
            };
            let series = ending.metrics.usage.series(labels);
            ending
                .metrics
                .usage
                .add(&series, crate::metrics::UsageMetric::DurationCount, 1);
        });
        let to = Settlement {
            format: &format,
            log: None,
            metrics: &metrics,
            listener: &listener,
        };
        settle(&record, to);
        settle(&record, to);
        let state = record.filter_state.borrow();
        assert_eq!(
            state.as_slice(),
            [("wasm.ai_log".into(), r#"{\"a\":1,\"b\":\"x\"}"#.to_owned())]
        );
        let mut text = String::new();
        metrics.render(&mut text);
        assert!(
            text.contains(
                "llm_duration_count{ai_route=\"r\",ai_cluster=\"c\",ai_model=\"m\",ai_consumer=\"none\"} 1\n"
            ),
            "{text}"
        );
    }

    fn record() -> Record {
        let connection = Connection {
            id: 1,
            peer: "127.0.0.1:1".parse().unwrap(),
            local: "127.0.0.1:2".parse().unwrap(),
            server_name: None,
            tls: false,
        };
        let original = Original {
            method: Method::GET,
            authority: Arc::from("a"),
            path: "/".parse().unwrap(),
            version: Version::HTTP_11,
        };
        let id = HeaderValue::from_static("1");
        Record::new(Rc::new(connection), original, id, clock::now())
    }
}
