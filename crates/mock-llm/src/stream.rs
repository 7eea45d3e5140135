//! Plays an answer as a stream of events, with everything that the plan says should go wrong.
//!
//! `Steps` cuts the answer into moments (opening, a token, a piece of a tool's arguments, the end), a dialect's
//! `Encoder` turns each moment into events, and the `Player` sends their bytes at the wanted pace, cut, packed,
//! stalled or ended as ordered. Events are made one at a time: a long answer costs no memory in advance.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;

use crate::answer::{Answer, Usage};
use crate::connection::{Control, Ending};
use crate::plan::{CutAs, Packing, Phase, Place, Plan, UsageMode};
use crate::squeeze::Squeeze;
use crate::tokens;

/// One event as its lines, without their ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) lines: Vec<String>,
}

impl Event {
    /// `data: …`
    pub(crate) fn data(data: impl std::fmt::Display) -> Self {
        Self {
            lines: vec![format!("data: {data}")],
        }
    }

    /// `event: …` and `data: …`
    pub(crate) fn named(name: &str, data: impl std::fmt::Display) -> Self {
        Self {
            lines: vec![format!("event: {name}"), format!("data: {data}")],
        }
    }

    /// `: …`
    pub(crate) fn comment(text: &str) -> Self {
        Self {
            lines: vec![format!(": {text}")],
        }
    }
}

/// One moment of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Open,
    Reasoning(&'a str),
    Text(&'a str),
    /// The call with this number begins.
    Call(usize),
    /// A piece of the arguments of the call with this number.
    Arguments(usize, &'a str),
    Finish,
    /// The usage by itself, where the dialect has an event for it.
    Usage,
    Done,
}

/// What an encoder must know besides the answer and the step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) mode: UsageMode,
    /// The usage to put on this step's events, for the modes that want one.
    pub(crate) usage: Option<Usage>,
}

/// A dialect's way to write a stream.
pub(crate) trait Encoder: Send {
    /// The events of one step; none where the dialect has nothing to say.
    fn encode(&mut self, answer: &Answer, step: Step<'_>, moment: Moment, events: &mut Vec<Event>);
    /// An error in mid-stream.
    fn error(&mut self, answer: &Answer, status: StatusCode) -> Event;
    /// The line end that the vendor uses.
    fn line_end(&self) -> &'static str {
        "\n"
    }
}

/// How many bytes of arguments one event carries.
const ARGUMENTS_PIECE: usize = 8;

fn arguments_piece(text: &str) -> usize {
    let mut end = text.len().min(ARGUMENTS_PIECE);
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

/// Where the player is in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    Reasoning(usize),
    Text(usize),
    Call(usize),
    Arguments(usize, usize),
    Finish,
    Usage,
    Done,
    Over,
}

fn next_step(answer: &Answer, at: At) -> (Option<Step<'_>>, At) {
    match at {
        At::Open => (Some(Step::Open), At::Reasoning(0)),
        At::Reasoning(from) => match tokens::piece_length(&answer.reasoning[from..]) {
            Some(length) => (
                Some(Step::Reasoning(&answer.reasoning[from..from + length])),
                At::Reasoning(from + length),
            ),
            None => next_step(answer, At::Text(0)),
        },
        At::Text(from) => match tokens::piece_length(&answer.text[from..]) {
            Some(length) => (
                Some(Step::Text(&answer.text[from..from + length])),
                At::Text(from + length),
            ),
            None => next_step(answer, At::Call(0)),
        },
        At::Call(number) if number < answer.calls.len() => {
            (Some(Step::Call(number)), At::Arguments(number, 0))
        }
        At::Call(_) => next_step(answer, At::Finish),
        At::Arguments(number, from) => {
            let rest = &answer.calls[number].arguments[from..];
            if rest.is_empty() {
                return next_step(answer, At::Call(number + 1));
            }
            let end = arguments_piece(rest);
            (
                Some(Step::Arguments(number, &rest[..end])),
                At::Arguments(number, from + end),
            )
        }
        At::Finish => (Some(Step::Finish), At::Usage),
        At::Usage => (Some(Step::Usage), At::Done),
        At::Done => (Some(Step::Done), At::Over),
        At::Over => (None, At::Over),
    }
}

/// What a player does next.
pub(crate) enum Act {
    Write(Bytes),
    /// Lets hyper write out what it has.
    Flush,
    /// Waits for the next beat of the pace.
    Beat,
    Pause(Duration),
    Inject(Bytes),
    End(Ending),
    Fail,
    Trailers,
}

/// An error that makes hyper break the body off.
#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the script breaks this answer off")
    }
}

impl std::error::Error for Broken {}

/// A stream in progress.
pub(crate) struct Player {
    answer: Arc<Answer>,
    encoder: Box<dyn Encoder>,
    plan: Plan,
    pace: Duration,
    control: Arc<Control>,
    at: At,
    acts: VecDeque<Act>,
    squeeze: Squeeze,
    packed: BytesMut,
    packed_events: usize,
    /// How many events carried a token or a piece of arguments so far.
    contents: usize,
    completion: usize,
    beat: Option<tokio::time::Instant>,
    /// Whether the plan ends the stream before its time.
    broken: bool,
    /// Set when it has done so.
    pub(crate) scripted: Arc<AtomicBool>,
}

impl Player {
    pub(crate) fn new(
        answer: Answer,
        encoder: Box<dyn Encoder>,
        plan: Plan,
        pace: Duration,
        control: Arc<Control>,
    ) -> Self {
        let mut player = Self {
            squeeze: Squeeze::new(plan.encoding),
            pace: plan.pace.unwrap_or(pace),
            answer: Arc::new(answer),
            encoder,
            plan,
            control,
            at: At::Open,
            acts: VecDeque::new(),
            packed: BytesMut::new(),
            packed_events: 0,
            contents: 0,
            completion: 0,
            beat: None,
            broken: false,
            scripted: Arc::default(),
        };
        if let Some((Phase::First, pause)) = player.plan.stall {
            player.acts.push_back(Act::Flush);
            player.acts.push_back(Act::Pause(pause));
        }
        if player.plan.stream.byte_order_mark {
            player
                .acts
                .push_back(Act::Write(Bytes::from_static(b"\xef\xbb\xbf")));
        }
        player
    }

    /// A player that only acts.
    pub(crate) fn of_acts(acts: VecDeque<Act>, control: Arc<Control>) -> Self {
        struct Silent;
        impl Encoder for Silent {
            fn encode(&mut self, _: &Answer, _: Step<'_>, _: Moment, _: &mut Vec<Event>) {}
            fn error(&mut self, _: &Answer, _: StatusCode) -> Event {
                Event::default()
            }
        }
        let mut player = Self::new(
            Answer::default(),
            Box::new(Silent),
            Plan::default(),
            Duration::ZERO,
            control,
        );
        player.acts = acts;
        player.at = At::Over;
        player
    }

    /// The next frame; `None` is the body's clean end.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        loop {
            let Some(act) = self.acts.pop_front() else {
                if self.at == At::Over {
                    self.scripted.store(self.broken, Ordering::Relaxed);
                    return None;
                }
                self.advance();
                continue;
            };
            match act {
                Act::Write(bytes) if bytes.is_empty() => {}
                Act::Write(bytes) => return Some(Ok(Frame::data(bytes))),
                Act::Flush => tokio::task::yield_now().await,
                Act::Beat => self.wait_for_beat().await,
                Act::Pause(pause) => tokio::time::sleep(pause).await,
                Act::Inject(raw) => {
                    tokio::task::yield_now().await;
                    self.control.inject(raw);
                    tokio::task::yield_now().await;
                }
                Act::End(ending) => {
                    self.scripted.store(true, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    self.control.end(ending);
                    std::future::pending::<()>().await;
                }
                Act::Fail => {
                    self.scripted.store(true, Ordering::Relaxed);
                    // h2 drops what it has not sent yet when a stream is reset: let the connection write first.
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    return Some(Err(Broken));
                }
                Act::Trailers => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-mock-trailer", HeaderValue::from_static("the end"));
                    return Some(Ok(Frame::trailers(trailers)));
                }
            }
        }
    }

    async fn wait_for_beat(&mut self) {
        let beat = self.beat.unwrap_or_else(tollgate_base::clock::now) + self.pace;
        self.beat = Some(beat);
        tokio::time::sleep_until(beat).await;
    }

    /// Fills `acts` with what the next step causes.
    fn advance(&mut self) {
        if let Some(every) = self.plan.stream.keep_alive_only {
            self.send(vec![Event::comment("keep-alive")], false);
            self.acts.push_back(Act::Pause(every));
            return;
        }
        let answer = Arc::clone(&self.answer);
        let (step, at) = next_step(&answer, self.at);
        self.at = at;
        if let Some(step) = step {
            self.play(&answer, step);
        }
        if self.at == At::Over && !self.broken {
            self.close();
        }
    }

    fn play(&mut self, answer: &Answer, step: Step<'_>) {
        let content = matches!(step, Step::Reasoning(_) | Step::Text(_) | Step::Arguments(..));
        if content || matches!(step, Step::Finish) {
            self.strike(answer);
        }
        if self.broken {
            return;
        }
        let events = self.events(answer, step, content);
        if content {
            self.contents += 1;
            if self.contents > 1 && self.pace > Duration::ZERO {
                self.acts.push_back(Act::Beat);
            } else {
                self.beat = None;
            }
        }
        self.send(events, content && self.cuts_inside(step));
    }

    /// The events of a step, with those that the plan adds.
    fn events(&mut self, answer: &Answer, step: Step<'_>, content: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let stream = self.plan.stream;
        if content && stream.malformed == Some(self.contents) {
            events.push(Event::data("{\"choices\":[{\"delta\":{\"content\":"));
        }
        if stream.unknown_events && matches!(step, Step::Open | Step::Finish) {
            events.push(Event::named(
                "mock.unknown",
                "{\"type\":\"mock.unknown\",\"note\":\"未知\"}",
            ));
            events.push(Event {
                lines: vec!["retry: 1500".into(), "nonsense".into(), "id: 7".into()],
            });
        }
        let own = match step {
            Step::Reasoning(text) | Step::Text(text) => tokens::count(text) * answer.choices,
            Step::Arguments(_, text) => tokens::count(text) * answer.choices,
            _ => 0,
        };
        self.completion += own;
        let usage = match stream.usage {
            UsageMode::Cumulative => Some(Usage {
                completion: self.completion.min(answer.usage.completion),
                ..answer.usage
            }),
            UsageMode::PerEvent => Some(Usage {
                prompt: if step == Step::Open {
                    answer.usage.prompt
                } else {
                    0
                },
                completion: own,
                ..Usage::default()
            }),
            UsageMode::AsAsked | UsageMode::AfterDone | UsageMode::InChoice => Some(answer.usage),
            UsageMode::Absent | UsageMode::Null => None,
        };
        let moment = Moment {
            mode: stream.usage,
            usage,
        };
        match (step, stream.usage, stream.done) {
            (Step::Usage, UsageMode::AfterDone, _) => {}
            (Step::Done, mode, done) => {
                for _ in 0..done.unwrap_or(1) {
                    self.encoder.encode(answer, step, moment, &mut events);
                }
                if mode == UsageMode::AfterDone {
                    self.encoder.encode(answer, Step::Usage, moment, &mut events);
                }
            }
            (Step::Text(_), ..) if self.contents == 0 && stream.big_event.is_some() => {
                let big = "x".repeat(stream.big_event.unwrap_or(0));
                self.encoder.encode(answer, Step::Text(&big), moment, &mut events);
                self.encoder.encode(answer, step, moment, &mut events);
            }
            _ => self.encoder.encode(answer, step, moment, &mut events),
        }
        if stream.keep_alive_between {
            events = events
                .into_iter()
                .flat_map(|event| [Event::comment("keep-alive"), event])
                .collect();
        }
        events
    }

    /// What the plan does between two content events, or before the finish if there are too few.
    fn strike(&mut self, answer: &Answer) {
        let over = self.at == At::Usage;
        let due = |after: usize| self.contents == after || (over && self.contents < after);
        if let Some((Phase::Between(after), pause)) = self.plan.stall
            && due(after)
        {
            self.acts.push_back(Act::Flush);
            self.acts.push_back(Act::Pause(pause));
        }
        if let Some((after, with_error)) = self.plan.stream.goaway
            && due(after)
        {
            self.acts.push_back(Act::Inject(goaway(with_error)));
            if with_error {
                self.breaks(Act::End(Ending::Close));
                return;
            }
        }
        if let Some((after, status)) = self.plan.stream.error_event
            && due(after)
        {
            let event = self.encoder.error(answer, status);
            self.send(vec![event], false);
            self.at = At::Over;
            self.broken = true;
            self.close();
            return;
        }
        let Some(cut) = self.plan.stream.cut else {
            return;
        };
        let between = matches!(cut.place, Place::AfterEvent | Place::InArguments);
        // An answer that offers no fitting place is cut at its end: a cut that was ordered always happens.
        if over || (between && due(cut.after)) {
            self.cut(cut.cut_as);
        }
    }

    fn breaks(&mut self, act: Act) {
        self.flush_packed();
        self.acts.push_back(Act::Flush);
        self.acts.push_back(act);
        self.broken = true;
        self.at = At::Over;
    }

    fn cut(&mut self, cut_as: CutAs) {
        match cut_as {
            CutAs::Connection(ending) => self.breaks(Act::End(ending)),
            CutAs::Stream => self.breaks(Act::Fail),
            CutAs::End => {
                self.at = At::Over;
                self.broken = true;
                self.close();
            }
        }
    }

    fn cuts_inside(&self, step: Step<'_>) -> bool {
        let Some(cut) = self.plan.stream.cut else {
            return false;
        };
        match (cut.place, step) {
            (Place::InField(_), _) => self.contents > cut.after,
            (Place::InCharacter, Step::Text(text) | Step::Reasoning(text) | Step::Arguments(_, text)) => {
                self.contents > cut.after && !text.is_ascii()
            }
            _ => false,
        }
    }

    /// Queues events; with `cut` only the first part of the last one's bytes, and then the cut.
    fn send(&mut self, events: Vec<Event>, cut: bool) {
        let line_end = self
            .plan
            .stream
            .line_end
            .unwrap_or_else(|| self.encoder.line_end());
        let last = events.len().saturating_sub(1);
        for (number, event) in events.into_iter().enumerate() {
            let mut bytes = BytesMut::new();
            for line in &event.lines {
                bytes.put_slice(line.as_bytes());
                bytes.put_slice(line_end.as_bytes());
            }
            bytes.put_slice(line_end.as_bytes());
            if cut && number == last {
                self.cut_within(&bytes);
                return;
            }
            self.pack(bytes.freeze());
        }
    }

    fn cut_within(&mut self, bytes: &[u8]) {
        let Some(cut) = self.plan.stream.cut else {
            return;
        };
        let end = match cut.place {
            // The first byte of the first character that has more than one.
            Place::InCharacter => bytes
                .iter()
                .position(|byte| !byte.is_ascii())
                .map_or(bytes.len(), |at| at + 1),
            Place::InField(at) => {
                let field = bytes
                    .windows(5)
                    .position(|window| window == b"data:")
                    .unwrap_or(0);
                (field + at).min(bytes.len())
            }
            Place::AfterEvent | Place::InArguments => bytes.len(),
        };
        self.pack(Bytes::copy_from_slice(&bytes[..end]));
        self.flush_packed();
        self.cut(cut.cut_as);
    }

    fn pack(&mut self, bytes: Bytes) {
        match self.plan.stream.packing {
            Packing::EventPerFrame => {
                let pressed = self.squeeze.press(bytes);
                self.acts.push_back(Act::Write(pressed));
                self.acts.push_back(Act::Flush);
            }
            Packing::Bytes(size) => {
                let mut pressed = self.squeeze.press(bytes);
                while !pressed.is_empty() {
                    let part = pressed.split_to(pressed.len().min(size.max(1)));
                    self.acts.push_back(Act::Write(part));
                    self.acts.push_back(Act::Flush);
                }
            }
            Packing::Events(events) => {
                self.packed.put_slice(&bytes);
                self.packed_events += 1;
                if self.packed_events >= events {
                    self.flush_packed();
                }
            }
        }
    }

    fn flush_packed(&mut self) {
        self.packed_events = 0;
        let packed = self.packed.split().freeze();
        if packed.is_empty() {
            return;
        }
        let pressed = self.squeeze.press(packed);
        self.acts.push_back(Act::Write(pressed));
        self.acts.push_back(Act::Flush);
    }

    /// What follows the last event.
    fn close(&mut self) {
        self.flush_packed();
        let rest = self.squeeze.finish();
        self.acts.push_back(Act::Write(rest));
        if self.plan.stream.trailers {
            self.acts.push_back(Act::Trailers);
        }
        if self.plan.without_close_notify {
            self.acts.push_back(Act::Flush);
        }
    }
}

/// A GOAWAY frame (RFC 9113 §6.8). The gentle one names the highest stream id, as a server that stops does first.
fn goaway(with_error: bool) -> Bytes {
    let (last_stream, code): (u32, u32) = if with_error { (0, 0xb) } else { (0x7fff_ffff, 0) };
    let mut frame = BytesMut::with_capacity(17);
    frame.put_slice(&[0, 0, 8, 7, 0, 0, 0, 0, 0]);
    frame.put_u32(last_stream);
    frame.put_u32(code);
    frame.freeze()
}
