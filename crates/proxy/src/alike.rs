//! Whether events are like the last ones but for one string: then nothing but that string is new in them.
//!
//! A vendor writes the same JSON around each piece of its answer. What was looked for in vain in the last event need
//! not be looked for again around a string that cannot be it. Reads bytes, not JSON: a string is what has a quote at
//! either end and none inside.

/// Longest events that are remembered: a stream that waits holds them.
const LENGTH_LIMIT: usize = 1024;
/// Events in a row that may differ before nothing more is remembered of this stream.
const PATIENCE: u8 = 16;
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
    /// The inside of the only string in which `events` differ from those before; there is no bracket in it.
    pub(crate) fn only_new<'e>(&mut self, events: &'e [u8]) -> Option<&'e [u8]> {
        let before = self.last.get(..self.before).filter(|before| !before.is_empty())?;
        let after = self.last.get(self.last.len() - self.after..)?;
        let inside = events.strip_prefix(before)?.strip_suffix(after)?;
        if memchr::memchr2(b'"', b'[', inside).is_some() {
            return None;
        }
        self.misses = 0;
        Some(inside)
    }

    /// Remembers events in which nothing was found. `settled` tells how much of their beginning they may have in common
    /// with others in which nothing is to be found there either, whatever follows it.
    pub(crate) fn learn(&mut self, events: &[u8], settled: impl Fn(&[u8]) -> usize) {
        (self.before, self.after) = (0, 0);
        if self.misses >= PATIENCE || events.len() > LENGTH_LIMIT {
            return;
        }
        self.misses += 1;
        let before = opening(&events[..common(&self.last, events)], settled);
        let most = self.last.len().min(events.len()) - before;
        let closing = &events[events.len() - common_at_end(&self.last, events).min(most)..];
        if let Some(quote) = memchr::memchr(b'"', closing) {
            (self.before, self.after) = (before, closing.len() - quote);
        }
        self.last.clear();
        self.last.extend_from_slice(events);
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

    #[test]
    fn one_string_may_differ() {
        let mut alike = learnt(&[
            r#"{"n":1,"text":"abc","end":null}"#,
            r#"{"n":1,"text":"ax","end":null}"#,
        ]);
        let mut new = |event: &'static str| alike.only_new(event.as_bytes());
        assert_eq!(new(r#"{"n":1,"text":"","end":null}"#), Some(&b""[..]));
        assert_eq!(new(r#"{"n":1,"text":"a","end":null}"#), Some(&b"a"[..]));
        assert_eq!(
            new(r#"{"n":1,"text":"anything","end":null}"#),
            Some(&b"anything"[..])
        );
        for other in [
            r#"{"n":1,"text":"a\"","end":null}"#,
            r#"{"n":1,"text":"[DONE]","end":null}"#,
            r#"{"n":1,"text":"a","more":"b","end":null}"#,
            r#"{"n":2,"text":"a","end":null}"#,
            r#"{"n":1,"text":"a","end":"stop"}"#,
            r#"{"n":1,"text":","end":null}"#,
            "",
        ] {
            assert_eq!(new(other), None, "{other}");
        }
    }

    #[test]
    fn what_two_events_share_is_not_shared_twice() {
        for events in [
            ["\"a\"", "\"aa\""],
            ["\"\"", "\"\"\"\""],
            ["\"", "\""],
            ["", ""],
            ["\"ab\"ab\"", "\"ab\""],
        ] {
            let mut alike = learnt(&events);
            assert!(alike.before + alike.after <= events[1].len(), "{events:?}");
            for event in events {
                // It may be alike or not, but nothing is read past an end.
                let _ = alike.only_new(event.as_bytes());
            }
        }
        assert!(learnt(&["abc", "abd"]).only_new(b"abe").is_none());
    }

    #[test]
    fn long_events_and_streams_without_a_pattern_are_given_up() {
        let long = format!("\"{}\"", "x".repeat(LENGTH_LIMIT));
        let mut alike = learnt(&["\"a\"", "\"b\"", &long]);
        assert_eq!(alike.only_new(b"\"c\""), None);
        let mut alike = learnt(&["\"a\"", "\"b\""]);
        assert!(alike.only_new(b"\"c\"").is_some());
        (0..=PATIENCE).for_each(|_| alike.learn(b"\"d\"", <[u8]>::len));
        assert_eq!(alike.only_new(b"\"c\""), None);
    }
}
