//! Whether a streamed answer has said that it is whole: `[DONE]`, a finish reason, `message_stop`, or an error event.
//!
//! Framing alone does not tell: a body that ends with its connection, and a cut that a proxy in between has tidied
//! up, look like a clean end. Only for APIs whose end is defined; never parses JSON.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use tollgate_llm::Api;

/// Looks for the end in the bytes that pass.
#[derive(Debug)]
pub(crate) struct Watch {
    marks: &'static Marks,
    opening: Opening,
    seen: bool,
    failed: bool,
}

/// The ways in which an API's stream says that it is over.
#[derive(Debug)]
struct Marks {
    whole: &'static [Mark],
    failed: &'static [Mark],
}

/// One way to say that the answer is over.
#[derive(Debug)]
enum Mark {
    /// The line `data: [DONE]`.
    Done,
    /// A string that is a value, quotes included. A text of the model cannot hold it: its quotes are escaped.
    Word(Needle),
    /// A field, quotes included, with a value that is not null, not empty and not `"null"`.
    Field(Needle),
}

type Needle = &'static LazyLock<Finder<'static>>;

macro_rules! needle {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new($text));
    };
}

needle!(DONE, "[DONE]");
needle!(FINISH_REASON, "\"finish_reason\"");
needle!(STOP_REASON, "\"stop_reason\"");
needle!(MESSAGE_STOP, "\"message_stop\"");
needle!(ERROR, "\"error\"");
needle!(COMPLETED, "\"response.completed\"");
needle!(INCOMPLETE, "\"response.incomplete\"");
needle!(FAILED, "\"response.failed\"");

/// Of the needles above.
const LONGEST_NEEDLE: usize = "\"response.incomplete\"".len();
/// What is remembered of events.
const LONGEST_OPENING: usize = 512;
const SHORTEST_OPENING: usize = 2 * LONGEST_NEEDLE;
/// How often a stream whose events differ has its opening learnt anew.
const MOST_CHANGES: u8 = 8;

static CHAT: Marks = Marks {
    whole: &[Mark::Field(&FINISH_REASON), Mark::Done],
    failed: &[Mark::Field(&ERROR)],
};
static MESSAGES: Marks = Marks {
    whole: &[Mark::Field(&STOP_REASON), Mark::Word(&MESSAGE_STOP)],
    failed: &[Mark::Field(&ERROR)],
};
static RESPONSES: Marks = Marks {
    whole: &[Mark::Word(&COMPLETED), Mark::Word(&INCOMPLETE)],
    failed: &[Mark::Word(&FAILED), Mark::Word(&ERROR), Mark::Field(&ERROR)],
};
static UNKNOWN: Marks = Marks {
    whole: &[],
    failed: &[],
};

impl Watch {
    /// For an answer to a request for `api`; other APIs' ends are not known and count as seen.
    pub(crate) fn over(api: Option<Api>) -> Self {
        let marks = match api {
            Some(Api::Chat | Api::Completions) => &CHAT,
            Some(Api::AnthropicMessages) => &MESSAGES,
            Some(Api::Responses) => &RESPONSES,
            _ => &UNKNOWN,
        };
        Self {
            marks,
            opening: Opening::default(),
            seen: marks.whole.is_empty(),
            failed: false,
        }
    }

    /// Looks at whole events.
    pub(crate) fn look(&mut self, events: &[u8]) {
        if self.seen {
            return;
        }
        let known = self.opening.skip(events, self.marks);
        let is_there = |marks: &[Mark]| marks.iter().any(|mark| mark.is_in(events, known));
        self.failed = is_there(self.marks.failed);
        self.seen = self.failed || is_there(self.marks.whole);
    }

    /// Whether the answer said that it is over.
    pub(crate) fn seen(&self) -> bool {
        self.seen
    }

    /// Whether its end was an error event.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }
}

/// What a stream's events begin with, all alike; none of the needles is in it, so that it need not be looked through
/// again.
#[derive(Debug, Default)]
struct Opening {
    bytes: Vec<u8>,
    /// How often it was forgotten.
    changes: u8,
}

impl Opening {
    /// Where in `events` a needle may begin.
    fn skip(&mut self, events: &[u8], marks: &Marks) -> usize {
        if self.bytes.is_empty() || !events.starts_with(&self.bytes) {
            self.learn(events, marks);
        }
        self.bytes.len().saturating_sub(LONGEST_NEEDLE - 1)
    }

    /// Keeps what this event has in common with those before it; begins anew when that has become too little.
    fn learn(&mut self, events: &[u8], marks: &Marks) {
        let pairs = self.bytes.iter().zip(events);
        let common = pairs.take_while(|(known, new)| known == new).count();
        self.bytes.truncate(common);
        if common >= SHORTEST_OPENING {
            return;
        }
        self.bytes.clear();
        if self.changes < MOST_CHANGES {
            self.changes += 1;
            let opening = &events[..events.len().min(LONGEST_OPENING)];
            let needles = marks.failed.iter().chain(marks.whole).map(Mark::needle);
            let first = needles.filter_map(|needle| needle.find(opening)).min();
            self.bytes
                .extend_from_slice(&opening[..first.unwrap_or(opening.len())]);
        }
    }
}

impl Mark {
    fn needle(&self) -> Needle {
        match self {
            Mark::Done => &DONE,
            Mark::Word(needle) | Mark::Field(needle) => needle,
        }
    }

    /// Whether it is in `events`, at `from` or behind it.
    fn is_in(&self, events: &[u8], from: usize) -> bool {
        places(self.needle(), events, from).any(|(at, end)| match self {
            Mark::Done => is_data_line(&events[..at]),
            Mark::Word(_) => value_of(&events[end..]).is_none(),
            Mark::Field(_) => value_of(&events[end..]).is_some_and(says_something),
        })
    }
}

/// Whether what stands before is `data:` at the beginning of a line.
fn is_data_line(before: &[u8]) -> bool {
    let name = before.strip_suffix(b" ").unwrap_or(before);
    name.strip_suffix(b"data:")
        .is_some_and(|line| matches!(line.last(), None | Some(b'\n' | b'\r')))
}

/// Where the needle is, at `from` or behind it: its beginning and its end.
fn places(needle: Needle, events: &[u8], mut from: usize) -> impl Iterator<Item = (usize, usize)> {
    std::iter::from_fn(move || {
        let at = from + needle.find(events.get(from..)?)?;
        from = at + needle.needle().len();
        Some((at, from))
    })
}

/// The value behind a name; `None` when no colon follows, so that it was no name.
fn value_of(after: &[u8]) -> Option<&[u8]> {
    let value = after.trim_ascii_start().strip_prefix(b":")?;
    Some(value.trim_ascii_start())
}

fn says_something(value: &[u8]) -> bool {
    let nothing: [&[u8]; 3] = [b"null", b"\"\"", b"\"null\""];
    !nothing.iter().any(|text| value.starts_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(api: Api, events: &str) -> bool {
        let mut watch = Watch::over(Some(api));
        watch.look(events.as_bytes());
        watch.seen()
    }

    #[test]
    fn chat_ends_with_done_a_finish_reason_or_an_error() {
        for events in [
            "data: [DONE]\n\n",
            "data: {}\r\n\r\ndata:[DONE]\r\n\r\n",
            "data: {\"choices\":[{\"finish_reason\" : \"stop\"}]}\n\n",
            "data: {\"choices\":[{\"finish_reason\":null},{\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"error\":{\"message\":\"x\"}}\n\n",
        ] {
            assert!(whole(Api::Chat, events), "{events}");
        }
        for events in [
            "data: {\"choices\":[{\"finish_reason\":null}],\"error\":null}\n\n",
            "data: {\"choices\":[{\"finish_reason\":\"\"}]}\n\n",
            "data: {\"output\":{\"finish_reason\":\"null\"}}\n\n",
            // What a model says about streams is no end of this one.
            "data: {\"content\":\"data: [DONE]\"}\n\n",
            "data: {\"content\":\"{\\\"finish_reason\\\":\\\"stop\\\"}\"}\n\n",
            ": keep-alive\n\n",
            "",
        ] {
            assert!(!whole(Api::Chat, events), "{events}");
        }
    }

    #[test]
    fn an_error_event_is_an_end_but_no_good_one() {
        let failed = |api: Api, events: &[&str]| {
            let mut watch = Watch::over(Some(api));
            events.iter().for_each(|event| watch.look(event.as_bytes()));
            assert!(watch.seen(), "{events:?}");
            watch.failed()
        };
        let error = "data: {\"error\":{\"message\":\"x\"}}\n\n";
        let stop = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
        assert!(failed(Api::Chat, &[error]));
        assert!(failed(Api::Chat, &[error, "data: [DONE]\n\n"]));
        assert!(failed(Api::Chat, &[&[error, "data: [DONE]\n\n"].concat()]));
        assert!(!failed(Api::Chat, &[stop, error]));
        assert!(failed(
            Api::AnthropicMessages,
            &["data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"]
        ));
        assert!(failed(
            Api::Responses,
            &["data: {\"type\":\"response.failed\"}\n\n"]
        ));
        assert!(!failed(
            Api::Responses,
            &["data: {\"type\":\"response.incomplete\"}\n\n"]
        ));
        assert!(!failed(Api::Embeddings, &[error]));
    }

    #[test]
    fn what_events_begin_with_hides_nothing() {
        let same = "data: {\"id\":\"chatcmpl-0123456789\",\"model\":\"some-model-or-other\",\"choices\":[{\"delta\":{";
        let events = [
            "\"content\":\"a\"}}]}\n\n",
            "\"content\":\"b\"},\"finish_reason\":null}]}\n\n",
            "\"content\":\"error\"}}]}\n\n",
        ];
        let ends = [
            "}}],\"error\":{}}\n\n",
            "},\"finish_reason\":\"stop\"}]}\n\n",
            "\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n",
            "}}]}\n\ndata: [DONE]\n\n",
        ];
        for (cut, end) in (0..=same.len()).flat_map(|cut| ends.map(|end| (cut, end))) {
            let mut watch = Watch::over(Some(Api::Chat));
            for event in events {
                watch.look(format!("{same}{event}").as_bytes());
                assert!(!watch.seen(), "{event}");
            }
            let last = format!("{}{end}", &same[..cut]);
            watch.look(last.as_bytes());
            assert_eq!(watch.seen(), whole(Api::Chat, &last), "{last}");
            assert!(watch.seen() || cut < same.len(), "{last}");
        }
    }

    #[test]
    fn a_needle_may_begin_in_what_events_begin_with() {
        let same = "data: {\"id\":\"chatcmpl-0123456789\",\"model\":\"some-model-or-other\",\"finish_rea";
        let mut watch = Watch::over(Some(Api::Chat));
        watch.look(format!("{same}\":\"stop\"}}\n\n").as_bytes());
        watch.look(format!("{same}l\":\"stop\"}}\n\n").as_bytes());
        assert!(!watch.seen());
        watch.look(format!("{same}son\":null}}\n\n").as_bytes());
        assert!(!watch.seen());
        watch.look(format!("{same}son\":\"stop\"}}\n\n").as_bytes());
        assert!(watch.seen());
    }

    #[test]
    fn no_needle_is_longer_than_the_longest() {
        for marks in [&CHAT, &MESSAGES, &RESPONSES] {
            for mark in marks.whole.iter().chain(marks.failed) {
                assert!(mark.needle().needle().len() <= LONGEST_NEEDLE);
            }
        }
    }

    #[test]
    fn other_wires() {
        assert!(whole(
            Api::AnthropicMessages,
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
        ));
        assert!(!whole(
            Api::AnthropicMessages,
            "data: {\"type\":\"message_start\",\"message\":{\"stop_reason\":null}}\n\n"
        ));
        assert!(!whole(Api::AnthropicMessages, "data: [DONE]\n\n"));
        assert!(whole(
            Api::Responses,
            "data: {\"type\":\"response.completed\",\"response\":{\"error\":null}}\n\n"
        ));
        assert!(!whole(
            Api::Responses,
            "data: {\"type\":\"response.created\",\"response\":{\"error\": null}}\n\n"
        ));
        assert!(whole(
            Api::Responses,
            "data: {\"type\": \"error\", \"code\": null}\n\n"
        ));
        assert!(whole(Api::Embeddings, ""));
    }
}
