//! Whether events are like the last ones but for one string: then nothing but that string is new in them.
//!
//! A vendor writes the same JSON around each piece of its answer. What was looked for in vain in the last event need
//! not be looked for again around a string that cannot be it. Reads bytes, not JSON: a string is what has a quote at
//! either end and none inside.

/// Longest events that are remembered: a stream that waits holds them.
const LENGTH_LIMIT: usize = 1024;
/// Events in a row that may differ before nothing more is remembered of this stream.
const PATIENCE: u8 = 16;
/// Of events that came together, so many are remembered in turn: the first of a stream is unlike the others.
const LESSONS: usize = 3;
/// So many bytes are compared at once.
const STEP: usize = 16;

/// The events that were looked through last, and what they have in common with those before.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    last: Vec<u8>,
    /// So much of the beginning of `last`, the quote at its end included; 0 while nothing is known.
    before: usize,
    /// So much of its end, from a quote on.
    after: usize,
    /// Events that differed since some were alike.
    misses: u8,
}

impl Alike {
    /// What is left of `events` behind those that are like the last. `passes` is shown the inside of the string in which
    /// each differs, which has no bracket in it, and may want the event looked through all the same.
    pub(crate) fn skip<'e>(&mut self, mut events: &'e [u8], passes: impl Fn(&[u8]) -> bool) -> &'e [u8] {
        while !events.is_empty()
            && let Some((new, rest)) = self.first(events)
            && passes(new)
        {
            self.misses = 0;
            events = rest;
        }
        events
    }

    /// The only string in which the first of `events` differs, and what follows that event.
    fn first<'e>(&self, events: &'e [u8]) -> Option<(&'e [u8], &'e [u8])> {
        let before = self.last.get(..self.before).filter(|before| !before.is_empty())?;
        let after = self.last.get(self.last.len() - self.after..)?;
        let string = events.strip_prefix(before)?;
        let (inside, behind) = string.split_at(memchr::memchr2(b'"', b'[', string)?);
        Some((inside, behind.strip_prefix(after)?))
    }

    /// Remembers the first of some events in which nothing was found. `settled` tells how much of a beginning others may
    /// have in common with it, in which nothing is to be found there either, whatever follows it.
    pub(crate) fn learn(&mut self, mut events: &[u8], settled: impl Fn(&[u8]) -> usize) {
        for _ in 0..LESSONS {
            (self.before, self.after) = (0, 0);
            if self.misses >= PATIENCE {
                return;
            }
            let end = memchr::memmem::find(events, b"\n\n").map_or(events.len(), |at| at + 2);
            let (event, rest) = events.split_at(end);
            self.learn_one(event, &settled);
            events = rest;
            if events.is_empty() || self.first(events).is_some() {
                return;
            }
        }
    }

    fn learn_one(&mut self, event: &[u8], settled: impl Fn(&[u8]) -> usize) {
        let is_whole = matches!(event.last(), Some(b'\n' | b'\r')) && settled(event) == event.len();
        if !is_whole || event.len() > LENGTH_LIMIT {
            return;
        }
        self.misses += 1;
        let before = opening(&event[..common(&self.last, event)], settled);
        let most = self.last.len().min(event.len()) - before;
        let closing = &event[event.len() - common_at_end(&self.last, event).min(most)..];
        if let Some(quote) = memchr::memchr(b'"', closing) {
            (self.before, self.after) = (before, closing.len() - quote);
        }
        self.last.clear();
        self.last.extend_from_slice(event);
    }
}

/// How much of `start` ends with a quote and is settled.
fn opening(mut start: &[u8], settled: impl Fn(&[u8]) -> usize) -> usize {
    loop {
        let end = memchr::memrchr(b'"', start).map_or(0, |quote| quote + 1);
        let length = settled(&start[..end]);
        if length == end {
            return end;
        }
        start = &start[..length];
    }
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let steps = one.chunks_exact(STEP).zip(other.chunks_exact(STEP));
    let same = steps.take_while(|(one, other)| one == other).count() * STEP;
    let rest = one[same..].iter().zip(&other[same..]);
    same + rest.take_while(|(one, other)| one == other).count()
}

/// How many bytes both end with.
fn common_at_end(one: &[u8], other: &[u8]) -> usize {
    let steps = one.rchunks_exact(STEP).zip(other.rchunks_exact(STEP));
    let same = steps.take_while(|(one, other)| one == other).count() * STEP;
    let rest = one[..one.len() - same]
        .iter()
        .rev()
        .zip(other[..other.len() - same].iter().rev());
    same + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(events: &[&str]) -> Alike {
        let mut alike = Alike::default();
        events
            .iter()
            .for_each(|event| alike.learn(event.as_bytes(), <[u8]>::len));
        alike
    }

    /// Whether all of it is like what was learnt, and the strings that are new in it.
    fn new_in(alike: &mut Alike, events: &str) -> (bool, Vec<String>) {
        let new = std::cell::RefCell::default();
        let rest = alike.skip(events.as_bytes(), |string| {
            let text = String::from_utf8_lossy(string).into_owned();
            Vec::push(&mut new.borrow_mut(), text);
            true
        });
        (rest.is_empty(), new.into_inner())
    }

    #[test]
    fn one_string_may_differ() {
        let event = |text: &str| format!("data: {{\"n\":1,\"text\":\"{text}\",\"end\":null}}\n\n");
        let mut alike = learnt(&[&event("abc"), &event("ax")]);
        for text in ["", "a", "anything"] {
            assert_eq!(new_in(&mut alike, &event(text)), (true, vec![text.to_owned()]));
        }
        let several = event("one") + &event("two");
        assert_eq!(
            new_in(&mut alike, &several),
            (true, vec!["one".to_owned(), "two".to_owned()])
        );
        let other = several + &event("three").replace("null", "true");
        assert_eq!(
            new_in(&mut alike, &other),
            (false, vec!["one".to_owned(), "two".to_owned()])
        );
        for other in [
            event("a\\\""),
            event("[DONE]"),
            event("a\",\"more\":\"b"),
            event("a").replace('1', "2"),
            event("a").replace("null", "\"stop\""),
            event("a").replace("\n\n", "\n"),
        ] {
            assert_eq!(new_in(&mut alike, &other), (false, Vec::new()), "{other}");
        }
        assert_eq!(
            alike.skip(event("a").as_bytes(), |_| false),
            event("a").as_bytes()
        );
    }

    #[test]
    fn what_two_events_share_is_not_shared_twice() {
        for events in [
            ["\"a\"\n", "\"aa\"\n"],
            ["\"\"\n", "\"\"\"\"\n"],
            ["\"\n", "\"\n"],
            ["\n", "\n"],
            ["", ""],
            ["\"ab\"ab\"\n", "\"ab\"\n"],
        ] {
            let mut alike = learnt(&events);
            assert!(alike.before + alike.after <= events[1].len(), "{events:?}");
            // They may be alike or not, but nothing is read past an end.
            events.iter().for_each(|event| drop(new_in(&mut alike, event)));
        }
        assert!(!new_in(&mut learnt(&["abc\n", "abd\n"]), "abe\n").0);
    }

    #[test]
    fn long_events_and_streams_without_a_pattern_are_given_up() {
        let long = format!("\"{}\"\n", "x".repeat(LENGTH_LIMIT));
        assert!(new_in(&mut learnt(&["\"a\"\n", "\"b\"\n"]), "\"c\"\n").0);
        assert!(!new_in(&mut learnt(&["\"a\"\n", "\"b\"\n", &long]), "\"c\"\n").0);
        assert!(
            !new_in(&mut learnt(&["\"a\"", "\"b\""]), "\"c\"").0,
            "half events"
        );
        let mut alike = learnt(&["\"a\"\n", "\"b\"\n"]);
        (0..=PATIENCE).for_each(|_| alike.learn(b"\"d\"\n", <[u8]>::len));
        assert!(!new_in(&mut alike, "\"c\"\n").0);
    }
}
