//! What a row costs the ledger's thread, in a batch as large as a busy gateway's.

use super::*;

const ROWS: u64 = 20_000;
const BATCH: u64 = 200;
/// Microseconds of CPU, the kernel's included; measured beside other load it is a fifth.
const LIMIT: f64 = 5.0;

/// A request as most are: an id of ours, a conversation of its own.
fn usual(number: u64) -> Entry {
    let random = number.wrapping_mul(2_654_435_761) & 0xffff_ffff;
    let id = format!(
        "{random:08x}-{:04x}-4{:03x}-8{:03x}-{number:012x}",
        number & 0xffff,
        number & 0xfff,
        number & 0xfff
    );
    let conversation = format!("conv-{:011x}{random:08x}", 1_795_824_000_000 + number);
    Entry {
        request_id: HeaderValue::from_str(&id).unwrap(),
        place: Some(place(&conversation, true)),
        ..entry(number)
    }
}

/// CPU of this thread so far, in nanoseconds.
fn spent() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    told.split(' ').next().unwrap().parse().unwrap()
}

#[inline(never)]
fn add(store: &mut store::Store, entries: Vec<Entry>) {
    store.add(&entries).unwrap();
}

/// One of five turns of a conversation, with a part of its prompt from the vendor's cache.
fn turn(number: u64) -> Entry {
    let first = usual(number - number % 5);
    let conversation = first.place.unwrap().conversation;
    let parent = usual(number - 1).request_id.to_str().unwrap().into();
    let mut entry = usual(number);
    entry.tokens.cached = 5;
    entry.place = Some(Place {
        parent: Some(parent),
        ..place(&conversation, false)
    });
    entry
}

fn cost(sort: &str, entry: fn(u64) -> Entry) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store::Store::open(directory.path()).unwrap();
    let batches =
        (0..ROWS / BATCH).map(|batch| (batch * BATCH + 1..=(batch + 1) * BATCH).map(entry).collect());
    let batches: Vec<Vec<Entry>> = batches.collect();
    let before = spent();
    for batch in batches {
        add(&mut store, batch);
    }
    let microseconds = (spent() - before) as f64 / 1_000.0 / ROWS as f64;
    drop(store);
    let size = std::fs::metadata(directory.path().join("usage.db"))
        .unwrap()
        .len();
    println!(
        "{sort}: {microseconds:.2} µs of CPU, {} bytes of file",
        size / ROWS
    );
    assert!(microseconds < LIMIT, "{microseconds:.2} µs");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "measured where it is optimised")]
fn what_a_row_costs() {
    cost("a row", usual);
    cost("a row of a conversation's later turn", turn);
}
