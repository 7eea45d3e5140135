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
            seen: marks.whole.is_empty(),
            failed: false,
        }
    }

    /// Looks at whole events.
    pub(crate) fn look(&mut self, events: &[u8]) {
        if self.seen {
            return;
        }
        let is_there = |marks: &[Mark]| marks.iter().any(|mark| mark.is_in(events));
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

impl Mark {
    fn is_in(&self, events: &[u8]) -> bool {
        match self {
            Mark::Done => DONE.find_iter(events).any(|at| is_data_line(&events[..at])),
            Mark::Word(word) => behind(word, events).any(|after| value_of(after).is_none()),
            Mark::Field(name) => {
                behind(name, events).any(|after| value_of(after).is_some_and(says_something))
            }
        }
    }
}

/// Whether what stands before is `data:` at the beginning of a line.
fn is_data_line(before: &[u8]) -> bool {
    let name = before.strip_suffix(b" ").unwrap_or(before);
    name.strip_suffix(b"data:")
        .is_some_and(|line| matches!(line.last(), None | Some(b'\n' | b'\r')))
}

/// What follows each place where the needle is.
fn behind(needle: Needle, events: &[u8]) -> impl Iterator<Item = &[u8]> {
    let places = needle.find_iter(events);
    places.map(move |at| &events[at + needle.needle().len()..])
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
