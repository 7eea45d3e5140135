//! Files of the version before: they are read as they are, and go on being read when new rows come beside theirs.

use rusqlite::Connection;

use super::*;

/// Six requests, one an hour from 2026-11-28T00:00Z on: three of one conversation, three of the session `s1`; of `ann`
/// but for the last.
const FILE: &str = include_str!("../../testdata/version_1.sql");
const BEGINNING: i64 = 1_795_824_000_000;
const CONVERSATION: &str = "conv-1a21fe65f569c1f62c8";

fn old_file() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("usage.db")).unwrap();
    connection.execute_batch(FILE).unwrap();
    directory
}

fn turns(data: &Path, id: &str) -> Vec<(String, Option<String>, Vec<String>)> {
    let turns = Reader::open(data).unwrap().conversation(id).unwrap();
    let told = |turn: Turn| (turn.request_id, turn.consumer, turn.tools);
    turns.into_iter().map(told).collect()
}

#[test]
fn an_old_file_is_read_as_it_is_and_with_new_rows_beside_its_own() {
    let directory = old_file();
    let data = directory.path();
    let ann = || Some("ann".to_owned());
    let old_turns = [
        ("old-1".to_owned(), ann(), vec![]),
        ("old-2".to_owned(), ann(), vec!["get_weather".to_owned()]),
        ("old-3".to_owned(), ann(), vec![]),
    ];
    let (rows, sums) = (ask(data, &[], true), ask(data, &["consumer", "hour"], false));
    assert_eq!(
        (rows.len(), sums.len(), turns(data, CONVERSATION)),
        (6, 6, old_turns.to_vec())
    );
    assert_eq!(version_of(data), 1, "a reader leaves it alone");

    let rig = rig(data);
    assert_eq!(rig.ledger.books(data).spend.day("nobody").requests, 0);
    let mut joining = entry(7);
    joining.time += Duration::from_hours(6);
    joining.place = Some(place(CONVERSATION, false));
    rig.ledger.enter(joining);
    rig.ledger.close(PATIENCE);
    assert_eq!(version_of(data), 2);
    let (new_rows, new_sums) = (ask(data, &[], true), ask(data, &["consumer", "hour"], false));
    assert_eq!(new_rows[..6], rows);
    assert_eq!((new_rows.len(), new_rows[6][1].clone()), (7, text("id-7")));
    assert_eq!(new_sums.len(), 7);
    assert!(sums.iter().all(|line| new_sums.contains(line)), "{new_sums:?}");
    let turns = turns(data, CONVERSATION);
    assert_eq!(turns[..3], old_turns);
    assert_eq!((turns.len(), turns[3].0.as_str()), (4, "id-7"));
    // Times leave out what they did.
    let at = |hours: u64| {
        Some(
            SystemTime::UNIX_EPOCH
                + Duration::from_millis(BEGINNING.unsigned_abs())
                + Duration::from_hours(hours),
        )
    };
    let question = Question {
        since: at(2),
        until: at(5),
        rows: true,
        ..Question::default()
    };
    assert_eq!(asked(data, &question), rows[2..5]);
}

#[test]
fn old_rows_go_when_their_time_is_over_and_their_table_with_the_last() {
    let directory = old_file();
    let data = directory.path();
    let all = ask(data, &["consumer", "day"], false);
    let mut store = store::Store::open(data).unwrap();
    let hour = Duration::from_hours(1);
    let retention = settings::Retention {
        rows: hour * 2,
        hours: hour * 48,
        days: hour * 240,
    };
    let mut rows = Vec::new();
    for now in [6, 7, 20] {
        while store.prune(&retention, BEGINNING + now * store::HOUR).unwrap() {}
        rows.push(ask(data, &[], true).len());
        assert_eq!(
            ask(data, &["consumer", "day"], false),
            all,
            "sums are what they were"
        );
    }
    assert_eq!(rows, [2, 1, 0]);
    assert!(!schema::has_table(&store.connection, schema::OLD_ROWS).unwrap());
    store.add(&[entry(8)]).unwrap();
    drop(store);
    assert_eq!(turns(data, CONVERSATION), []);
}

fn version_of(data: &Path) -> i64 {
    let connection = Connection::open(data.join("usage.db")).unwrap();
    connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap()
}
