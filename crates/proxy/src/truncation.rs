//! A truncated answer never looks successful.
//!
//! Wraps `text/event-stream` answers: only whole events go out, and when the upstream fails in mid-stream, ends without
//! having said that it was done, or the gateway stops, the client gets its dialect's error event instead of half an
//! event, and no end marker. Other answers end in a reset, compressed streams and growing arrays too (`beside`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::{Error, Fault, Flag, Termination};
use tollgate_body::{Body, Response, Source};
use tollgate_llm::Api;
use tollgate_llm::dialect::{self, Dialect};
use tollgate_observe::Record;

use crate::array::ArrayWatch;
use crate::beside::{self, End};
use crate::ending::{Ear, Ending, shutting_down};
use crate::panic::poll_caught;
use crate::reply;
use crate::terminal::Watch;

/// Half an event is held back up to this size; a longer one is passed on in pieces.
const MAX_HELD_BACK: usize = 64 * 1024;

/// Guards a streamed answer.
pub(crate) fn guard(ending: &Rc<Ending>, record: &Rc<Record>, response: &mut Response) {
    if record.original.method == Method::HEAD {
        return;
    }
    let from_upstream = record.timings.response_head.get().is_some() && response.status() == StatusCode::OK;
    if !is_of_type(response.headers(), b"text/event-stream") {
        if from_upstream {
            guard_array(record, response);
        }
        return;
    }
    let Some(api) = api_of(record) else {
        return;
    };
    let dialect = Dialect::of_api(api);
    let watch = Watch::over(from_upstream.then_some(api));
    if let Some(coding) = coding(response.headers()).cloned() {
        beside::guard(Some(&coding), record, End::in_events(watch), response);
        return;
    }
    // An error event makes the answer longer than the upstream said.
    response.headers_mut().remove(CONTENT_LENGTH);
    let body = response.body_mut().take();
    *response.body_mut() = Body::source(Guarded {
        body: Some(body),
        record: record.clone(),
        dialect,
        watch,
        ear: ending.listen(),
        events: WholeEvents::default(),
        ready: VecDeque::new(),
    });
}

/// The API that the request is for, by a vendor's own path too. Others have streams of their own behind `/messages` and the
/// like: unless `ai-proxy` sent the request to a vendor, only the end that nobody else has counts.
fn api_of(record: &Record) -> Option<Api> {
    let path = record.original.path.path();
    let is_models = || record.vendor.get().is_some() || path.ends_with("/chat/completions");
    Api::of_path(path).or_else(|| Api::alike(path).filter(|_| is_models()))
}

/// Guards an answer of Gemini that streams an array instead of events.
fn guard_array(record: &Rc<Record>, response: &mut Response) {
    let grows = Api::streams_an_array(record.original.path.path());
    if grows && is_of_type(response.headers(), b"application/json") {
        let coding = coding(response.headers()).cloned();
        let end = End::Bracket(ArrayWatch::new());
        beside::guard(coding.as_ref(), record, end, response);
    }
}

fn is_of_type(headers: &HeaderMap, name: &[u8]) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    })
}

/// What the bytes are not the text itself for.
fn coding(headers: &HeaderMap) -> Option<&HeaderValue> {
    let coding = headers.get(CONTENT_ENCODING);
    coding.filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whole events out of bytes that are cut anywhere.
#[derive(Default)]
pub(crate) struct WholeEvents {
    /// The beginning of an event whose end has not come.
    held: BytesMut,
    /// The beginning of an event that was too long to hold back is out.
    mid_event: bool,
}

impl WholeEvents {
    /// Splits `data` behind the last whole event; keeps the rest.
    pub(crate) fn pass(&mut self, mut data: Bytes) -> Option<Bytes> {
        if self.held.is_empty()
            && let Some(end) = last_event_end(&data, 0)
        {
            let rest = data.split_off(end);
            self.held.extend_from_slice(&rest);
            self.mid_event = false;
            return Some(data);
        }
        let looked_through = self.held.len();
        self.held.extend_from_slice(&data);
        let end = last_event_end(&self.held, looked_through);
        if end.is_none() && self.held.len() <= MAX_HELD_BACK {
            return None;
        }
        self.mid_event = end.is_none();
        Some(self.held.split_to(end.unwrap_or(self.held.len())).freeze())
    }

    /// What no event's end has come for.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

struct Guarded {
    /// `None` once the source has ended.
    body: Option<Body>,
    record: Rc<Record>,
    dialect: Dialect,
    watch: Watch,
    ear: Ear,
    events: WholeEvents,
    ready: VecDeque<Frame<Bytes>>,
}

impl Guarded {
    /// The answer cannot go on: says so, in a form that the client's SDK raises.
    fn fail(&mut self, failure: &Error) -> Frame<Bytes> {
        self.body = None;
        drop(self.events.rest());
        note(&self.record, failure);
        let event = dialect::stream_error_event(self.dialect, failure.message(), failure.reason());
        if !self.events.mid_event {
            return Frame::data(event);
        }
        // Half an event is out: ended here it is no JSON, which is an error to the client as well.
        Frame::data([b"\n\n", &*event].concat().into())
    }

    /// The gateway stops.
    fn stop(&mut self) -> Frame<Bytes> {
        self.record.terminate(Termination::Shutdown);
        self.fail(&shutting_down())
    }

    /// The source ended: what is held is not a whole event but all there is.
    fn end(&mut self, trailers: Option<Frame<Bytes>>) -> Option<Frame<Bytes>> {
        self.body = None;
        let rest = self.events.rest();
        look(&mut self.watch, &self.record, &rest);
        if !self.watch.seen() {
            return Some(self.fail(&unsaid()));
        }
        self.ready.extend((!rest.is_empty()).then(|| Frame::data(rest)));
        self.ready.extend(trailers);
        self.ready.pop_front()
    }

    /// What to send for a frame of the source; `None` when it is all held back.
    fn next(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                let whole = self.events.pass(data)?;
                look(&mut self.watch, &self.record, &whole);
                Some(Frame::data(whole))
            }
            // Nothing but the end comes behind trailers.
            Err(trailers) => self.end(Some(trailers)),
        }
    }
}

/// The upstream's bytes ended, and its answer did not.
pub(crate) fn unsaid() -> Error {
    Error::upstream(
        StatusCode::BAD_GATEWAY,
        "upstream_cut",
        "upstream ended the answer before its end",
    )
    .with_flag(Flag::UpstreamCut)
}

/// Looks for the end in whole events; a vendor's error event is noted at once, whoever leaves next.
pub(crate) fn look(watch: &mut Watch, record: &Record, events: &[u8]) {
    watch.look(events);
    if watch.failed() {
        record.terminate(Termination::UpstreamError);
    }
}

/// Notes a failure that came after the answer had begun.
pub(crate) fn note(record: &Record, failure: &Error) {
    if failure.timer().is_none() && failure.fault() == Fault::Upstream {
        record.terminate(Termination::UpstreamCut);
    }
    reply::note_failure(record, failure);
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.body.is_some() && self.ear.is_over() {
                return Poll::Ready(Some(Ok(self.stop())));
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            match poll_caught(body, context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(frame) = self.next(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Ok(self.fail(&failure)))),
                Poll::Ready(None) => return Poll::Ready(self.end(None).map(Ok)),
                Poll::Pending => {
                    self.ear.wait(context);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none() && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Source for Guarded {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        let is_open = self.ready.is_empty() && !self.ear.is_over();
        let is_dry = is_open && self.body.as_mut().is_some_and(|body| body.is_dry(context));
        if is_dry {
            self.ear.wait(context);
        }
        is_dry
    }
}

/// Whether `data` ends with a blank line: two line ends, of whatever kind, behind each other.
fn ends_event(data: &[u8]) -> bool {
    let line = match data {
        [line @ .., b'\r', b'\n'] | [line @ .., b'\n' | b'\r'] => line,
        _ => return false,
    };
    matches!(line.last(), Some(b'\n' | b'\r'))
}

/// Where the last whole event in `data` ends, if behind `from`. A `\r\n\r` at the very end counts: its `\n` may follow
/// as an empty rest.
fn last_event_end(data: &[u8], from: usize) -> Option<usize> {
    let mut end = data.len();
    // What a read brings is whole events nearly always.
    if end > from && ends_event(data) {
        return Some(end);
    }
    while end > from {
        let at = from + memchr::memrchr2(b'\n', b'\r', &data[from..end])?;
        if ends_event(&data[..=at]) {
            return Some(at + 1);
        }
        end = at;
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[test]
    fn whole_events_go_out_and_halves_stay() {
        assert_eq!(last_event_end(b"data: 1\n\ndata: 2", 0), Some(9));
        assert_eq!(last_event_end(b"data: 1\r\n\r\ndata", 0), Some(11));
        assert_eq!(last_event_end(b"data: 1\r\rdata: 2\r", 0), Some(9));
        assert_eq!(last_event_end(b"data: 1\n\r\ndata: 2\r\n", 0), Some(10));
        assert_eq!(last_event_end(b"data: 1\n", 0), None);
        assert_eq!(last_event_end(b"data: 1\r\n", 0), None);
        assert_eq!(last_event_end(b"", 0), None);
        assert_eq!(last_event_end(b"data: 1\n\ndata: 2", 9), None);
    }

    type Piece = Result<Frame<Bytes>, Error>;

    /// Of a chat request whose answer has begun upstream.
    pub(crate) fn record() -> Record {
        let connection = tollgate_observe::record::Connection {
            id: 1,
            peer: "127.0.0.1:1".parse().expect("an address"),
            local: "127.0.0.1:2".parse().expect("an address"),
            server_name: None,
            tls: false,
        };
        let original = tollgate_observe::record::Original {
            method: Method::POST,
            authority: "a".into(),
            path: "/v1/chat/completions".parse().expect("a path"),
            version: http::Version::HTTP_11,
        };
        let now = tollgate_base::clock::now();
        let id = http::HeaderValue::from_static("1");
        let record = Record::new(Rc::new(connection), original, id, now);
        record.timings.response_head.set(Some(now));
        record
    }

    fn guarded(ending: &Rc<Ending>, record: &Rc<Record>, pieces: Vec<Piece>) -> Response {
        let source = StreamBody::new(futures_util::stream::iter(pieces));
        let mut response = Response::new(Body::boxed(source));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
        headers.insert(CONTENT_LENGTH, http::HeaderValue::from_static("5"));
        guard(ending, record, &mut response);
        response
    }

    fn data(text: &str) -> Piece {
        Ok(Frame::data(text.to_owned().into()))
    }

    async fn through(pieces: Vec<Piece>) -> (String, Option<Termination>) {
        let record = Rc::new(record());
        let response = guarded(&Rc::default(), &record, pieces);
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        let body = response.into_body().collect().await.expect("never fails");
        let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
        (text, record.termination.get())
    }

    #[tokio::test]
    async fn a_clean_end_without_an_end_marker_is_a_cut() {
        let (text, ended) = through(vec![data("data: {\"a\":1}\n\n"), data("data: {\"b")]).await;
        assert!(text.starts_with("data: {\"a\":1}\n\ndata: {\"error\""), "{text}");
        assert!(text.contains("\"code\":\"upstream_cut\""), "{text}");
        assert_eq!(ended, Some(Termination::UpstreamCut));
        let (empty, _) = through(Vec::new()).await;
        assert!(empty.contains("upstream_cut"), "{empty}");
    }

    #[tokio::test]
    async fn paths_of_vendors_own_are_guarded_where_a_model_answers() {
        for (path, vendor, is_guarded) in [
            ("/api/v3/chat/completions", None, true),
            ("/openai/deployments/x/chat/completions?api-version=1", None, true),
            (
                "/api/v1/services/aigc/text-generation/generation",
                Some("qwen"),
                true,
            ),
            ("/anthropic/messages", Some("claude"), true),
            // An application's own.
            ("/api/messages", None, false),
            ("/api/items", Some("qwen"), false),
        ] {
            let mut record = record();
            record.original.path = path.parse().expect("a path");
            record.vendor.set(vendor);
            let record = Rc::new(record);
            let body = guarded(&Rc::default(), &record, vec![data("data: {\"a\":1}\n\n")]).into_body();
            let text = body.collect().await.expect("never fails").to_bytes();
            let is_cut = String::from_utf8_lossy(&text).contains("error");
            assert_eq!(is_cut, is_guarded, "{path}");
            let ended = is_guarded.then_some(Termination::UpstreamCut);
            assert_eq!(record.termination.get(), ended, "{path}");
        }
    }

    /// What the client gets of Gemini's stream, given piece by piece, how it fails, and the note of it.
    async fn array(
        path: &str,
        coding: Option<&'static str>,
        pieces: &[&[u8]],
    ) -> (Vec<u8>, bool, Option<Termination>) {
        let mut record = record();
        record.original.path = path.parse().expect("a path");
        let record = Rc::new(record);
        let all: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Error>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let mut response = Response::new(Body::boxed(StreamBody::new(futures_util::stream::iter(all))));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=UTF-8"),
        );
        headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
        guard(&Rc::default(), &record, &mut response);
        let (mut body, mut passed) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => passed.extend_from_slice(&frame.into_data().expect("data")),
                Err(failure) => {
                    note(&record, &failure);
                    return (passed, true, record.termination.get());
                }
            }
        }
        (passed, false, record.termination.get())
    }

    #[tokio::test]
    async fn an_array_that_is_not_closed_is_a_cut() {
        const STREAM: &str = "/v1beta/models/m:streamGenerateContent";
        let text: &[u8] = br#"[{"a":"]"},{"b":1}]"#;
        let cut = Some(Termination::UpstreamCut);
        for at in 1..text.len() {
            let (first, rest) = text.split_at(at);
            let whole = array(STREAM, None, &[first, rest]).await;
            assert_eq!(whole, (text.to_vec(), false, None), "{at}");
            assert_eq!(
                array(STREAM, None, &[first]).await,
                (first.to_vec(), true, cut),
                "{at}"
            );
        }
        assert_eq!(array(STREAM, None, &[]).await.2, cut);
        let error: &[u8] = br#"[{"a":1},{"error":{"code":503}}"#;
        assert_eq!(
            array(STREAM, None, &[error]).await.2,
            Some(Termination::UpstreamError)
        );
        for (coding, packed) in tollgate_testkit::codings::compressed(b"[{\"a\":1}") {
            assert_eq!(
                array(STREAM, Some(coding), &[&packed]).await,
                (packed, true, cut),
                "{coding}"
            );
        }
        // Nobody else's answers are asked for a bracket.
        for path in ["/v1beta/models/m:generateContent", "/api/items"] {
            assert_eq!(
                array(path, None, &[b"[{"]).await,
                (b"[{".to_vec(), false, None),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn an_end_marker_makes_it_whole_wherever_it_is_split() {
        let all = "data: {\"a\":1}\r\n\r\n: x\n\ndata: 2\r\rdata: [DONE]\n\n";
        for at in 0..all.len() {
            let (text, ended) = through(vec![data(&all[..at]), data(&all[at..])]).await;
            assert_eq!((&*text, ended), (all, None), "split at {at}");
        }
        let bytes = all.as_bytes().chunks(1);
        let trickle = bytes.map(|byte| data(&String::from_utf8_lossy(byte))).collect();
        assert_eq!(through(trickle).await.0, all);
        // The last line end may be missing.
        let (text, ended) = through(vec![data("data: 1\n\n"), data("data: [DONE]\n")]).await;
        assert_eq!((&*text, ended), ("data: 1\n\ndata: [DONE]\n", None));
    }

    #[tokio::test]
    async fn half_an_event_too_long_to_hold_back_is_ended_before_the_error() {
        let long = format!("data: \"{}", "x".repeat(MAX_HELD_BACK));
        let cut = Error::upstream(StatusCode::BAD_GATEWAY, "upstream_cut", "cut");
        let (text, _) = through(vec![data(&long), Err(cut)]).await;
        let rest = text.strip_prefix(&*long).expect("passed on");
        assert!(rest.starts_with("\n\ndata: {\"error\""), "{rest}");
    }

    #[tokio::test]
    async fn what_is_held_goes_out_before_trailers() {
        let mut names = HeaderMap::new();
        names.insert("x-sum", http::HeaderValue::from_static("1"));
        let record = Rc::new(record());
        let pieces = vec![data("data: [DONE]\n"), Ok(Frame::trailers(names))];
        let body = guarded(&Rc::default(), &record, pieces).into_body();
        let whole = body.collect().await.expect("never fails");
        assert_eq!(whole.trailers().map(HeaderMap::len), Some(1));
        assert_eq!(whole.to_bytes(), "data: [DONE]\n");
    }

    #[tokio::test]
    async fn the_gateways_end_is_an_error_event() {
        let (ending, record) = (Rc::new(Ending::default()), Rc::new(record()));
        let mut body = guarded(&ending, &record, vec![data("data: 1\n\n"), data("data: 2\n\n")]).into_body();
        let first = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(first.data_ref().expect("data"), "data: 1\n\n");
        ending.announce();
        let rest = body.collect().await.expect("never fails").to_bytes();
        let text = String::from_utf8_lossy(&rest);
        assert!(
            text.contains("\"code\":\"shutdown\"") && !text.contains("data: 2"),
            "{text}"
        );
        assert_eq!(record.termination.get(), Some(Termination::Shutdown));
    }
}
