//! A plain answer kept for reading while it passes: all of it up to a bound, of a longer one its two ends.

use bytes::Bytes;
use memchr::memmem;

/// Bytes of an answer that are kept as a whole, unless less is asked for.
const WHOLE_LIMIT: usize = 16 * 1024 * 1024;
/// Bytes kept of either end of a longer one; usage stands near the end.
const END_LIMIT: usize = 64 * 1024;

/// Frames that are shorter than this are put together: each by itself would cost more than it holds.
const SMALL: usize = 4096;

/// What is kept.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Bytes that are kept of an answer as a whole.
    limit: usize,
    frames: Vec<Bytes>,
    /// Small ones behind those.
    gathered: Vec<u8>,
    length: usize,
    /// The last bytes of an answer that is too long.
    tail: Option<Vec<u8>>,
}

impl Default for Whole {
    fn default() -> Self {
        Self::with_limit(WHOLE_LIMIT)
    }
}

impl Whole {
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            frames: Vec::new(),
            gathered: Vec::new(),
            length: 0,
            tail: None,
        }
    }

    pub(crate) fn push(&mut self, data: &Bytes) {
        self.length += data.len();
        if let Some(tail) = &mut self.tail {
            keep_end(tail, data);
            return;
        }
        self.keep(data);
        if self.length <= self.limit {
            return;
        }
        self.close();
        let mut tail = Vec::with_capacity(2 * END_LIMIT);
        for frame in &self.frames {
            keep_end(&mut tail, frame);
        }
        let head = joined(&self.frames, END_LIMIT);
        self.frames = vec![head];
        self.tail = Some(tail);
    }

    fn keep(&mut self, data: &Bytes) {
        // The only one of most answers stays where it lies.
        let is_first = self.frames.is_empty() && self.gathered.is_empty();
        if self.gathered.len() + data.len() > SMALL {
            self.close();
        }
        match is_first || data.len() >= SMALL {
            true => self.frames.push(data.clone()),
            false => self.gathered.extend_from_slice(data),
        }
    }

    /// What is gathered becomes a frame.
    fn close(&mut self) {
        if !self.gathered.is_empty() {
            self.frames.push(std::mem::take(&mut self.gathered).into());
        }
    }

    /// The answer, or its beginning.
    pub(crate) fn text(&mut self) -> Bytes {
        self.close();
        match self.frames.as_slice() {
            [only] => only.clone(),
            frames => joined(frames, self.limit.max(END_LIMIT)),
        }
    }

    /// A stand-in for the usage at the end of an answer that is too long: an object of its last members.
    pub(crate) fn usage_at_end(&self) -> Option<Vec<u8>> {
        let tail = self.tail.as_deref()?;
        let at = memmem::rfind(tail, b"\"usage\"").or_else(|| memmem::rfind(tail, b"\"usageMetadata\""))?;
        Some([b"{", tail.get(at..)?].concat())
    }
}

fn keep_end(tail: &mut Vec<u8>, data: &[u8]) {
    let last = data.len().saturating_sub(END_LIMIT);
    tail.extend_from_slice(data.get(last..).unwrap_or_default());
    if tail.len() > 2 * END_LIMIT {
        let surplus = tail.len() - END_LIMIT;
        tail.drain(..surplus);
    }
}

fn joined(frames: &[Bytes], limit: usize) -> Bytes {
    let mut all = Vec::with_capacity(frames.iter().map(Bytes::len).sum::<usize>().min(limit));
    for frame in frames {
        let room = limit.saturating_sub(all.len()).min(frame.len());
        all.extend_from_slice(frame.get(..room).unwrap_or_default());
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_keeps_its_ends() {
        let mut whole = Whole::default();
        whole.push(&Bytes::from_static(b"{\"model\":\"m\",\"data\":["));
        let frame = Bytes::from(vec![b'1'; 1024 * 1024]);
        for _ in 0..100 {
            whole.push(&frame);
        }
        whole.push(&Bytes::from_static(b"],\"usage\":{\"prompt_"));
        whole.push(&Bytes::from_static(b"tokens\":5}}"));
        assert!(whole.text().starts_with(b"{\"model\":\"m\""));
        assert_eq!(
            whole.usage_at_end().unwrap(),
            b"{\"usage\":{\"prompt_tokens\":5}}"
        );
        let kept: usize = whole.frames.iter().map(Bytes::len).sum::<usize>() + whole.tail.unwrap().len();
        assert!(kept <= 3 * END_LIMIT, "{kept}");
    }

    #[test]
    fn less_is_kept_where_less_is_asked_for() {
        let mut whole = Whole::with_limit(100_000);
        for _ in 0..10 {
            whole.push(&Bytes::from(vec![b'1'; 50_000]));
        }
        whole.push(&Bytes::from_static(b"\"usage\":{\"total_tokens\":5}}"));
        assert_eq!(whole.text().len(), END_LIMIT);
        assert_eq!(whole.usage_at_end().unwrap(), b"{\"usage\":{\"total_tokens\":5}}");
    }

    #[test]
    fn small_frames_cost_no_more_than_their_bytes() {
        let mut whole = Whole::default();
        for _ in 0..100_000 {
            whole.push(&Bytes::from_static(b"x"));
        }
        assert!(
            whole.frames.len() <= 100_000 / SMALL + 1,
            "{}",
            whole.frames.len()
        );
        assert_eq!(whole.text(), vec![b'x'; 100_000]);
        let large = Bytes::from(vec![b'y'; SMALL]);
        whole.push(&large);
        whole.push(&Bytes::from_static(b"z"));
        assert_eq!(whole.text().len(), 100_001 + SMALL);
        assert!(whole.text().ends_with(b"yz"));
    }

    #[test]
    fn a_short_answer_is_kept_as_it_is() {
        let mut whole = Whole::default();
        let only = Bytes::from_static(b"{}");
        whole.push(&only);
        assert_eq!(whole.text().as_ptr(), only.as_ptr());
        whole.push(&Bytes::from_static(b"x"));
        assert_eq!(whole.text(), "{}x");
        assert_eq!(whole.usage_at_end(), None);
        assert_eq!(Whole::default().text(), "");
    }
}
