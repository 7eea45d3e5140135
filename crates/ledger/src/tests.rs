//! The ledger as its users see it: entries in, sums and rows out, whatever the disk does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tollgate_base::{Amount, Termination, clock};
use tollgate_observe::Entry;
use tollgate_observe::conversation::Place;
use tollgate_observe::entry::Journal;
use tollgate_observe::metrics::Metrics;
use tollgate_observe::usage::{Source, Tokens};
use tollgate_snapshot::settings;

use super::*;

mod old_files;
mod rows;
mod speed;

const PATIENCE: Duration = Duration::from_secs(30);

fn entry(number: u64) -> Entry {
    Entry {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_824_000_000 + number),
        request_id: HeaderValue::from_str(&format!("id-{number}")).unwrap(),
        consumer: (!number.is_multiple_of(3)).then(|| Arc::from(format!("consumer-{}", number % 3))),
        route: Some(Arc::from("api")),
        model_requested: Some("gpt-4o".into()),
        model: Some("gpt-4o-2024".into()),
        vendor: Some("openai"),
        tokens: Tokens {
            input: 10,
            output: 3,
            total: 13,
            ..Tokens::default()
        },
        source: Some(Source::Provider),
        duration: Duration::from_millis(100),
        first_token: Some(Duration::from_millis(40)),
        cost: Some(Amount(1_500)),
        currency: Some(Arc::from("USD")),
        status: 200,
        termination: Some(Termination::Completed),
        attempts: 1,
        arm: None,
        place: None,
    }
}

fn place(conversation: &str, opens: bool) -> Place {
    Place {
        conversation: Arc::from(conversation),
        opens,
        parent: None,
        tools: None,
    }
}

struct Rig {
    metrics: Arc<Metrics>,
    ledger: Ledger,
}

fn rig(data: &Path) -> Rig {
    let metrics = Metrics::new();
    let ledger = Ledger::start(data, &metrics).unwrap();
    Rig { metrics, ledger }
}

impl Rig {
    fn metric(&self, series: &str) -> u64 {
        let mut text = String::new();
        self.metrics.render(&mut text);
        let value = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        text.lines()
            .find_map(value)
            .unwrap_or_else(|| panic!("{series} in {text}"))
    }

    fn enter(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.ledger.enter(entry(number));
        }
    }
}

fn ask(data: &Path, by: &[&str], rows: bool) -> Vec<Vec<Value>> {
    let question = Question {
        by: by.iter().map(|name| Column::to_sum_by(name).unwrap()).collect(),
        rows,
        ..Question::default()
    };
    asked(data, &question)
}

fn asked(data: &Path, question: &Question) -> Vec<Vec<Value>> {
    let mut answer = Vec::new();
    let take = |line| {
        answer.push(line);
        true
    };
    Reader::open(data).unwrap().ask(question, |_| {}, take).unwrap();
    answer
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn requests(data: &Path) -> i64 {
    match ask(data, &[], false)[0][0] {
        Value::Integer(number) => number,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_entered_is_read_back_in_full() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("not/there/yet");
    let rig = rig(&data);
    assert!(Reader::open(&data).unwrap_err().is_absence());
    rig.enter(1..2);
    assert!(rig.ledger.flush(PATIENCE));
    let mut names = Vec::new();
    let question = Question {
        rows: true,
        ..Question::default()
    };
    let reader = Reader::open(&data).unwrap();
    let mut lines = Vec::new();
    reader
        .ask(
            &question,
            |head| names = head.to_vec(),
            |line| {
                lines.push(line);
                true
            },
        )
        .unwrap();
    assert_eq!(
        names.join(" "),
        "time request_id consumer route model_requested model vendor requests input output cached reasoning source \
         duration_ms first_token_ms cost status termination attempts arm conversation total cache_written per_token_ms \
         currency"
    );
    let number = Value::Integer;
    assert_eq!(
        lines,
        [vec![
            text("2026-11-28T00:00:00.001Z"),
            text("id-1"),
            text("consumer-1"),
            text("api"),
            text("gpt-4o"),
            text("gpt-4o-2024"),
            text("openai"),
            number(1),
            number(10),
            number(3),
            number(0),
            number(0),
            text("provider"),
            number(100),
            number(40),
            Value::Decimal(Amount(1_500)),
            number(200),
            text("completed"),
            number(1),
            Value::Null,
            Value::Null,
            number(13),
            number(0),
            Value::Decimal(Amount(30_000_000_000)),
            text("USD"),
        ]]
    );
    assert_eq!(rig.metric("tollgate_ledger_rows_total{}"), 1);
}

#[test]
fn sums_are_those_of_the_rows_while_rows_come() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let rig = rig(data);
    let mut seen = 0;
    for round in 0..20 {
        rig.enter(round * 100..(round + 1) * 100);
        if round == 0 {
            assert!(rig.ledger.flush(PATIENCE));
        }
        // A reader beside the writer sees whole transactions only.
        let count = requests(data);
        assert!(count >= seen);
        seen = count;
    }
    rig.ledger.close(PATIENCE);
    assert_eq!(ask(data, &[], true).len(), 2_000);
    let by = ask(data, &["consumer", "day"], false);
    let head = |line: &[Value]| line[..4].to_vec();
    let number = Value::Integer;
    let lines: Vec<_> = by.iter().map(|line| head(line)).collect();
    let day = || text("2026-11-28");
    assert_eq!(
        lines,
        [
            vec![Value::Null, day(), number(667), number(6_670)],
            vec![text("consumer-1"), day(), number(667), number(6_670)],
            vec![text("consumer-2"), day(), number(666), number(6_660)],
        ]
    );
    let all = &ask(data, &[], false)[0];
    assert_eq!(all[7], Value::Decimal(Amount(3_000_000)));
}

#[test]
fn an_empty_stretch_of_time_sums_to_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let rig = rig(directory.path());
    rig.enter(0..1);
    rig.ledger.close(PATIENCE);
    let question = Question {
        since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)),
        ..Question::default()
    };
    let line = &asked(directory.path(), &question)[0];
    assert_eq!(
        line[..3],
        [Value::Integer(0), Value::Integer(0), Value::Integer(0)]
    );
}

#[test]
fn rows_and_hours_that_are_pruned_live_on_in_coarser_sums() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let rig = rig(data);
    let hour = Duration::from_hours(1);
    // One request an hour for ten days.
    for number in 0..240 {
        let mut entry = entry(number);
        entry.time = SystemTime::UNIX_EPOCH
            + Duration::from_secs(1_795_824_000)
            + hour * u32::try_from(number).unwrap();
        rig.ledger.enter(entry);
    }
    rig.ledger.close(PATIENCE);
    let retention = settings::Retention {
        rows: hour * 30,
        hours: hour * 24 * 3,
        days: hour * 24 * 8,
    };
    let mut store = store::Store::open(data).unwrap();
    let now = 1_795_824_000_000 + 240 * 3_600_000;
    while store.prune(&retention, now).unwrap() {}
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        store
            .connection
            .query_row(&sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let days = store
        .connection
        .query_row("SELECT count(DISTINCT bucket) FROM days", [], |row| row.get(0));
    assert_eq!((count("requests"), count("hours"), days), (30, 72, Ok(8_i64)));
    // Eight days are left, each request once.
    assert_eq!(requests(data), 8 * 24);
    let by_day = ask(data, &["day"], false);
    assert!(
        by_day.iter().all(|line| line[1] == Value::Integer(24)),
        "{by_day:?}"
    );
    assert_eq!(by_day.len(), 8);
    assert_eq!(ask(data, &[], true).len(), 30);
}

#[test]
fn a_broken_file_is_moved_aside_and_a_new_one_begins() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let first = rig(data);
    first.enter(0..500);
    first.ledger.close(PATIENCE);
    let file = data.join("usage.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4_096].fill(b'x');
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(Reader::open(data), Err(ReadError::Unreadable(..))));
    let second = rig(data);
    second.enter(0..3);
    second.ledger.close(PATIENCE);
    assert_eq!(requests(data), 3);
    let aside = std::fs::read(data.join("usage.db.broken-1")).unwrap();
    assert_eq!((aside.len(), aside.first()), (bytes.len(), Some(&b'x')));
    assert!(aside == bytes, "it is kept as it was");
    assert_eq!(second.metric("tollgate_ledger_rows_total{}"), 3);
}

#[test]
fn a_directory_that_cannot_be_written_drops_rows_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("file");
    std::fs::write(&data, "in the way").unwrap();
    let rig = rig(&data);
    rig.enter(0..10);
    assert!(rig.ledger.flush(PATIENCE));
    assert_eq!(rig.metric("tollgate_ledger_rows_total{}"), 0);
    // What was in the way is gone: the rows have waited.
    std::fs::remove_file(&data).unwrap();
    assert!(rig.ledger.flush(PATIENCE));
    assert_eq!(rig.metric("tollgate_ledger_rows_total{}"), 10);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::write(&data, "again").unwrap();
    rig.enter(10..20);
    rig.ledger.close(PATIENCE);
    rig.enter(20..21);
    let written = rig.metric("tollgate_ledger_rows_total{}");
    let dropped: u64 = ["io", "shutdown", "corrupt", "read_only", "disk_full"]
        .iter()
        .map(|reason| rig.metric(&format!("tollgate_ledger_dropped_total{{reason=\"{reason}\"}}")))
        .sum();
    assert_eq!(written + dropped, 21);
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let store = store::Store::open(data).unwrap();
    store.connection.execute_batch("PRAGMA user_version = 9").unwrap();
    drop(store);
    let rig = rig(data);
    rig.enter(0..1);
    rig.ledger.close(PATIENCE);
    assert_eq!(rig.metric("tollgate_ledger_dropped_total{reason=\"schema\"}"), 1);
    let error = Reader::open(data).unwrap_err().to_string();
    assert!(
        error.ends_with("it was written by a newer version of tollgate (schema 9)"),
        "{error}"
    );
}

#[test]
fn the_queue_is_bounded() {
    let queue = queue::Queue::new(&Metrics::new());
    for number in 0..40_000 {
        queue.push(entry(number));
    }
    assert_eq!(queue.next(Duration::ZERO).entries.len(), queue::MOST);
}

#[test]
fn budgets_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let first = rig(data);
    let books = first.ledger.books(data);
    for number in 1..3 {
        let mut entry = entry(number);
        entry.time = clock::wall();
        books.enter(entry);
    }
    let before = books.spend.day("consumer-1");
    assert_eq!(
        (before.requests, before.tokens, before.cost),
        (1, 13, Amount(1_500))
    );
    first.ledger.close(PATIENCE);
    let second = rig(data).ledger.books(data);
    assert_eq!(second.spend.day("consumer-1"), before);
    assert_eq!(second.spend.month("consumer-2").tokens, 13);
    assert_eq!(second.spend.month("nobody").tokens, 0);
}

#[test]
fn a_vendor_that_claims_absurd_counts_breaks_no_sum() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let rig = rig(data);
    for number in 0..20 {
        let mut entry = entry(number);
        entry.tokens.input = u64::MAX;
        entry.tokens.total = u64::MAX;
        entry.cost = Some(Amount(u64::MAX));
        rig.ledger.enter(entry);
    }
    rig.ledger.close(PATIENCE);
    assert_eq!(requests(data), 20);
}
