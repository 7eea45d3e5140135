//! Watches a stream that nobody translates for its end: one that ends without any sign of it was cut.
//!
//! HTTP cannot tell such a cut from an end, the dialects can: OpenAI's streams give a `finish_reason` or `[DONE]`,
//! Anthropic's a `message_stop`, both an error. Bytes pass as they are; they are searched, never parsed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use memchr::memmem::Finder;
use tollgate_base::{Error, Flag};
use tollgate_body::{Body, Response};
use tollgate_llm::Api;

/// What says that a stream is over. A text that quotes one of these is taken for an end: better to miss a cut than to
/// call a whole answer cut.
const OPENAI: &[&str] = &[
    "[DONE]",
    r#""finish_reason":""#,
    r#""finish_reason": ""#,
    r#""error""#,
];
const ANTHROPIC: &[&str] = &["message_stop", r#""error""#];
/// Bytes kept of what has passed: one less than the longest sign.
const TAIL: usize = 17;

/// Watches the stream of this API; other APIs' streams have ends of their own.
pub(super) fn watch(api: Api, response: Response) -> Response {
    let signs = match api {
        Api::Chat | Api::Completions => OPENAI,
        Api::AnthropicMessages => ANTHROPIC,
        _ => return response,
    };
    response.map(|body| {
        let signs = signs.iter().map(Finder::new).collect();
        Body::boxed(Watched {
            body,
            signs,
            tail: Vec::new(),
            over: false,
        })
    })
}

struct Watched {
    body: Body,
    signs: Vec<Finder<'static>>,
    /// The end of what has passed: a sign may lie across two frames.
    tail: Vec<u8>,
    /// A sign has passed.
    over: bool,
}

impl Watched {
    fn look(&mut self, data: &[u8]) {
        if self.over {
            return;
        }
        self.tail.extend_from_slice(&data[..data.len().min(TAIL)]);
        let (signs, tail) = (&self.signs, &mut self.tail);
        self.over = signs
            .iter()
            .any(|sign| sign.find(data).is_some() || sign.find(tail).is_some());
        if data.len() >= TAIL {
            tail.clear();
            tail.extend_from_slice(&data[data.len() - TAIL..]);
        } else {
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
    }
}

fn cut() -> Error {
    Error::upstream(
        StatusCode::BAD_GATEWAY,
        "upstream_cut",
        "upstream ended the answer before its end",
    )
    .with_flag(Flag::UpstreamCut)
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(context);
        match &outcome {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.look(data);
                }
            }
            Poll::Ready(None) if !self.over => {
                self.over = true;
                return Poll::Ready(Some(Err(cut())));
            }
            _ => {}
        }
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    async fn passes(api: Api, text: &str, piece: usize) -> bool {
        let frames: Vec<Result<Frame<Bytes>, Error>> = text
            .as_bytes()
            .chunks(piece)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        let response = Response::new(Body::boxed(StreamBody::new(futures_util::stream::iter(frames))));
        match watch(api, response).into_body().collect().await {
            Ok(whole) => {
                assert_eq!(whole.to_bytes(), text);
                true
            }
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn every_sign_is_found_wherever_frames_end() {
        let opening = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n";
        for (api, end) in [
            (Api::Chat, "data: [DONE]\n\n"),
            (
                Api::Chat,
                "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n",
            ),
            (
                Api::Completions,
                "data: {\"choices\":[{\"finish_reason\": \"length\"}]}\n\n",
            ),
            (Api::Chat, "data: {\"error\":{\"message\":\"no\"}}\n\n"),
            (
                Api::AnthropicMessages,
                "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ),
        ] {
            for piece in 1..40 {
                assert!(
                    passes(api, &format!("{opening}{end}{opening}"), piece).await,
                    "{end} in {piece}s"
                );
                assert!(!passes(api, opening, piece).await, "{piece}");
            }
        }
        assert!(
            passes(Api::Responses, opening, 5).await,
            "another API's end is not known here"
        );
    }

    #[test]
    fn the_tail_is_as_long_as_the_signs_need() {
        let longest = OPENAI.iter().chain(ANTHROPIC).map(|sign| sign.len()).max();
        assert_eq!(longest, Some(TAIL + 1));
    }
}
