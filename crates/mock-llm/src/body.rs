//! The answer on its way out: a whole body, a played stream or a row of frames, always with the guard that
//! records how the exchange ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::{Frame, SizeHint};

use crate::record::{End, Guard};
use crate::stream::{Act, Broken, Player};

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Broken>> + Send>>;

enum Source {
    Whole(Bytes),
    Frames(Frames),
    Over,
}

/// The body of every answer.
pub(crate) struct Body {
    source: Source,
    /// None where something else settles the exchange (an upgraded connection).
    guard: Option<Guard>,
    scripted: Arc<AtomicBool>,
}

impl Body {
    pub(crate) fn whole(bytes: Bytes, guard: Guard) -> Self {
        let source = if bytes.is_empty() {
            Source::Over
        } else {
            Source::Whole(bytes)
        };
        let mut body = Self {
            source,
            guard: Some(guard),
            scripted: Arc::default(),
        };
        if matches!(body.source, Source::Over) {
            body.over();
        }
        body
    }

    pub(crate) fn played(player: Player, guard: Guard) -> Self {
        let scripted = Arc::clone(&player.scripted);
        let frames = stream::unfold(player, async |mut player| {
            let frame = player.next().await?;
            Some((frame, player))
        });
        Self {
            source: Source::Frames(Box::pin(frames)),
            guard: Some(guard),
            scripted,
        }
    }

    /// Frames made by hand, for deformed whole answers.
    pub(crate) fn acted(acts: VecDeque<Act>, control: Arc<crate::connection::Control>, guard: Guard) -> Self {
        Self::played(Player::of_acts(acts, control), guard)
    }

    pub(crate) fn frames(
        frames: impl Stream<Item = Result<Frame<Bytes>, Broken>> + Send + 'static,
        guard: Guard,
    ) -> Self {
        Self {
            source: Source::Frames(Box::pin(frames)),
            guard: Some(guard),
            scripted: Arc::default(),
        }
    }

    /// No body, and no end to record.
    pub(crate) fn none() -> Self {
        Self {
            source: Source::Over,
            guard: None,
            scripted: Arc::default(),
        }
    }

    fn event(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.event();
        }
    }

    fn ends(&mut self, end: End) {
        if let Some(guard) = &mut self.guard {
            guard.ends(end);
        }
    }

    fn over(&mut self) {
        self.source = Source::Over;
        let scripted = self.scripted.load(Ordering::Relaxed);
        self.ends(if scripted { End::Scripted } else { End::Completed });
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Over => Poll::Ready(None),
            Source::Whole(bytes) => {
                self.event();
                self.over();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Frames(mut frames) => match frames.as_mut().poll_next(context) {
                Poll::Pending => {
                    if self.scripted.load(Ordering::Relaxed) {
                        self.ends(End::Scripted);
                    }
                    self.source = Source::Frames(frames);
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.event();
                    self.source = Source::Frames(frames);
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(broken))) => {
                    self.ends(End::Scripted);
                    Poll::Ready(Some(Err(broken)))
                }
                Poll::Ready(None) => {
                    self.over();
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Over)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Over => SizeHint::with_exact(0),
            Source::Frames(_) => SizeHint::default(),
        }
    }
}
