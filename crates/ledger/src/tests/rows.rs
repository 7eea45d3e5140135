//! Rows and what is kept beside them: nothing changes on the way, nothing is left behind, nothing is lost with a process.

use super::*;

fn rows(store: &store::Store, sql: &str) -> i64 {
    store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Entries that differ in all that is stored differently.
fn motley() -> Vec<Entry> {
    let ids = [
        "4bd1f0c2-7a52-4e0c-9f7d-0123456789ab",
        "4BD1F0C2-7A52-4E0C-9F7D-0123456789AB",
        "4bd1f0c27a524e0c9f7d0123456789ab",
        "4bd1f0c2-7a52-4e0c-9f7d-0123456789a-",
        "{4bd1f0c2-7a52-4e0c-9f7d-0123456789}",
        "client's own",
    ];
    let entries = (0..60_u64).map(|number| {
        let every = |nth: u64| number.is_multiple_of(nth);
        let id = ids[usize::try_from(number).unwrap() % ids.len()];
        Entry {
            request_id: HeaderValue::from_static(id),
            // A name that is empty is another than none.
            arm: every(4).then(|| Arc::from(if every(8) { "" } else { "b" })),
            first_token: every(2).then(|| Duration::from_millis(number)),
            cost: (!every(5)).then_some(Amount(number)),
            status: if every(7) { 502 } else { 200 },
            termination: (!every(9)).then_some(Termination::Completed),
            tokens: Tokens {
                input: number,
                output: 1,
                total: number + 1 + u64::from(every(10)),
                cached: if every(11) { 4 } else { 0 },
                reasoning: if every(13) { 5 } else { 0 },
                cache_written: if every(12) { 6 } else { 0 },
            },
            place: match number {
                0..35 => None,
                _ => Some(place(&format!("c{}", number % 3), !every(3))),
            },
            ..entry(number)
        }
    });
    entries.collect()
}

#[test]
fn rows_of_every_sort_come_back_as_they_went_in() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let entries = motley();
    store::Store::open(data).unwrap().add(&entries).unwrap();
    let rows = ask(data, &[], true);
    assert_eq!(rows.len(), entries.len());
    for (row, entry) in rows.iter().zip(&entries) {
        let number = |number: u64| Value::Integer(i64::try_from(number).unwrap());
        let optional = |name: Option<&str>| name.map_or(Value::Null, text);
        let tokens = &entry.tokens;
        let wanted = [
            (1, text(entry.request_id.to_str().unwrap())),
            (2, optional(entry.consumer.as_deref())),
            (8, number(tokens.input)),
            (10, number(tokens.cached)),
            (11, number(tokens.reasoning)),
            (
                14,
                entry
                    .first_token
                    .map_or(Value::Null, |first| number(first.as_millis() as u64)),
            ),
            (15, entry.cost.map_or(Value::Null, Value::Decimal)),
            (16, number(entry.status.into())),
            (17, optional(entry.termination.map(Termination::name))),
            (19, optional(entry.arm.as_deref())),
            (
                20,
                optional(entry.place.as_ref().map(|place| &*place.conversation)),
            ),
            (21, number(tokens.total)),
            (22, number(tokens.cache_written)),
        ];
        for (column, value) in wanted {
            assert_eq!(row[column], value, "column {column} of {entry:?}");
        }
    }
}

#[test]
fn numbers_go_on_whatever_is_left_in_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store::Store::open(directory.path()).unwrap();
    let count = |store: &store::Store, first: i64, last: i64| {
        let sql = format!("SELECT count(*) FROM entries WHERE id BETWEEN {first} AND {last}");
        rows(store, &sql)
    };
    let many: Vec<_> = (1..=50).map(entry).collect();
    store.add(&many).unwrap();
    store.connection.execute("DELETE FROM entries", ()).unwrap();
    store.add(&many).unwrap();
    assert_eq!(count(&store, 51, 100), 50);
    store
        .connection
        .execute("DELETE FROM entries WHERE id > 60", ())
        .unwrap();
    store.add(&many).unwrap();
    assert_eq!((count(&store, 101, 150), count(&store, 51, 100)), (50, 10));
}

#[test]
fn times_find_rows_that_came_late() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = store::Store::open(data).unwrap();
    let minute = Duration::from_mins(1);
    // A row a minute for ten hours; each seventh was a long request that arrived three hours before.
    let time = |number: u32| {
        let late = if number.is_multiple_of(7) { 180 } else { 0 };
        entry(0).time + minute * (number + 180 - late)
    };
    for batch in 0..60 {
        let numbers = batch * 10..(batch + 1) * 10;
        let entries: Vec<_> = numbers
            .map(|number| Entry {
                time: time(number),
                ..entry(number.into())
            })
            .collect();
        store.add(&entries).unwrap();
    }
    for (since, until) in [(0, 60), (90, 91), (200, 400), (599, 600), (0, 10_000), (800, 900)] {
        let (since, until) = (entry(0).time + minute * since, entry(0).time + minute * until);
        let wanted = (0..600)
            .map(time)
            .filter(|time| (since..until).contains(time))
            .count();
        let question = Question {
            since: Some(since),
            until: Some(until),
            rows: true,
            ..Question::default()
        };
        assert_eq!(asked(data, &question).len(), wanted);
    }
}

#[test]
fn names_go_with_the_last_row_that_has_them() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = store::Store::open(data).unwrap();
    let hour = Duration::from_hours(1);
    // More names than a generation holds, in three days and several processes.
    for batch in 0..72_u32 {
        if batch.is_multiple_of(25) {
            drop(store);
            store = store::Store::open(data).unwrap();
        }
        let entries = (0..200_u64).map(|number| Entry {
            time: entry(number).time + hour * batch,
            model_requested: Some(format!("model-{batch}-{number}").into()),
            ..entry(number)
        });
        store.add(&entries.collect::<Vec<_>>()).unwrap();
    }
    let all = (
        rows(&store, "SELECT count(*) FROM requests"),
        rows(&store, "SELECT count(*) FROM names"),
    );
    assert_eq!(all, (14_400, 14_400));
    let retention = settings::Retention {
        rows: hour * 30,
        hours: hour * 24 * 30,
        days: hour * 24 * 30,
    };
    let beginning = store::milliseconds_of(entry(0).time);
    let mut kept = Vec::new();
    for now in [24, 72, 90, 120] {
        while store.prune(&retention, beginning + now * store::HOUR).unwrap() {}
        assert_eq!(
            rows(
                &store,
                "SELECT count(*) FROM requests WHERE model_requested IS NULL"
            ),
            0
        );
        assert_eq!(requests(data), 14_400);
        kept.push((
            rows(&store, "SELECT count(*) FROM requests"),
            rows(&store, "SELECT count(*) FROM names"),
        ));
    }
    assert_eq!(kept[0], (14_400, 14_400));
    assert_eq!(kept[1].0, 6_000);
    assert!((6_000..=10_200).contains(&kept[1].1), "{kept:?}");
    assert_eq!((kept[2].0, kept[3].0), (2_400, 0));
    // What this process may still give to rows stays.
    assert!(kept[3].1 <= 4_800, "{kept:?}");
    store.add(&[entry(1)]).unwrap();
    assert_eq!(
        rows(&store, "SELECT count(*) FROM requests WHERE route = 'api'"),
        1
    );
}

#[test]
fn sums_that_a_process_took_with_it_are_made_of_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = store::Store::open(data).unwrap();
    let now = |number| Entry {
        time: clock::wall(),
        ..entry(number)
    };
    store.add(&(0..30).map(now).collect::<Vec<_>>()).unwrap();
    store.settle().unwrap();
    store.add(&(30..90).map(now).collect::<Vec<_>>()).unwrap();
    assert_eq!(rows(&store, "SELECT sum(requests) FROM hours"), 30);
    // As SIGKILL leaves it.
    let left = tempfile::tempdir().unwrap();
    for file in ["usage.db", "usage.db-wal"] {
        std::fs::copy(data.join(file), left.path().join(file)).unwrap();
    }
    let spend = tollgate_observe::Spend::default();
    Reader::open(left.path()).unwrap().restore(&spend).unwrap();
    let month = spend.month("consumer-1");
    assert_eq!(
        (month.requests, month.tokens, month.cost),
        (30, 390, Amount(45_000))
    );
    let mut store = store::Store::open(left.path()).unwrap();
    for table in ["hours", "days"] {
        let sums = "requests = 30 AND input = 300 AND total = 390 AND cost = 45000 AND duration_ms = 3000 AND \
                    first_token_ms = 1200 AND first_tokens = 30";
        let sql = format!("SELECT count(*) FROM {table} WHERE {sums}");
        assert_eq!(rows(&store, &sql), 3, "{table}: none, consumer-1, consumer-2");
    }
    store.add(&[now(90)]).unwrap();
    drop(store);
    let store = store::Store::open(left.path()).unwrap();
    assert_eq!(
        rows(&store, "SELECT sum(requests) FROM days"),
        91,
        "each once, however often it is opened"
    );
}

#[test]
fn a_conversation_is_found_by_the_request_that_opened_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut store = store::Store::open(data).unwrap();
    // A request a minute for a day, each a conversation; every tenth is gone on with at the end.
    let minute = 60_000;
    let id = |number: i64| format!("conv-{:011x}00000000", 1_795_824_000_000 + number * minute);
    let opening = |number: i64| {
        let time = Duration::from_millis((number * minute).unsigned_abs());
        Entry {
            time: entry(0).time + time,
            consumer: None,
            place: Some(place(&id(number), true)),
            ..entry(number.unsigned_abs())
        }
    };
    for hour in 0..24 {
        store
            .add(&(hour * 60..hour * 60 + 60).map(opening).collect::<Vec<_>>())
            .unwrap();
    }
    let joining = (0..144).map(|number| Entry {
        place: Some(place(&id(number * 10), false)),
        ..opening(1_440 + number)
    });
    store.add(&joining.collect::<Vec<_>>()).unwrap();
    let reader = Reader::open(data).unwrap();
    for number in [0, 1, 59, 60, 720, 1_430, 1_439] {
        let turns = reader.conversation(&id(number)).unwrap();
        assert_eq!(turns[0].request_id, format!("id-{number}"));
        assert_eq!(turns.len(), if number % 10 == 0 { 2 } else { 1 });
    }
    assert_eq!(reader.conversation(&id(7_000)).unwrap(), []);
}

#[test]
fn consumers_that_name_the_same_session_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let turn = |number: u64, consumer: Option<&str>, parent: Option<&str>| Entry {
        consumer: consumer.map(Arc::from),
        place: Some(Place {
            parent: parent.map(Arc::from),
            ..place("s1", false)
        }),
        ..entry(number)
    };
    let entries = [
        turn(1, Some("ann"), None),
        turn(2, Some("bob"), None),
        // Request ids are the clients' too.
        turn(3, Some("ann"), Some("id-1")),
        turn(4, None, Some("id-1")),
        turn(5, Some("bob"), Some("id-2")),
    ];
    store::Store::open(data).unwrap().add(&entries).unwrap();
    let turns = Reader::open(data).unwrap().conversation("s1").unwrap();
    let lines: Vec<_> = turns
        .iter()
        .map(|turn| (&*turn.request_id, turn.consumer.as_deref(), turn.depth))
        .collect();
    assert_eq!(
        lines,
        [
            ("id-1", Some("ann"), 0),
            ("id-3", Some("ann"), 0),
            ("id-2", Some("bob"), 0),
            ("id-5", Some("bob"), 0),
            ("id-4", None, 0),
        ]
    );
}
