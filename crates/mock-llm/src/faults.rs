//! The fault menu: what a request can ask the mock to do wrong, as one table.
//!
//! A request names faults in the header `x-mock-fault`, in the query (`?mock-fault=`), or in its model name after
//! `fault-`; a server can have a standing one (`Options::fault`). Several are joined by `+` or `,`.
//! * header and query: `name;parameter=value;parameter=value`, e.g. `cut;after=3;how=reset`
//! * model name: the same, or with dashes: `fault-cut-after-3-how-reset`, `fault-429-retry-after-2`
//!
//! Every fault takes `first=N`: it strikes the first N requests that carry the same `x-mock-key` (all requests
//! without one share a key), later ones succeed. Reading ends in a `Plan`; carrying it out is elsewhere.

use std::time::Duration;

use http::StatusCode;

use crate::connection::Ending;
use crate::plan::{
    Cut, CutAs, Deform, Encoding, NoAnswer, Packing, Phase, Place, Plan, RetryAfter, StatusFault, UsageMode,
};

/// One dish of the menu.
pub struct Fault {
    /// The name to ask for.
    pub name: &'static str,
    /// Its parameters with their defaults.
    pub parameters: &'static [(&'static str, &'static str)],
    /// What it does, for the list of `GET /faults`.
    pub about: &'static str,
    order: fn(&mut Plan, &Arguments<'_>) -> Result<(), String>,
}

/// The given parameters of one ordered fault.
struct Arguments<'a> {
    fault: &'static Fault,
    given: Vec<(&'a str, &'a str)>,
}

impl Arguments<'_> {
    fn text(&self, name: &str) -> &str {
        let given = self
            .given
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value);
        given
            .or_else(|| {
                self.fault
                    .parameters
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| *value)
            })
            .unwrap_or("")
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, String> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| format!("fault `{}`: {name}={text} is not a number", self.fault.name))
    }

    fn milliseconds(&self) -> Result<Duration, String> {
        self.number("ms").map(Duration::from_millis)
    }

    fn status(&self, name: &str) -> Result<StatusCode, String> {
        let code: u16 = self.number(name)?;
        StatusCode::from_u16(code).map_err(|_| format!("fault `{}`: {code} is no status", self.fault.name))
    }

    fn cut_as(&self) -> Result<CutAs, String> {
        match self.text("how") {
            "close" => Ok(CutAs::Connection(Ending::Close)),
            "reset" => Ok(CutAs::Connection(Ending::Reset)),
            "stream" => Ok(CutAs::Stream),
            "end" => Ok(CutAs::End),
            other => Err(format!(
                "fault `{}`: how={other}, known: close reset stream end",
                self.fault.name
            )),
        }
    }

    fn cut(&self, place: Place) -> Result<Option<Cut>, String> {
        Ok(Some(Cut {
            after: self.number("after")?,
            place,
            cut_as: self.cut_as()?,
        }))
    }
}

const AFTER: (&str, &str) = ("after", "2");
const HOW: (&str, &str) = ("how", "close");
const FOREVER: (&str, &str) = ("ms", "86400000");

/// A row: name, parameters, what it does, and how it changes the plan.
macro_rules! fault {
    ($name:literal, [$($parameter:expr),*], $about:literal, |$plan:ident, $arguments:ident| $order:block) => {
        Fault {
            name: $name,
            parameters: &[$($parameter),*],
            about: $about,
            order: |$plan, $arguments| {
                let _ = &$arguments;
                $order
                Ok(())
            },
        }
    };
}

/// The menu. A row here is all that a new fault of a known kind needs.
pub static FAULTS: &[Fault] = &[
    // Knobs of a healthy answer.
    fault!(
        "tokens",
        [("n", "100")],
        "a text of exactly n tokens",
        |plan, a| {
            plan.answer.length = Some(a.number("n")?);
        }
    ),
    fault!(
        "pace",
        [("ms", "20")],
        "ms milliseconds between streamed events",
        |plan, a| {
            plan.pace = Some(a.milliseconds()?);
        }
    ),
    fault!("reasoning", [], "reasoning before the text", |plan, _a| {
        plan.answer.reasoning = true;
    }),
    fault!("tools", [], "calls the first tool on offer", |plan, _a| {
        plan.answer.call_tools = true;
    }),
    fault!("chinese", [], "an answer in Chinese", |plan, _a| {
        plan.answer.chinese = true;
    }),
    fault!(
        "cached",
        [("n", "8")],
        "reports n prompt tokens as cached",
        |plan, a| {
            plan.answer.cached = a.number("n")?;
        }
    ),
    // Before the head.
    fault!("reset", [], "TCP reset instead of an answer", |plan, _a| {
        plan.no_answer = Some(NoAnswer::Reset);
    }),
    fault!(
        "close",
        [],
        "the connection closes instead of an answer",
        |plan, _a| {
            plan.no_answer = Some(NoAnswer::Close);
        }
    ),
    fault!("black-hole", [], "never answers", |plan, _a| {
        plan.no_answer = Some(NoAnswer::BlackHole);
    }),
    // Also as a name of three digits. The retry time comes in seconds, in milliseconds, or as a date so many seconds ahead.
    fault!(
        "status",
        [
            ("code", "500"),
            ("retry-after", ""),
            ("retry-after-ms", ""),
            ("retry-after-date", "")
        ],
        "an error answer in the dialect of the path",
        |plan, a| {
            plan.status = Some(status_fault(a, a.status("code")?)?);
        }
    ),
    // Ordered by header, query or standing fault: a model's name is in the body.
    fault!(
        "unread",
        [],
        "with another fault: strikes before the request's body is read",
        |plan, _a| {
            plan.unread = true;
        }
    ),
    // Whole answers.
    fault!("html", [("code", "502")], "an HTML error page", |plan, a| {
        plan.status = Some(StatusFault {
            status: a.status("code")?,
            retry_after: Vec::new(),
        });
        plan.deform = Some(Deform::Html);
    }),
    fault!("empty", [], "200 with an empty body", |plan, _a| {
        plan.deform = Some(Deform::Empty);
    }),
    fault!("error-200", [], "200 with an error object", |plan, _a| {
        plan.deform = Some(Deform::ErrorWith200);
    }),
    fault!(
        "content-type",
        [],
        "the right body called text/plain",
        |plan, _a| {
            plan.deform = Some(Deform::ContentType);
        }
    ),
    fault!("garbage", [], "200 with a body that is not JSON", |plan, _a| {
        plan.deform = Some(Deform::Garbage);
    }),
    fault!(
        "length-short",
        [],
        "declares 10 bytes more than it sends, then closes",
        |plan, _a| {
            plan.deform = Some(Deform::LengthShort);
        }
    ),
    fault!(
        "length-long",
        [],
        "sends 10 bytes more than it declares, then closes (HTTP/1.1)",
        |plan, _a| {
            plan.deform = Some(Deform::LengthLong);
        }
    ),
    fault!(
        "cut-body",
        [("after", "10")],
        "a chunked whole answer cut after so many bytes",
        |plan, a| {
            plan.deform = Some(Deform::CutBody(a.number("after")?));
        }
    ),
    fault!("gzip", [], "compressed with gzip, streams too", |plan, _a| {
        plan.encoding = Some(Encoding::Gzip);
    }),
    fault!(
        "deflate",
        [],
        "compressed with deflate (zlib), streams too",
        |plan, _a| {
            plan.encoding = Some(Encoding::Deflate);
        }
    ),
    fault!(
        "br",
        [],
        "in the format of brotli, streams too; nothing gets smaller",
        |plan, _a| {
            plan.encoding = Some(Encoding::Brotli);
        }
    ),
    fault!(
        "zstd",
        [],
        "in the format of zstd, streams too; nothing gets smaller",
        |plan, _a| {
            plan.encoding = Some(Encoding::Zstd);
        }
    ),
    // Stalls.
    fault!(
        "stall-head",
        [FOREVER],
        "waits before the response head",
        |plan, a| {
            plan.stall = Some((Phase::Head, a.milliseconds()?));
        }
    ),
    fault!(
        "stall-first",
        [FOREVER],
        "sends the head, then waits before the body",
        |plan, a| {
            plan.stall = Some((Phase::First, a.milliseconds()?));
        }
    ),
    fault!(
        "stall-between",
        [FOREVER, AFTER],
        "waits after so many content events",
        |plan, a| {
            plan.stall = Some((Phase::Between(a.number("after")?), a.milliseconds()?));
        }
    ),
    // Cuts.
    fault!(
        "cut",
        [AFTER, HOW],
        "cuts the stream after so many content events",
        |plan, a| {
            plan.stream.cut = a.cut(Place::AfterEvent)?;
        }
    ),
    fault!(
        "cut-in-character",
        [AFTER, HOW],
        "cuts inside a UTF-8 character",
        |plan, a| {
            plan.answer.chinese = true;
            plan.stream.cut = a.cut(Place::InCharacter)?;
        }
    ),
    fault!(
        "cut-in-data",
        [AFTER, HOW, ("at", "3")],
        "cuts an event `at` bytes behind the beginning of its data line",
        |plan, a| {
            plan.stream.cut = a.cut(Place::InField(a.number("at")?))?;
        }
    ),
    fault!(
        "cut-in-arguments",
        [("after", "1"), HOW],
        "calls a tool and cuts after so many fragments of its arguments",
        |plan, a| {
            plan.answer.call_tools = true;
            plan.stream.cut = a.cut(Place::InArguments)?;
        }
    ),
    fault!(
        "rst-stream",
        [AFTER],
        "RST_STREAM after so many content events (h2)",
        |plan, a| {
            plan.stream.cut = Some(Cut {
                after: a.number("after")?,
                place: Place::AfterEvent,
                cut_as: CutAs::Stream,
            });
        }
    ),
    fault!(
        "goaway",
        [AFTER],
        "GOAWAY without error in mid-stream; the stream goes on (h2)",
        |plan, a| {
            plan.stream.goaway = Some((a.number("after")?, false));
        }
    ),
    fault!(
        "goaway-error",
        [AFTER],
        "GOAWAY with ENHANCE_YOUR_CALM, then the end (h2)",
        |plan, a| {
            plan.stream.goaway = Some((a.number("after")?, true));
        }
    ),
    fault!(
        "no-close-notify",
        [],
        "a whole answer, then TLS ends without close_notify (HTTP/1.1)",
        |plan, _a| {
            plan.without_close_notify = true;
        }
    ),
    // Wrong or unusual streams.
    fault!(
        "error-event",
        [("after", "0"), ("code", "429")],
        "the opening, so many content events, then an error event",
        |plan, a| {
            plan.stream.error_event = Some((a.number("after")?, a.status("code")?));
        }
    ),
    fault!("malformed", [AFTER], "one event that is not JSON", |plan, a| {
        plan.stream.malformed = Some(a.number("after")?);
    }),
    fault!("done-twice", [], "the terminal event twice", |plan, _a| {
        plan.stream.done = Some(2);
    }),
    fault!("done-none", [], "no terminal event, a clean end", |plan, _a| {
        plan.stream.done = Some(0);
    }),
    fault!(
        "unknown-events",
        [],
        "event types that nobody knows",
        |plan, _a| {
            plan.stream.unknown_events = true;
        }
    ),
    fault!(
        "big-event",
        [("bytes", "10485760")],
        "one content event of that size",
        |plan, a| {
            plan.stream.big_event = Some(a.number("bytes")?);
        }
    ),
    fault!(
        "keep-alive-only",
        [("ms", "50")],
        "nothing but comments",
        |plan, a| {
            plan.stream.keep_alive_only = Some(a.milliseconds()?);
        }
    ),
    fault!("keep-alive", [], "a comment before every event", |plan, _a| {
        plan.stream.keep_alive_between = true;
    }),
    fault!(
        "bom",
        [],
        "a byte order mark at the stream's start",
        |plan, _a| {
            plan.stream.byte_order_mark = true;
        }
    ),
    fault!("trailers", [], "HTTP trailers behind the body", |plan, _a| {
        plan.stream.trailers = true;
    }),
    // Bytes.
    fault!("crlf", [], "lines end in CR LF", |plan, _a| {
        plan.stream.line_end = Some("\r\n");
    }),
    fault!("lf", [], "lines end in LF", |plan, _a| {
        plan.stream.line_end = Some("\n");
    }),
    fault!("cr", [], "lines end in CR", |plan, _a| {
        plan.stream.line_end = Some("\r");
    }),
    fault!(
        "packed",
        [("events", "5")],
        "so many events in one packet",
        |plan, a| {
            plan.stream.packing = Packing::Events(a.number("events")?);
        }
    ),
    fault!(
        "split",
        [("bytes", "1")],
        "body frames of so many bytes",
        |plan, a| {
            plan.stream.packing = Packing::Bytes(a.number("bytes")?);
        }
    ),
    fault!(
        "trickle",
        [("bytes", "1")],
        "socket writes of so many bytes, the head too",
        |plan, a| {
            plan.write_limit = a.number("bytes")?;
        }
    ),
    // Usage.
    fault!("usage-absent", [], "no usage at all", |plan, _a| {
        plan.stream.usage = UsageMode::Absent;
    }),
    fault!("usage-null", [], "usage is null everywhere", |plan, _a| {
        plan.stream.usage = UsageMode::Null;
    }),
    fault!(
        "usage-cumulative",
        [],
        "a running total on every event",
        |plan, _a| {
            plan.stream.usage = UsageMode::Cumulative;
        }
    ),
    fault!(
        "usage-per-event",
        [],
        "each event's own tokens on it",
        |plan, _a| {
            plan.stream.usage = UsageMode::PerEvent;
        }
    ),
    fault!(
        "usage-after-done",
        [],
        "usage behind the terminal event",
        |plan, _a| {
            plan.stream.usage = UsageMode::AfterDone;
        }
    ),
    fault!(
        "usage-in-choice",
        [],
        "usage inside the last choice",
        |plan, _a| {
            plan.stream.usage = UsageMode::InChoice;
        }
    ),
];

fn status_fault(arguments: &Arguments<'_>, status: StatusCode) -> Result<StatusFault, String> {
    let mut retry_after = Vec::new();
    for (name, spelled) in [
        ("retry-after", RetryAfter::Seconds as fn(u64) -> RetryAfter),
        ("retry-after-ms", RetryAfter::Milliseconds),
        ("retry-after-date", RetryAfter::Date),
    ] {
        if !arguments.text(name).is_empty() {
            retry_after.push(spelled(arguments.number(name)?));
        }
    }
    Ok(StatusFault { status, retry_after })
}

/// One fault as ordered, before it is put into a plan.
#[derive(Debug, PartialEq, Eq)]
struct Order<'a> {
    name: &'a str,
    given: Vec<(&'a str, &'a str)>,
}

/// `name;parameter=value;…`
fn parse_plain(text: &str) -> Result<Order<'_>, String> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or("");
    let mut given = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("fault `{name}`: `{part}` is not parameter=value"))?;
        given.push((key.trim(), value.trim()));
    }
    Ok(Order { name, given })
}

fn is_status(name: &str) -> bool {
    name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// `name-parameter-value-…`; the longest fitting fault name counts.
fn parse_dashed(text: &str) -> Result<Order<'_>, String> {
    let fits = |name: &str| {
        text.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let longest = FAULTS
        .iter()
        .filter(|fault| fits(fault.name))
        .max_by_key(|fault| fault.name.len());
    let (name, parameters): (&str, &[(&str, &str)]) = match (longest, text.get(..3)) {
        (Some(fault), _) => (fault.name, fault.parameters),
        (None, Some(code)) if is_status(code) && fits(code) => {
            (code, find("status").map_or(&[], |fault| fault.parameters))
        }
        _ => return Err(unknown(text)),
    };
    let mut given = Vec::new();
    let mut rest = text[name.len()..].trim_start_matches('-');
    while !rest.is_empty() {
        let named = |key: &&str| {
            rest.strip_prefix(*key)
                .is_some_and(|value| value.starts_with('-'))
        };
        let key = parameters
            .iter()
            .map(|(key, _)| *key)
            .chain(["first"])
            .filter(named)
            .max_by_key(|key| key.len())
            .ok_or_else(|| format!("fault `{name}` has no parameter at `{rest}`"))?;
        let after = &rest[key.len() + 1..];
        let end = after.find('-').unwrap_or(after.len());
        given.push((key, &after[..end]));
        rest = after[end..].trim_start_matches('-');
    }
    Ok(Order { name, given })
}

fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    format!(
        "unknown fault `{name}`; known: three digits, {}",
        known.join(", ")
    )
}

/// Where a text of faults was found, hence how it is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Plain,
    Model,
}

/// Puts the faults that `text` orders into `plan`.
///
/// `strikes(fault, n)` says whether a fault with `first=n` strikes this time; it is asked once for each.
pub(crate) fn order(
    plan: &mut Plan,
    text: &str,
    source: Source,
    mut strikes: impl FnMut(&str, u64) -> bool,
) -> Result<(), String> {
    for one in text
        .split([',', '+'])
        .map(str::trim)
        .filter(|one| !one.is_empty())
    {
        let mut ordered = match source {
            Source::Model if !one.contains(';') => parse_dashed(one)?,
            _ => parse_plain(one)?,
        };
        if let Some(place) = ordered.given.iter().position(|(key, _)| *key == "first") {
            let (_, times) = ordered.given.remove(place);
            let times = times
                .parse()
                .map_err(|_| format!("fault `{one}`: first={times} is not a number"))?;
            if !strikes(one, times) {
                continue;
            }
        }
        if is_status(ordered.name) {
            ordered.given.push(("code", ordered.name));
            ordered.name = "status";
        }
        let fault = find(ordered.name).ok_or_else(|| unknown(ordered.name))?;
        let foreign = ordered
            .given
            .iter()
            .find(|(key, _)| fault.parameters.iter().all(|(own, _)| own != key));
        if let Some((key, _)) = foreign {
            return Err(format!("fault `{}` has no parameter `{key}`", fault.name));
        }
        (fault.order)(
            plan,
            &Arguments {
                fault,
                given: ordered.given,
            },
        )?;
    }
    Ok(())
}

/// Whether everything in the text of a standing fault is on the menu.
pub(crate) fn check(text: Option<&str>) -> std::io::Result<()> {
    order(&mut Plan::default(), text.unwrap_or(""), Source::Plain, |_, _| {
        true
    })
    .map_err(|message| std::io::Error::new(std::io::ErrorKind::InvalidInput, message))
}

/// The faults that a model name orders: all that follows `fault-`.
pub(crate) fn in_model(model: &str) -> Option<&str> {
    let (before, faults) = model.split_once("fault-")?;
    (before.is_empty() || before.ends_with(['-', '/', ':'])).then_some(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, source: Source) -> Result<Plan, String> {
        let mut plan = Plan::default();
        order(&mut plan, text, source, |_, _| true)?;
        Ok(plan)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        for (plain, dashed) in [
            ("429;retry-after=2", "429-retry-after-2"),
            (
                "status;code=503;retry-after-ms=1500",
                "status-code-503-retry-after-ms-1500",
            ),
            ("cut;after=3;how=reset", "cut-after-3-how-reset"),
            ("cut-in-data;at=5", "cut-in-data-at-5"),
            ("crlf,split;bytes=2", "crlf+split-bytes-2"),
            ("stall-between;ms=10;after=1", "stall-between-ms-10-after-1"),
        ] {
            let (one, other) = (
                plan(plain, Source::Plain).unwrap(),
                plan(dashed, Source::Model).unwrap(),
            );
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            assert_ne!(
                format!("{one:?}"),
                format!("{:?}", Plan::default()),
                "{plain} orders nothing"
            );
        }
    }

    #[test]
    fn every_dish_can_be_ordered_with_its_defaults_and_changes_the_plan() {
        let untouched = format!("{:?}", Plan::default());
        for fault in FAULTS {
            let ordered = plan(fault.name, Source::Plain).unwrap();
            assert_ne!(format!("{ordered:?}"), untouched, "{}", fault.name);
            plan(fault.name, Source::Model).unwrap();
            assert_eq!(
                FAULTS.iter().filter(|other| other.name == fault.name).count(),
                1,
                "{}",
                fault.name
            );
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, source, reason) in [
            ("nosuch", Source::Plain, "unknown fault `nosuch`"),
            ("nosuch", Source::Model, "unknown fault `nosuch`"),
            ("cut;after=x", Source::Plain, "after=x is not a number"),
            ("cut;how=softly", Source::Plain, "known: close reset"),
            ("cut;colour=red", Source::Plain, "no parameter `colour`"),
            ("cut;after", Source::Plain, "not parameter=value"),
            ("cut-colour-red", Source::Model, "no parameter at `colour-red`"),
            ("099", Source::Plain, "99 is no status"),
            ("reset;first=x", Source::Plain, "first=x is not a number"),
        ] {
            let error = plan(text, source).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_counted_fault_is_skipped_when_it_no_longer_strikes() {
        let mut asked = Vec::new();
        let mut skipped = Plan::default();
        order(&mut skipped, "429-first-2", Source::Model, |fault, times| {
            asked.push((fault.to_owned(), times));
            false
        })
        .unwrap();
        assert_eq!(asked, [("429-first-2".to_owned(), 2)]);
        assert_eq!(skipped.status, None);
    }

    #[test]
    fn a_model_name_orders_after_the_mark() {
        assert_eq!(in_model("fault-429"), Some("429"));
        assert_eq!(in_model("qwen-max-fault-cut"), Some("cut"));
        assert_eq!(in_model("org/fault-cut"), Some("cut"));
        assert_eq!(in_model("default-cut"), None);
        assert_eq!(in_model("gpt-4o"), None);
    }
}
