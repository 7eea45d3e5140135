//! Conversations: which requests belong together, by what the client says or by the history that it repeats.
//!
//! A chat request carries all messages so far. [`Turn`] is read from the body that a plugin has parsed anyway and keeps
//! hashes only: one of all messages, and one of those before each answer in them. At settlement [`Conversations`]
//! (`memory`) finds the request whose messages are the longest such beginning.

mod memory;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use foldhash::quality::FixedState;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tollgate_body::JsonDocument;
use tollgate_body::path::{self, Member, ValueKind};

pub use memory::{Asked, Conversations, Place, made};

/// Beginnings of a history that are compared, the longest.
const MOST_BEGINNINGS: usize = 32;
/// Tool calls that are named.
const MOST_TOOLS: usize = 16;
/// Bytes of a session's id and of a tool's name.
const NAME: usize = 256;

/// Headers with a session's id, the first that says something counts (plugins spec §1.5).
pub const SESSION_HEADERS: [&str; 4] = [
    "x-openclaw-session-key",
    "x-clawdbot-session-key",
    "x-moltbot-session-key",
    "x-agent-session",
];

/// Members of a body with a session's id, the first that says something counts.
const SESSION_MEMBERS: [&str; 4] = [
    // OpenAI's Responses API: an id, or an object with one.
    "conversation.id",
    "conversation",
    "metadata.conversation_id",
    "metadata.session_id",
];

/// Where Anthropic's clients hide theirs: `user_…_session_ID`.
const USER_ID: &str = "metadata.user_id";
const SESSION_IN_USER_ID: &str = "_session_";

/// One seed for the process: nobody outside can make two histories look alike.
static SEED: LazyLock<FixedState> =
    LazyLock::new(|| FixedState::with_seed(RandomState::new().hash_one("conversations")));

/// What a request tells of its conversation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Turn {
    session: Option<Box<str>>,
    /// `previous_response_id`.
    previous: Option<Box<str>>,
    /// Hash of all messages; `None` for a body without.
    whole: Option<u64>,
    /// Hashes of the messages before each answer, the longest last.
    beginnings: VecDeque<u64>,
    /// Names of the tools that the last answer called.
    tools: Vec<Box<str>>,
}

impl Turn {
    /// Notes the session that a header names; `own` is looked at first, and what `hides` calls a credential names none: ids
    /// go into the ledger. False if no header can name one.
    pub fn head(
        &mut self,
        headers: &HeaderMap,
        own: Option<&str>,
        hides: impl Fn(&str, &HeaderValue) -> bool,
    ) -> bool {
        // All of them begin so, and most requests have none of them.
        let is_session = |header: &HeaderName| {
            let header = header.as_str();
            matches!(header.as_bytes(), [b'x', b'-', ..]) && SESSION_HEADERS.contains(&header)
        };
        if own.is_none() && !headers.keys().any(is_session) {
            return false;
        }
        let names = own.into_iter().chain(SESSION_HEADERS);
        let value = |name: &str| {
            let value = headers.get(name).filter(|value| !hides(name, value))?;
            value.to_str().ok()
        };
        if let Some(id) = names.filter_map(value).find(|id| !id.trim().is_empty()) {
            self.session = Some(name(id));
        }
        true
    }

    /// Notes the messages of a body, as the client sent it, and the session that it names where no header does. Says
    /// what they are; `None` for a body without, and for one that comes a second time.
    pub fn body<'d>(&mut self, document: &'d JsonDocument) -> Option<Messages<'d>> {
        if self.whole.is_some() {
            return None;
        }
        let outermost = Outermost::of(document);
        let text = |at: &str| {
            let value = document
                .get(at)
                .filter(|value| value.kind() == ValueKind::String)?;
            Some(name(&value.text())).filter(|id| !id.is_empty())
        };
        if self.session.is_none() {
            let named = || SESSION_MEMBERS.iter().find_map(|at| text(at));
            let hidden = || {
                let id = text(USER_ID)?;
                let (_, session) = id.rsplit_once(SESSION_IN_USER_ID)?;
                (!session.is_empty()).then(|| session.into())
            };
            let may_name_one = outermost.may_name_session;
            self.session = may_name_one.then(|| named().or_else(hidden)).flatten();
        }
        if outermost.has_previous {
            self.previous = text("previous_response_id");
        }
        let (list, messages) = outermost.messages()?;
        let mut chain = SEED.build_hasher();
        let read = self.list(&mut chain, list, messages);
        self.whole = Some(chain.finish());
        Some(read)
    }

    /// Messages in the one walk that passes over them.
    fn list<'d>(&mut self, chain: &mut impl Hasher, list: List, messages: Member<'d>) -> Messages<'d> {
        let mut read = Messages::default();
        if let Some(mut elements) = messages.elements() {
            read.users = (list != List::Input).then_some(0);
            while let Some(element) = elements.next_element() {
                let mut said = Said::default();
                let whole = match elements.enter(element, |members| said.read(members)) {
                    Some(((), whole)) => Some(whole),
                    None => elements.pass(element),
                };
                let Some(whole) = whole else { break };
                read.count(list, &said);
                self.message(chain, &said, whole);
            }
        } else if let Some(members) = messages.members() {
            for (_, member) in members {
                self.message(chain, &Said::of(member), member);
            }
        } else {
            // A text alone is one message of the user (Responses).
            self.message(chain, &Said::default(), messages);
        }
        read
    }

    fn message(&mut self, chain: &mut impl Hasher, said: &Said<'_>, whole: Member<'_>) {
        // What stands in front changes from turn to turn with some clients (a date, a list of files).
        if said.role == Role::System {
            return;
        }
        if said.role == Role::Answer {
            self.answer(chain.finish(), whole, &said.body);
        }
        said.role.hash(chain);
        if whole.kind() != ValueKind::Json {
            whole.raw().hash(chain);
        }
        for (key, value) in &said.body {
            key.hash(chain);
            content(chain, *value);
        }
    }

    /// An answer in the history: what is before it was a request, what it called was run for this one.
    fn answer(&mut self, before: u64, message: Member<'_>, body: &[(&str, Member<'_>)]) {
        if self.beginnings.back() != Some(&before) {
            if self.beginnings.len() == MOST_BEGINNINGS {
                self.beginnings.pop_front();
            }
            self.beginnings.push_back(before);
            self.tools.clear();
        }
        let mut called = Vec::new();
        if message
            .get("type")
            .is_some_and(|kind| kind.text().ends_with("_call"))
        {
            called.extend(message.get("name").map(|name| name.text().into_owned()));
        }
        for (_, list) in body {
            let list = list.value();
            for (_, item) in list.entries().filter(|(_, item)| item.is_object()) {
                let found = ["function.name", "functionCall.name"]
                    .iter()
                    .find_map(|at| item.get(at));
                let is_use = || item.get("type").is_some_and(|kind| kind.text() == "tool_use");
                let found = found.or_else(|| item.get("name").filter(|_| is_use()));
                called.extend(found.map(|name| name.text().into_owned()));
            }
        }
        let room = MOST_TOOLS.saturating_sub(self.tools.len());
        self.tools
            .extend(called.into_iter().take(room).map(|tool| name(&tool)));
    }

    fn is_empty(&self) -> bool {
        self.session.is_none() && self.whole.is_none() && self.previous.is_none()
    }
}

/// Who a message says it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    User,
    Other,
    /// It does not say.
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Answer,
    System,
    Other,
}

/// The path to what [`Messages::last`] is.
pub const LAST_CONTENT: &str = "messages.@reverse.0.content";

/// What messages are besides their hash.
#[derive(Debug, Default, Clone, Copy)]
pub struct Messages<'d> {
    /// How many of them are the user's, where that can be told.
    pub users: Option<usize>,
    /// `content` of the last one in `messages`; `None`: it has none, or they are none.
    pub last: Option<Member<'d>>,
}

/// Where messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// `messages`
    Messages,
    /// `contents`, of Gemini.
    Contents,
    /// `input`, of OpenAI's Responses.
    Input,
}

/// What a body says outermost, found in one walk. Of a key that stands twice the last counts.
#[derive(Default)]
struct Outermost<'d> {
    may_name_session: bool,
    has_previous: bool,
    messages: Option<Member<'d>>,
    contents: Option<Member<'d>>,
    input: Option<Member<'d>>,
}

impl<'d> Outermost<'d> {
    fn of(document: &'d JsonDocument) -> Self {
        let mut found = Self::default();
        for (key, value) in document.members() {
            match &*key {
                b"conversation" | b"metadata" => found.may_name_session = true,
                b"previous_response_id" => found.has_previous = true,
                b"messages" => found.messages = Some(value),
                b"contents" => found.contents = Some(value),
                b"input" => found.input = Some(value),
                _ => {}
            }
        }
        found
    }

    fn messages(&self) -> Option<(List, Member<'d>)> {
        let messages = self.messages.map(|list| (List::Messages, list));
        messages
            .or(self.contents.map(|list| (List::Contents, list)))
            .or(self.input.map(|list| (List::Input, list)))
    }
}

impl<'d> Messages<'d> {
    fn count(&mut self, list: List, said: &Said<'d>) {
        // Gemini's questions need no role.
        let is_user =
            said.speaker == Speaker::User || (said.speaker == Speaker::Nobody && list == List::Contents);
        if let Some(users) = &mut self.users {
            *users += usize::from(is_user);
        }
        self.last = said.content.filter(|_| list == List::Messages);
    }
}

/// The members of a message that say something.
struct Said<'d> {
    role: Role,
    speaker: Speaker,
    /// The first `content`.
    content: Option<Member<'d>>,
    body: SmallVec<[(&'static str, Member<'d>); 4]>,
}

impl Default for Said<'_> {
    fn default() -> Self {
        Self {
            role: Role::Other,
            speaker: Speaker::Nobody,
            content: None,
            body: SmallVec::new(),
        }
    }
}

impl<'d> Said<'d> {
    fn of(message: Member<'d>) -> Self {
        let mut said = Self::default();
        if let Some(mut members) = message.members() {
            said.read(&mut members);
        }
        said
    }

    fn read(&mut self, members: &mut path::Members<'d>) {
        for (key, value) in members {
            let Some(key) = known_member(&key) else { continue };
            match key {
                "role" => {
                    (self.role, self.speaker) = match &*word(value) {
                        // Anthropic's and OpenAI's, Gemini's.
                        b"assistant" | b"model" => (Role::Answer, Speaker::Other),
                        b"system" | b"developer" => (Role::System, Speaker::Other),
                        b"user" => (Role::Other, Speaker::User),
                        _ => (Role::Other, Speaker::Other),
                    }
                }
                "type" => {
                    if matches!(
                        &*word(value),
                        b"function_call" | b"reasoning" | b"custom_tool_call"
                    ) {
                        self.role = Role::Answer;
                    }
                }
                "cache_control" => {}
                _ => {
                    if key == "content" {
                        self.content.get_or_insert(value);
                    }
                    self.body.push((key, value));
                }
            }
        }
    }
}

/// A member's text.
fn word(member: Member<'_>) -> Cow<'_, [u8]> {
    match member.plain() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(member.value().text().into_owned().into_bytes()),
    }
}

fn known_member(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"role" => "role",
        b"type" => "type",
        b"content" => "content",
        b"parts" => "parts",
        b"tool_calls" => "tool_calls",
        b"name" => "name",
        b"arguments" => "arguments",
        b"output" => "output",
        b"call_id" => "call_id",
        b"tool_call_id" => "tool_call_id",
        b"cache_control" => "cache_control",
        _ => return None,
    })
}

/// Hashes what is said. A text alone and a list with one block of text are the same; marks for the vendor's cache, which
/// clients move about, count for nothing.
fn content(chain: &mut impl Hasher, value: Member<'_>) {
    if !value.raw().starts_with(b"[") {
        value.raw().hash(chain);
        return;
    }
    for (_, block) in value.value().entries() {
        let is_text = block.is_object() && block.get("type").is_some_and(|kind| kind.text() == "text");
        match block.get("text").filter(|_| is_text) {
            Some(text) => text.raw().as_bytes().hash(chain),
            None if block.is_object() => {
                for (key, member) in block.entries() {
                    let Some(key) = key.filter(|key| key.text() != "cache_control") else {
                        continue;
                    };
                    key.raw().hash(chain);
                    member.raw().hash(chain);
                }
            }
            None => block.raw().as_bytes().hash(chain),
        }
    }
}

/// A short name without control characters, whoever wrote it.
fn name(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(NAME);
    let kept = text.get(..end).unwrap_or_default().trim();
    kept.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use tollgate_base::clock;
    use tollgate_body::path::PathValue;

    use super::*;

    fn turn(body: &str) -> Turn {
        let document = JsonDocument::parse(Bytes::from(body.to_owned())).unwrap();
        let mut turn = Turn::default();
        turn.body(&document);
        turn
    }

    #[test]
    fn messages_of_the_user_are_counted_on_the_way() {
        for (body, users) in [
            (
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"content":"x"},{"role":"assistant","content":"b"},{"content":"c","role":"user"}]}"#,
                Some(2),
            ),
            (
                r#"{"contents":[{"parts":[]},{"role":"model","parts":[]},{"role":"user","parts":[]}]}"#,
                Some(2),
            ),
            (r#"{"messages":[]}"#, Some(0)),
            (r#"{"messages":"none"}"#, None),
            (r#"{"input":[{"role":"user","content":"a"}]}"#, None),
            (r#"{"prompt":"a"}"#, None),
        ] {
            let document = JsonDocument::parse(Bytes::from(body)).unwrap();
            let mut turn = Turn::default();
            let read = turn.body(&document);
            assert_eq!(read.and_then(|messages| messages.users), users, "{body}");
            let is_noted = read.is_some();
            assert_eq!(is_noted, !body.contains("prompt"), "{body}");
            let again = turn.body(&document);
            assert!(again.is_none(), "once more: {body}");
        }
    }

    #[test]
    fn the_last_content_is_what_the_path_leads_to() {
        for (body, last) in [
            (
                r#"{"messages":[{"content":"a"},{"role":"user","content":"b","content":"c"}]}"#,
                Some(r#""b""#),
            ),
            (
                r#"{"messages":[{"content":"a"}],"messages":[{"content":[1]}]}"#,
                Some("[1]"),
            ),
            (r#"{"messages":[{"content":"a"},{"role":"user"}]}"#, None),
            (r#"{"messages":[{"content":"a"},"b"]}"#, None),
            (r#"{"messages":[]}"#, None),
            (r#"{"messages":{"a":{"content":"b"}}}"#, None),
            (r#"{"input":[{"content":"a"}]}"#, None),
        ] {
            let document = JsonDocument::parse(Bytes::from(body)).unwrap();
            let read = Turn::default().body(&document).unwrap();
            let value = read.last.map(Member::value);
            assert_eq!(value.as_ref().map(PathValue::raw), last, "{body}");
            if let Some(found) = value {
                assert_eq!(document.get(LAST_CONTENT), Some(found), "{body}");
            }
        }
    }

    struct Rig(Conversations);

    impl Rig {
        fn ask(&self, request: &str, body: &str) -> Place {
            self.of(request, body, "ann", true)
        }

        fn of(&self, request: &str, body: &str, consumer: &str, answered: bool) -> Place {
            let answer = format!("answer-{request}");
            let asked = Asked {
                consumer: Some(consumer),
                request,
                answer: Some(&answer),
                answered,
            };
            self.0.place(&turn(body), asked).unwrap()
        }
    }

    fn rig() -> Rig {
        Rig(Conversations::default())
    }

    const ONE: &str =
        r#"{"messages":[{"role":"system","content":"It is noon"},{"role":"user","content":"a"}]}"#;
    const TWO: &str = r#"{"model":"x","messages":[{"role":"system","content":"It is one"},{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"weather","arguments":"{}"}},{"id":"2","function":{"name":"time","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"rain"}]}"#;
    const THREE: &str = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"weather","arguments":"{}"}},{"id":"2","function":{"name":"time","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"rain"},{"role":"assistant","content":"it rains"},{"role":"user","content":"b"}]}"#;

    #[test]
    fn turns_are_linked_by_the_history_that_they_repeat() {
        let rig = rig();
        let one = rig.ask("1", ONE);
        assert_eq!((&one.parent, &one.tools, one.opens), (&None, &None, true));
        let two = rig.ask("2", TWO);
        assert_eq!((&two.conversation, two.opens), (&one.conversation, false));
        assert_eq!(
            (two.parent.as_deref(), two.tools.as_deref()),
            (Some("1"), Some("weather,time"))
        );
        let three = rig.ask("3", THREE);
        assert_eq!((three.parent.as_deref(), three.tools), (Some("2"), None));
        assert_eq!(three.conversation, one.conversation);
        // Another answer to the same turn stands beside it.
        assert_eq!(rig.ask("4", THREE).parent.as_deref(), Some("2"));
    }

    #[test]
    fn the_same_first_question_is_a_new_conversation_unless_it_got_no_answer() {
        let rig = rig();
        let failed = rig.of("1", ONE, "ann", false);
        let again = rig.ask("2", ONE);
        assert_eq!(
            (again.conversation.clone(), again.parent),
            (failed.conversation, None)
        );
        assert_ne!(rig.ask("3", ONE).conversation, again.conversation);
    }

    #[test]
    fn ids_of_conversations_grow_with_time() {
        let rig = rig();
        let asked: Vec<_> = (0..20)
            .map(|number| rig.ask(&number.to_string(), ONE).conversation)
            .collect();
        assert!(asked.iter().all(|id| id.len() == "conv-".len() + 19), "{asked:?}");
        let times = asked.iter().map(|id| &id[.."conv-".len() + 11]);
        assert!(times.is_sorted(), "{asked:?}");
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let age = now.as_millis() - u128::try_from(made(&asked[0]).unwrap()).unwrap();
        assert!(
            age < 600_000 && made("s1").is_none() && made("conv-1").is_none(),
            "{age}"
        );
        let different: std::collections::HashSet<_> = asked.iter().collect();
        assert_eq!(different.len(), asked.len());
    }

    #[test]
    fn consumers_never_meet() {
        let rig = rig();
        let ann = rig.ask("1", ONE);
        let bob = rig.of("2", TWO, "bob", true);
        assert!(ann.conversation != bob.conversation && bob.parent.is_none());
    }

    #[test]
    fn a_session_decides_and_its_requests_follow_each_other() {
        let rig = rig();
        for (request, body, parent) in [
            (
                "1",
                r#"{"messages":[{"role":"user","content":"a"}],"metadata":{"user_id":"user_1_account__session_s1"}}"#,
                None,
            ),
            (
                "2",
                r#"{"messages":[{"role":"user","content":"z"}],"metadata":{"session_id":"s1"}}"#,
                Some("1"),
            ),
            ("3", r#"{"input":"x","conversation":{"id":"s1"}}"#, Some("2")),
            ("4", r#"{"input":"y","conversation":"s1"}"#, Some("3")),
        ] {
            let place = rig.ask(request, body);
            assert_eq!(
                (&*place.conversation, place.parent.as_deref()),
                ("s1", parent),
                "{body}"
            );
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-agent-session", "\t s\u{9} 2".parse().unwrap());
        headers.insert("mine", "own".parse().unwrap());
        let mut turn = Turn::default();
        turn.head(&headers, None, |_, _| false);
        assert_eq!(turn.session.as_deref(), Some("s 2"));
        turn.head(&headers, Some("mine"), |_, _| false);
        assert_eq!(turn.session.as_deref(), Some("own"));
        let mut turn = Turn::default();
        turn.head(&headers, Some("mine"), |name, _| name == "mine");
        assert_eq!(turn.session.as_deref(), Some("s 2"));
    }

    #[test]
    fn other_dialects_too() {
        let rig = rig();
        let first = rig.ask("1", r#"{"contents":[{"role":"user","parts":[{"text":"a"}]}]}"#);
        let second = rig.ask("2", r#"{"contents":[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]},{"role":"user","parts":[{"functionResponse":{}}]}]}"#);
        assert_eq!(
            (second.conversation, second.tools.as_deref()),
            (first.conversation, Some("f"))
        );
        let first = rig.ask("3", r#"{"input":[{"role":"user","content":"q"}]}"#);
        let second = rig.ask("4", r#"{"input":[{"role":"user","content":"q"},{"type":"reasoning","id":"r"},{"type":"function_call","call_id":"c","name":"g","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"1"}]}"#);
        assert_eq!(
            (
                second.conversation,
                second.parent.as_deref(),
                second.tools.as_deref()
            ),
            (first.conversation, Some("3"), Some("g"))
        );
        let third = rig.ask("5", r#"{"input":"and?","previous_response_id":"answer-4"}"#);
        assert_eq!(third.parent.as_deref(), Some("4"));
        let claude = rig.ask("6", r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"h","input":{}}]},{"role":"user","content":[]}]}"#);
        assert_eq!(claude.tools.as_deref(), Some("h"));
    }

    #[test]
    fn what_is_no_conversation_has_no_place_and_nonsense_breaks_nothing() {
        let asked = Asked {
            consumer: None,
            request: "1",
            answer: None,
            answered: true,
        };
        for body in [
            "{}",
            "7",
            "[]",
            r#"{"messages":null,"metadata":7}"#,
            r#"{"conversation":"","metadata":{"user_id":"_session_"}}"#,
        ] {
            let place = Conversations::default().place(&turn(body), asked);
            assert!(place.is_none() || body.contains("null"), "{body}: {place:?}");
        }
        for body in [
            r#"{"messages":[null,1,[],{"role":7,"content":{"a":[]}}]}"#,
            r#"{"messages":{"role":"assistant"}}"#,
        ] {
            assert!(
                Conversations::default().place(&turn(body), asked).is_some(),
                "{body}"
            );
        }
    }

    #[test]
    fn memory_is_bounded() {
        let rig = rig();
        for number in 0..40_000 {
            rig.ask(
                &number.to_string(),
                &format!(r#"{{"messages":[{{"role":"user","content":"{number}"}}]}}"#),
            );
        }
        assert_eq!(rig.0.sizes(), (memory::MOST, memory::MOST));
        let long: Vec<_> = (0..200).map(|number| format!(r#"{{"role":"assistant","tool_calls":[{{"function":{{"name":"t"}}}}],"content":"{number}"}}"#)).collect();
        let turn = turn(&format!(r#"{{"messages":[{}]}}"#, long.join(",")));
        assert_eq!((turn.beginnings.len(), turn.tools.len()), (MOST_BEGINNINGS, 1));
    }
}
