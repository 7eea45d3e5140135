//! `settle`: the end of an exchange's story. Called by `account`, exactly once, however the exchange ended.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smallvec::SmallVec;
use tollgate_base::clock;
use tollgate_base::clock::Instant;

use crate::Record;
use crate::access_log::{Format, LineWriter};
use crate::cost::Prices;
use crate::entry::{Books, Entry};
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
    /// The price table of the request's configuration.
    pub prices: &'a Prices,
    /// Where the request is entered.
    pub books: &'a Books,
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
pub(crate) struct Hooks {
    first: RefCell<SmallVec<[Hook; 1]>>,
    /// See [`Record::on_settle_last`].
    last: RefCell<SmallVec<[Hook; 1]>>,
}

impl Hooks {
    pub(crate) fn add(&self, hook: Hook) {
        self.first.borrow_mut().push(hook);
    }

    pub(crate) fn add_last(&self, hook: Hook) {
        self.last.borrow_mut().push(hook);
    }

    fn run(&self, record: &Record, ending: &Ending<'_>) {
        let last = self.last.take();
        for hook in self.first.take().into_iter().chain(last.into_iter().rev()) {
            // Settlement runs while things are dropped: a panic that left it could end the process.
            if catch_unwind(AssertUnwindSafe(|| hook(record, ending))).is_err() {
                tracing::error!(request_id = ?record.request_id, "a settlement hook panicked");
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first.borrow().len(), self.last.borrow().len());
        write!(formatter, "Hooks({first}, {last})")
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
    let usage = record.usage.borrow();
    if let Some(source) = usage.source {
        to.metrics.usage.add_by_source(source, usage.tokens);
    }
    drop(usage);
    let entry = Entry::of(record, ended, to.prices, &to.books.conversations);
    to.books.enter(entry);
    if let Some(log) = to.log {
        log.line(|out| to.format.write(record, ended, out));
    }
    record.trace.finish(record, ended);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use http::{HeaderValue, Method, Version};
    use tollgate_base::Termination;

    use crate::access_log::{Sink, Target};
    use crate::cost::{Amount, Rates};
    use crate::entry::Journal;
    use crate::record::{Connection, Original};
    use crate::spend::Spend;

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
            prices: &Prices::default(),
            books: &Books::default(),
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

    /// Without a log line, and once more, which must do nothing.
    fn settle_twice(record: &Record, metrics: &Metrics) {
        let to = Settlement {
            format: &Format::parse("x").unwrap(),
            log: None,
            metrics,
            listener: &metrics.listener("a"),
            prices: &Prices::default(),
            books: &Books::default(),
        };
        settle(record, to);
        settle(record, to);
    }

    #[test]
    fn hooks_run_once_in_order_and_a_panic_stops_at_its_own() {
        let metrics = Metrics::new();
        let record = record();
        record.on_settle(|record, _| record.set_ai_log("a", 1));
        record.on_settle(|_, _| panic!("on purpose"));
        record.on_settle(|record, ending| {
            assert!(record.ai_log.borrow().contains("a"));
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
        settle_twice(&record, &metrics);
        let written = record.ai_log_text();
        assert_eq!(written.as_deref(), Some(r#"{\"a\":1,\"b\":\"x\"}"#));
        let mut text = String::new();
        metrics.render(&mut text);
        assert!(
            text.contains(
                "llm_duration_count{ai_route=\"r\",ai_cluster=\"c\",ai_model=\"m\",ai_consumer=\"none\"} 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn who_charges_comes_last_and_the_innermost_of_them_first() {
        let record = record();
        let order = Rc::new(RefCell::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            move |_: &Record, _: &Ending<'_>| order.borrow_mut().push(name)
        };
        record.on_settle_last(note("outer"));
        record.on_settle(note("a"));
        record.on_settle_last(note("inner"));
        record.on_settle(note("b"));
        settle_twice(&record, &Metrics::new());
        assert_eq!(*order.borrow(), ["a", "b", "inner", "outer"]);
    }

    #[test]
    fn an_entry_is_priced_and_spent_once() {
        let metrics = Metrics::new();
        let (listener, format) = (metrics.listener("a"), Format::parse("x").unwrap());
        let (books, entries) = books();
        let mut prices = Prices::new("USD");
        let rates = Rates {
            input: Amount::parse("2.5").unwrap(),
            output: Amount::parse("10").unwrap(),
            ..Rates::default()
        };
        prices.insert("gpt-4o", rates);
        let record = record();
        record.consumer.replace(Some(Arc::from("ann")));
        record.on_settle(|record, _| {
            let mut usage = record.usage.borrow_mut();
            usage.begin(false);
            // The table knows the name that was asked for, not the dated one that answered.
            usage.model_requested = Some("gpt-4o".into());
            usage.model = Some("gpt-4o-2024-08-06".into());
            usage.supply(100, 50, crate::usage::Source::Estimated);
        });
        let to = Settlement {
            format: &format,
            log: None,
            metrics: &metrics,
            listener: &listener,
            prices: &prices,
            books: &books,
        };
        settle(&record, to);
        settle(&record, to);
        settle(&self::record(), to);
        let entries = entries.0.lock().unwrap();
        let costs: Vec<_> = entries.iter().map(|entry| entry.cost).collect();
        assert_eq!(costs, [Amount::parse("0.00075"), None]);
        let spent = crate::Spent {
            requests: 1,
            tokens: 150,
            cost: Amount::parse("0.00075").unwrap(),
        };
        assert_eq!((books.spend.day("ann"), books.spend.month("ann")), (spent, spent));
    }

    #[test]
    fn a_conversation_is_remembered_where_somebody_asks_for_it() {
        let metrics = Metrics::new();
        let (listener, format) = (metrics.listener("a"), Format::parse("x").unwrap());
        let (books, entries) = books();
        for unplaced in [false, true] {
            let record = record();
            let body = r#"{"messages":[{"role":"user","content":"a"}]}"#;
            let document = tollgate_body::JsonDocument::parse(body.into()).unwrap();
            assert!(record.turn.borrow_mut().body(&document).is_some());
            record.unplaced.set(unplaced);
            let to = Settlement {
                format: &format,
                log: None,
                metrics: &metrics,
                listener: &listener,
                prices: &Prices::default(),
                books: &books,
            };
            settle(&record, to);
        }
        let entries = entries.0.lock().unwrap();
        let placed: Vec<_> = entries.iter().map(|entry| entry.place.is_some()).collect();
        assert_eq!(placed, [true, false]);
    }

    #[derive(Default)]
    struct Taken(Mutex<Vec<Entry>>);

    impl Journal for Taken {
        fn enter(&self, entry: Entry) {
            self.0.lock().unwrap().push(entry);
        }
    }

    fn books() -> (Books, Arc<Taken>) {
        let taken = Arc::new(Taken::default());
        (Books::new(Spend::default(), taken.clone()), taken)
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
