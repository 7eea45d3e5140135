//! What one module may use: every bound by its name, with its default.

use std::str::FromStr;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// Bounds of modules and their instances. Times are CPU time of the worker, so a busy machine hurts no plugin. Names and
/// what may be set are in [`ROWS`], words and defaults in docs/wasm.md.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `wasm_module_limit`: bytes of a module. Default 256 MiB.
    pub module: usize,
    /// `wasm_memory_limit`: linear memory of an instance, in bytes. Default 256 MiB.
    pub memory: usize,
    /// `wasm_rebuild_memory`: linear memory from which an instance is replaced by a fresh one, in bytes. Default 200 MiB.
    pub rebuild_memory: usize,
    /// `wasm_table_limit`: entries of a table. Default 100 000.
    pub table: usize,
    /// `wasm_instance_limit`: instances of the whole process. Default 1024.
    pub instances: usize,
    /// `wasm_stream_time`: CPU time of one callback of a request. Default 100 ms.
    pub stream_time: Duration,
    /// `wasm_event_time`: CPU time of a tick or the answer of a call. Default 200 ms.
    pub event_time: Duration,
    /// `wasm_start_time`: CPU time of start-up and configuration. Default 10 s.
    pub start_time: Duration,
    /// `wasm_done_time`: time, of the clock, that a plugin which is not done may go on for. Default 30 s.
    pub done_time: Duration,
    /// `wasm_calls_limit`: calls of one instance that may be under way at once. Default 10 000.
    pub calls: usize,
    /// `wasm_call_bytes_limit`: bytes of the requests and answers of one instance's calls under way. Default 64 MiB.
    pub call_bytes: usize,
    /// `wasm_cache_limit`: bytes of compiled modules on disk. Default 1 GiB.
    pub cache: usize,
    /// `wasm_shared_data_limit`: bytes of keys, values and queues that all plugins share. Default 64 MiB.
    pub shared_data: usize,
    /// `wasm_property_limit`: values and span tags that modules may leave on one request. Default 1024.
    pub properties: usize,
    /// `wasm_property_bytes_limit`: bytes of these, names included. Default 4 MiB.
    pub property_bytes: usize,
    /// `wasm_metric_name_limit`: bytes of a metric's name. Default 4 KiB.
    pub metric_name: usize,
    /// `wasm_header_limit` and `wasm_header_bytes_limit`.
    pub head: Room,
    /// `wasm_body_limit`: a module may make a body this long even where less may be held: prompts grow. Default 1 MiB.
    pub body: usize,
    /// `wasm_write_limit`: bytes of one call of `fd_write` or `log`; nothing interrupts a call. Default 64 KiB.
    pub write: usize,
    /// `wasm_write_pieces`: pieces of one call of `fd_write`. Default 1024.
    pub write_pieces: usize,
    /// `wasm_write_lines`: lines of one call of `fd_write`. Default 1024.
    pub write_lines: usize,
    /// `wasm_compress_limit`: bytes that one call of `compress` takes. Default 4 MiB.
    pub compress: usize,
    /// `wasm_uncompress_limit`: bytes that one call of `uncompress` takes or makes. Default 16 MiB.
    pub uncompress: usize,
}

/// How much a head or trailers take; beyond it a module adds nothing.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// `wasm_header_limit`: fields. Far below where `HeaderMap` itself gives up, so that whoever comes after the module
    /// has room. Default 4096.
    pub fields: usize,
    /// `wasm_header_bytes_limit`: bytes of names and values. Default 1 MiB.
    pub bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            fields: 4096,
            bytes: MIB,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            module: 256 * MIB,
            memory: 256 * MIB,
            rebuild_memory: 200 * MIB,
            table: 100_000,
            instances: 1024,
            stream_time: Duration::from_millis(100),
            event_time: Duration::from_millis(200),
            start_time: Duration::from_secs(10),
            done_time: Duration::from_secs(30),
            calls: 10_000,
            call_bytes: 64 * MIB,
            cache: GIB,
            shared_data: 64 * MIB,
            properties: 1024,
            property_bytes: 4 * MIB,
            metric_name: 4 * KIB,
            head: Room::default(),
            body: MIB,
            write: 64 * KIB,
            write_pieces: 1024,
            write_lines: 1024,
            compress: 4 * MIB,
            uncompress: 16 * MIB,
        }
    }
}

/// Where a limit's value stands; it says in what it is counted.
enum Place<'l> {
    Bytes(&'l mut usize),
    Count(&'l mut usize),
    Time(&'l mut Duration),
}

/// A limit that can be set: its name, its smallest and largest value (bytes, a count, or milliseconds), its place.
#[derive(Debug)]
struct Row {
    name: &'static str,
    least: usize,
    most: usize,
    place: fn(&mut Limits) -> Place<'_>,
}

const HOUR: usize = 3_600_000;

/// Every limit, in the order of the table in docs/wasm.md.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "wasm_module_limit", least: KIB, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.module) },
    // Modules' memories have 32 bits.
    Row { name: "wasm_memory_limit", least: 64 * KIB, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.memory) },
    Row { name: "wasm_rebuild_memory", least: 64 * KIB, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.rebuild_memory) },
    Row { name: "wasm_table_limit", least: 1, most: 10_000_000, place: |limits| Place::Count(&mut limits.table) },
    Row { name: "wasm_instance_limit", least: 1, most: 1_000_000, place: |limits| Place::Count(&mut limits.instances) },
    Row { name: "wasm_stream_time", least: 1, most: HOUR, place: |limits| Place::Time(&mut limits.stream_time) },
    Row { name: "wasm_event_time", least: 1, most: HOUR, place: |limits| Place::Time(&mut limits.event_time) },
    Row { name: "wasm_start_time", least: 1, most: HOUR, place: |limits| Place::Time(&mut limits.start_time) },
    Row { name: "wasm_calls_limit", least: 0, most: 1_000_000, place: |limits| Place::Count(&mut limits.calls) },
    Row { name: "wasm_call_bytes_limit", least: 0, most: 64 * GIB, place: |limits| Place::Bytes(&mut limits.call_bytes) },
    Row { name: "wasm_cache_limit", least: 0, most: 1024 * GIB, place: |limits| Place::Bytes(&mut limits.cache) },
    Row { name: "wasm_shared_data_limit", least: 0, most: 64 * GIB, place: |limits| Place::Bytes(&mut limits.shared_data) },
    Row { name: "wasm_property_limit", least: 0, most: 1_000_000, place: |limits| Place::Count(&mut limits.properties) },
    Row { name: "wasm_property_bytes_limit", least: 0, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.property_bytes) },
    Row { name: "wasm_metric_name_limit", least: 1, most: MIB, place: |limits| Place::Bytes(&mut limits.metric_name) },
    // `HeaderMap` takes 24 576 at most.
    Row { name: "wasm_header_limit", least: 1, most: 16_384, place: |limits| Place::Count(&mut limits.head.fields) },
    Row { name: "wasm_header_bytes_limit", least: KIB, most: GIB, place: |limits| Place::Bytes(&mut limits.head.bytes) },
    Row { name: "wasm_write_limit", least: 1, most: GIB, place: |limits| Place::Bytes(&mut limits.write) },
    Row { name: "wasm_write_pieces", least: 1, most: 1_000_000, place: |limits| Place::Count(&mut limits.write_pieces) },
    Row { name: "wasm_write_lines", least: 1, most: 1_000_000, place: |limits| Place::Count(&mut limits.write_lines) },
    Row { name: "wasm_compress_limit", least: 0, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.compress) },
    Row { name: "wasm_uncompress_limit", least: 0, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.uncompress) },
    Row { name: "wasm_body_limit", least: 0, most: 4 * GIB, place: |limits| Place::Bytes(&mut limits.body) },
    Row { name: "wasm_done_time", least: 1, most: HOUR, place: |limits| Place::Time(&mut limits.done_time) },
];

/// One limit with a value of its own, as `NAME=VALUE` says it: `wasm_memory_limit=64MiB`, `wasm_stream_time=50ms`.
#[derive(Debug, Clone)]
pub struct Limit {
    row: &'static Row,
    value: usize,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        let row = ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            format!("expected one of {} as the name", names.join(", "))
        })?;
        let value = row
            .read(value)
            .ok_or_else(|| format!("expected {}", row.expected()))?;
        Ok(Self { row, value })
    }
}

impl Row {
    fn read(&self, text: &str) -> Option<usize> {
        let units: &[(&str, usize)] = match (self.place)(&mut Limits::default()) {
            Place::Bytes(_) => &[("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("", 1)],
            Place::Count(_) => &[("", 1)],
            Place::Time(_) => &[("ms", 1), ("s", 1000)],
        };
        let number = |(unit, size): &(&str, usize)| {
            let digits = text.strip_suffix(unit)?;
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse::<usize>().ok()?.checked_mul(*size))?
        };
        let value = units.iter().find_map(number)?;
        (self.least..=self.most).contains(&value).then_some(value)
    }

    /// What would be right, in words.
    fn expected(&self) -> String {
        let (least, most) = (self.least, self.most);
        match (self.place)(&mut Limits::default()) {
            Place::Bytes(_) => format!("{least} to {most} bytes, such as 65536, 64KiB, 256MiB or 1GiB"),
            Place::Count(_) => format!("a number of {least} to {most}"),
            Place::Time(_) => format!("a time of {least} ms to {} s, such as 100ms or 10s", most / 1000),
        }
    }
}

impl Limits {
    /// With these values in the place of the defaults; the last one of a name counts.
    #[must_use]
    pub fn with(mut self, limits: &[Limit]) -> Self {
        for limit in limits {
            match (limit.row.place)(&mut self) {
                Place::Bytes(place) | Place::Count(place) => *place = limit.value,
                Place::Time(place) => *place = Duration::from_millis(limit.value as u64),
            }
        }
        self
    }
}

/// A limit that a module ran into, for `tollgate_wasm_limits_total`; those of one thing are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Memory,
    Table,
    Instances,
    StreamTime,
    EventTime,
    StartTime,
    DoneTime,
    Calls,
    CallBytes,
    SharedData,
    Properties,
    MetricName,
    Headers,
    Body,
    Write,
    Compress,
    Uncompress,
}

impl Bound {
    /// The limit's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "wasm_memory_limit",
            Self::Table => "wasm_table_limit",
            Self::Instances => "wasm_instance_limit",
            Self::StreamTime => "wasm_stream_time",
            Self::EventTime => "wasm_event_time",
            Self::StartTime => "wasm_start_time",
            Self::DoneTime => "wasm_done_time",
            Self::Calls => "wasm_calls_limit",
            Self::CallBytes => "wasm_call_bytes_limit",
            Self::SharedData => "wasm_shared_data_limit",
            Self::Properties => "wasm_property_limit",
            Self::MetricName => "wasm_metric_name_limit",
            Self::Headers => "wasm_header_limit",
            Self::Body => "wasm_body_limit",
            Self::Write => "wasm_write_limit",
            Self::Compress => "wasm_compress_limit",
            Self::Uncompress => "wasm_uncompress_limit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> Result<Limits, String> {
        let parsed: Result<Vec<Limit>, String> = texts.iter().map(|text| text.parse()).collect();
        Ok(Limits::default().with(&parsed?))
    }

    #[test]
    fn a_limit_is_set_by_its_name() {
        let set = limits(&[
            "wasm_memory_limit=64MiB",
            "wasm_stream_time=5s",
            "wasm_stream_time=50ms",
            "wasm_calls_limit=7",
            "wasm_header_bytes_limit=2048",
        ]);
        let set = set.unwrap();
        assert_eq!((set.memory, set.calls, set.head.bytes), (64 * MIB, 7, 2048));
        assert_eq!(set.stream_time, Duration::from_millis(50));
        assert_eq!(set.event_time, Limits::default().event_time);
    }

    #[test]
    fn a_wrong_limit_says_what_would_be_right() {
        let bytes = "expected 65536 to 4294967296 bytes, such as 65536, 64KiB, 256MiB or 1GiB";
        for (text, told) in [
            ("wasm_memory_limit=1KiB", bytes),
            ("wasm_memory_limit=5GiB", bytes),
            ("wasm_memory_limit=", bytes),
            ("wasm_memory_limit=MiB", bytes),
            ("wasm_memory_limit=+65536", bytes),
            ("wasm_memory_limit=1e9", bytes),
            ("wasm_memory_limit=64ms", bytes),
            ("wasm_memory_limit=99999999999999999999", bytes),
            ("wasm_memory_limit=99999999999999999GiB", bytes),
            ("wasm_calls_limit=1KiB", "expected a number of 0 to 1000000"),
            (
                "wasm_stream_time=100",
                "expected a time of 1 ms to 3600 s, such as 100ms or 10s",
            ),
            (
                "wasm_stream_time=0ms",
                "expected a time of 1 ms to 3600 s, such as 100ms or 10s",
            ),
            ("wasm_memory_limit", "expected NAME=VALUE"),
        ] {
            assert_eq!(limits(&[text]).unwrap_err(), told, "{text}");
        }
        let unknown = limits(&["memory=1"]).unwrap_err();
        assert!(
            unknown.starts_with("expected one of wasm_module_limit, "),
            "{unknown}"
        );
        assert!(unknown.ends_with(", wasm_done_time as the name"), "{unknown}");
    }

    /// Rows of the table of bounds: its names, and what it says of the default.
    fn documented() -> Vec<(Vec<String>, String)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wasm.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (_, bounds) = page.split_once("\n## Bounds\n").unwrap();
        let (bounds, _) = bounds.split_once("\n## ").unwrap();
        let rows = bounds.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
        let named = cells.map(|cells| {
            let names = cells[0].split('`').filter(|part| part.starts_with("wasm_"));
            (names.map(str::to_owned).collect(), cells[1].to_owned())
        });
        named
            .filter(|(names, _): &(Vec<_>, _)| !names.is_empty())
            .collect()
    }

    fn shown(row: &Row) -> String {
        let (number, unit) = match (row.place)(&mut Limits::default()) {
            Place::Bytes(size) if *size >= GIB => (*size / GIB, " GiB"),
            Place::Bytes(size) if *size >= MIB => (*size / MIB, " MiB"),
            Place::Bytes(size) => (*size / KIB, " KiB"),
            Place::Count(count) => (*count, ""),
            Place::Time(time) if time.as_millis() >= 1000 => (time.as_secs() as usize, " s"),
            Place::Time(time) => (time.as_millis() as usize, " ms"),
        };
        match number {
            10_000.. => format!("{} {:03}{unit}", number / 1000, number % 1000),
            _ => format!("{number}{unit}"),
        }
    }

    #[test]
    fn the_documentation_names_every_limit_with_its_default() {
        let documented = documented();
        for row in ROWS {
            let line = documented
                .iter()
                .find(|(names, _)| names.iter().any(|name| name == row.name));
            let (_, told) = line.unwrap_or_else(|| panic!("docs/wasm.md has no row for {}", row.name));
            assert!(
                told.contains(&shown(row)),
                "{}: {} in {told}",
                row.name,
                shown(row)
            );
        }
        let known = |name: &String| ROWS.iter().any(|row| row.name == name);
        for name in documented.iter().flat_map(|(names, _)| names) {
            assert!(known(name), "{name} cannot be set");
        }
    }
}
