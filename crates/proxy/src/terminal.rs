//! Whether a streamed answer has said that it is whole: `[DONE]`, a reason to stop, `message_stop`, or an error event.
//!
//! Framing alone does not tell: a body that ends with its connection, and a cut that a proxy in between has tidied
//! up, look like a clean end. Only for APIs whose end is defined; never parses JSON.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use tollgate_llm::Api;

use crate::alike::Alike;

/// Looks for the end in the bytes that pass.
#[derive(Debug)]
pub(crate) struct Watch {
    marks: &'static Marks,
    alike: Alike,
    seen: bool,
    failed: bool,
}

/// The ways in which an API's stream says that it is over.
#[derive(Debug)]
struct Marks {
    whole: &'static [Mark],
    failed: &'static [Mark],
    /// What of them has quotes, without these, and the name that a kind has.
    names: &'static [&'static [u8]],
}

/// One way to say that the answer is over.
#[derive(Debug)]
enum Mark {
    /// The line `data: [DONE]`.
    Done,
    /// A whole line, such as an event's name.
    Line(Needle),
    /// What kind of event it is, quotes included: the value of `"type"`. As the model's whole text it says nothing.
    Kind(Needle),
    /// A field, quotes included, with a value that is not null, not empty and not `"null"`.
    Field(Needle),
}

/// Values that say nothing.
const NOTHING: [&[u8]; 3] = [b"null", b"\"\"", b"\"null\""];
const LONGEST_NOTHING: usize = b"\"null\"".len();

type Needle = &'static LazyLock<Finder<'static>>;

macro_rules! needle {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new($text));
    };
}

needle!(DONE, "[DONE]");
needle!(FINISH_REASON, "\"finish_reason\"");
needle!(STOP_REASON, "\"stop_reason\"");
needle!(FINISH_REASON_OF_GEMINI, "\"finishReason\"");
needle!(BLOCK_REASON, "\"blockReason\"");
needle!(MESSAGE_STOP, "\"message_stop\"");
needle!(ERROR, "\"error\"");
needle!(ERROR_EVENT, "event:error");
needle!(SPACED_ERROR_EVENT, "event: error");
needle!(COMPLETED, "\"response.completed\"");
needle!(INCOMPLETE, "\"response.incomplete\"");
needle!(FAILED, "\"response.failed\"");

static CHAT: Marks = Marks {
    whole: &[Mark::Field(&FINISH_REASON), Mark::Done],
    // DashScope's errors have no such field.
    failed: &[
        Mark::Field(&ERROR),
        Mark::Line(&ERROR_EVENT),
        Mark::Line(&SPACED_ERROR_EVENT),
    ],
    names: &[b"finish_reason", b"error"],
};
static MESSAGES: Marks = Marks {
    whole: &[Mark::Field(&STOP_REASON), Mark::Kind(&MESSAGE_STOP)],
    failed: &[Mark::Field(&ERROR)],
    names: &[b"stop_reason", b"message_stop", b"error", b"type"],
};
static RESPONSES: Marks = Marks {
    whole: &[Mark::Kind(&COMPLETED), Mark::Kind(&INCOMPLETE)],
    failed: &[Mark::Kind(&FAILED), Mark::Kind(&ERROR), Mark::Field(&ERROR)],
    names: &[
        b"response.completed",
        b"response.incomplete",
        b"response.failed",
        b"error",
        b"type",
    ],
};
/// A prompt that was blocked has no candidate, and so nothing that finished.
static GEMINI: Marks = Marks {
    whole: &[Mark::Field(&FINISH_REASON_OF_GEMINI), Mark::Field(&BLOCK_REASON)],
    failed: &[Mark::Field(&ERROR)],
    names: &[b"finishReason", b"blockReason", b"error"],
};
static UNKNOWN: Marks = Marks {
    whole: &[],
    failed: &[],
    names: &[],
};

impl Watch {
    /// For an answer to a request for `api`; other APIs' ends are not known and count as seen.
    pub(crate) fn over(api: Option<Api>) -> Self {
        let marks = match api {
            Some(Api::Chat | Api::Completions) => &CHAT,
            Some(Api::AnthropicMessages) => &MESSAGES,
            Some(Api::Responses) => &RESPONSES,
            Some(Api::GeminiStreamGenerate) => &GEMINI,
            _ => &UNKNOWN,
        };
        Self {
            marks,
            alike: Alike::default(),
            seen: marks.whole.is_empty(),
            failed: false,
        }
    }

    /// Looks at whole events.
    pub(crate) fn look(&mut self, events: &[u8]) {
        if self.seen {
            return;
        }
        let marks = self.marks;
        let rest = self.alike.skip(events, |string| marks.pass(string));
        if rest.is_empty() {
            return;
        }
        let is_there = |marks: &[Mark]| marks.iter().any(|mark| mark.is_in(rest));
        self.failed = is_there(marks.failed);
        self.seen = self.failed || is_there(marks.whole);
        if !self.seen {
            self.alike.learn(rest, |opening| marks.settled(opening));
        }
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

impl Marks {
    fn all(&self) -> impl Iterator<Item = &Mark> {
        self.failed.iter().chain(self.whole)
    }

    /// Whether a string that is new is none of them. One over several lines is no string, and may hide a line.
    fn pass(&self, string: &[u8]) -> bool {
        !self.names.contains(&string) && memchr::memchr2(b'\n', b'\r', string).is_none()
    }

    /// How much of the beginning of events without any of them holds none, whatever follows it.
    fn settled(&self, opening: &[u8]) -> usize {
        let open = |mark: &Mark| {
            let mut all = places(mark.needle(), opening);
            all.find(|(_, end)| mark.is_open(&opening[*end..]))
        };
        let first = self.all().filter_map(open).map(|(at, _)| at).min();
        first.unwrap_or(opening.len())
    }
}

impl Mark {
    fn needle(&self) -> Needle {
        match self {
            Mark::Done => &DONE,
            Mark::Line(needle) | Mark::Kind(needle) | Mark::Field(needle) => needle,
        }
    }

    fn is_in(&self, events: &[u8]) -> bool {
        places(self.needle(), events).any(|(at, end)| match self {
            Mark::Done => is_data_line(&events[..at]),
            Mark::Line(_) => {
                let is_end = |byte: Option<&u8>| matches!(byte, None | Some(b'\n' | b'\r'));
                is_end(events[..at].last()) && is_end(events.get(end))
            }
            Mark::Kind(_) => value_of(&events[end..]).is_none() && is_kind(&events[..at]),
            Mark::Field(_) => value_of(&events[end..]).is_some_and(says_something),
        })
    }

    /// Whether it depends on what comes behind `after`, which follows its needle.
    fn is_open(&self, after: &[u8]) -> bool {
        match (self, after.trim_ascii_start()) {
            (Mark::Done, _) => false,
            (Mark::Line(_), _) => after.is_empty(),
            (_, [b':', value @ ..]) => value.trim_ascii_start().len() < LONGEST_NOTHING,
            (_, rest) => rest.is_empty(),
        }
    }
}

/// Whether what stands before is `data:` at the beginning of a line.
fn is_data_line(before: &[u8]) -> bool {
    let name = before.strip_suffix(b" ").unwrap_or(before);
    name.strip_suffix(b"data:")
        .is_some_and(|line| matches!(line.last(), None | Some(b'\n' | b'\r')))
}

/// Whether what stands before is the name of an event's kind, so that its value follows.
fn is_kind(before: &[u8]) -> bool {
    let name = before.trim_ascii_end().strip_suffix(b":");
    name.is_some_and(|name| name.trim_ascii_end().ends_with(b"\"type\""))
}

/// Where the needle is: each beginning and end.
fn places(needle: Needle, events: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
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
    !NOTHING.iter().any(|text| value.starts_with(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn gemini_ends_with_a_finish_reason_a_block_reason_or_an_error() {
        let text = r#"data: {"candidates":[{"content":{"parts":[{"text":"\"finishReason\": 1"}]}}]}"#;
        assert!(!whole(Api::GeminiStreamGenerate, &format!("{text}\r\n\r\n")));
        for last in [
            r#"{"candidates":[{"content":{"parts":[{"text":"."}]},"finishReason": "STOP"}],"usageMetadata":{}}"#,
            r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":5}}"#,
            r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#,
        ] {
            let events = format!("{text}\r\n\r\ndata: {last}\r\n\r\n");
            assert!(whole(Api::GeminiStreamGenerate, &events), "{last}");
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
        for name in ["event:error", "event: error"] {
            let event =
                format!("id:3\n{name}\n:HTTP_STATUS/400\ndata:{{\"code\":\"DataInspectionFailed\"}}\n\n");
            assert!(failed(
                Api::Chat,
                &["id:2\nevent:result\ndata:{\"a\":\"error\"}\n\n", &event]
            ));
        }
        for event in [
            "event:errors\n\n",
            "data: event:error\n\n",
            "data: \"event:error\n\"\n\n",
        ] {
            assert!(!whole(Api::Chat, event), "{event}");
        }
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
    fn all_that_has_quotes_has_a_name() {
        for marks in [&CHAT, &MESSAGES, &RESPONSES, &GEMINI] {
            for mark in marks.all() {
                let needle = mark.needle().needle();
                let name = needle
                    .strip_prefix(b"\"")
                    .and_then(|rest| rest.strip_suffix(b"\""));
                assert!(name.is_none_or(|name| marks.names.contains(&name)), "{mark:?}");
            }
        }
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

    /// What one watch sees in the last of these events is what another sees that has seen no other.
    fn sees_the_same(api: Api, events: &[&str]) {
        let mut watch = Watch::over(Some(api));
        for event in events {
            assert!(!watch.seen(), "{events:?}");
            watch.look(event.as_bytes());
            assert_eq!(watch.seen(), whole(api, event), "{events:?}");
        }
    }

    #[test]
    fn the_one_string_that_is_new_may_be_what_is_looked_for() {
        for (end, value) in [("stop", "}"), ("", "}"), ("null", "}"), ("x", "")] {
            let event =
                |text: &str| format!("data: {{\"finish_reason\" : \"{text}\", \"model\":\"m\"}}{value}\n\n");
            sees_the_same(Api::Chat, &[&event(""), &event(""), &event(end)]);
        }
        let event = |name: &str| format!("data: {{\"model\":\"m\",\"{name}\":{{\"message\":\"m\"}}}}\n\n");
        sees_the_same(
            Api::Chat,
            &[&event("a"), &event("b"), &event("c"), &event("error")],
        );
        let event = |name: &str| format!("data: {{\"type\":\"response.{name}\",\"response\":{{}}}}\n\n");
        sees_the_same(
            Api::Responses,
            &[&event("created"), &event("x"), &event("y"), &event("failed")],
        );
        let event = |name: &str| format!("data: {{\"model\":\"m\",\"{name}\":\"error\"}}\n\n");
        sees_the_same(
            Api::Responses,
            &[&event("a"), &event("b"), &event("c"), &event("type")],
        );
        let event = |text: &str| format!("data: {{\"content\":\"{text}\"}}\n\n");
        let done = "data: {\"content\":\"a\"}\n\ndata: [DONE]\n\ndata: {\"content\":\"a\"}\n\n";
        sees_the_same(Api::Chat, &[&event("b"), &event("c"), &event("d"), done]);
        let cut = |rest: &str| format!("data: {{\"model\":\"m\",\"finish_reason\":{rest}\n\n");
        sees_the_same(
            Api::Chat,
            &[&cut("null,\"a\""), &cut("null,\"b\""), &cut("nu,\"b\"")],
        );
        sees_the_same(
            Api::Chat,
            &[&cut("null,\"a\""), &cut("null,\"b\""), &cut("1,\"b\"")],
        );
        let (one, other) = (cut("null,   123456,\"a\""), cut("null,   1234567,\"a\""));
        sees_the_same(Api::Chat, &[&one, &other, &cut("true,\"a\"")]);
    }

    proptest! {
        #[test]
        fn events_are_seen_whatever_came_before(
            ends in prop::sample::select(vec![Api::Chat, Api::AnthropicMessages, Api::Responses]),
            alike in prop::collection::vec(0_usize..PIECES.len(), 0..8),
            varied in prop::collection::vec(prop::collection::vec((0_usize..8, 0_usize..PIECES.len()), 1..3), 1..12),
        ) {
            let mut watch = Watch::over(Some(ends));
            for events in varied {
                let one = |(place, piece): &(usize, usize)| {
                    let mut pieces = alike.clone();
                    pieces.insert((*place).min(alike.len()), *piece);
                    let texts: Vec<_> = pieces.iter().map(|piece| PIECES[*piece]).collect();
                    texts.concat() + "\n\n"
                };
                let event: String = events.iter().map(one).collect();
                watch.look(event.as_bytes());
                prop_assert_eq!(watch.seen(), whole(ends, &event), "{}", event);
                if watch.seen() {
                    break;
                }
            }
        }
    }

    /// What events may be made of, broken ones too.
    const PIECES: [&str; 25] = [
        "\"type\":",
        "type",
        "data: ",
        "{",
        "\"",
        ":",
        ",",
        "null",
        "}",
        "\n\n",
        "[DONE]",
        "error",
        "\"error\"",
        "event:error\n",
        "\"finish_reason\"",
        "\":\"",
        "\"stop_reason\":",
        "message_stop",
        "response.failed",
        "finish_",
        "reason",
        "\"a\":\"b\",",
        " ",
        "1234567",
        "\"\"",
    ];

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
        // What the model says is no kind of event.
        for (api, text) in [
            (Api::AnthropicMessages, "message_stop"),
            (Api::Responses, "error"),
            (Api::Responses, "response.completed"),
        ] {
            for event in [
                format!("data: {{\"type\":\"delta\",\"delta\":\"{text}\"}}\n\n"),
                format!("data: {{\"delta\":{{\"text\" : \"{text}\"}},\"type\":\"delta\"}}\n\n"),
            ] {
                assert!(!whole(api, &event), "{event}");
            }
        }
    }
}
