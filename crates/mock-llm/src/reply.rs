//! From an answer to a response: carries out the part of a plan that concerns whole answers and heads.
//!
//! A handler says what a healthy vendor would answer (`Reply`); `Exchange::respond` deforms, stalls, compresses
//! or withholds it. Streams deform themselves (`stream`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, TRAILER,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use serde_json::Value;

use crate::body::Body;
use crate::connection::{Control, Ending};
use crate::dialect::{self, Endpoint};
use crate::plan::{Deform, NoAnswer, Phase, Plan, RetryAfter, StatusFault};
use crate::record::{End, Guard};
use crate::squeeze::Squeeze;
use crate::stream::{Act, Player};

/// What a healthy vendor would send.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
}

/// A reply's body.
pub(crate) enum Content {
    Whole(Bytes),
    Stream(Box<Player>),
}

impl Reply {
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self {
            status,
            headers,
            content: Content::Whole(body.into()),
        }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn events(player: Player) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream;charset=UTF-8"),
        );
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Self {
            status: StatusCode::OK,
            headers,
            content: Content::Stream(Box::new(player)),
        }
    }

    /// A stream that is one JSON text.
    pub(crate) fn growing(player: Player) -> Self {
        Self::events(player).with_header(CONTENT_TYPE, "application/json; charset=UTF-8")
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// One request on its way to an answer.
pub(crate) struct Exchange {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) plan: Plan,
    pub(crate) control: Arc<Control>,
    pub(crate) guard: Guard,
    pub(crate) version: Version,
    /// The request is a HEAD: its answer has no body.
    pub(crate) head_only: bool,
    /// Of the question; makes the ids of error answers.
    pub(crate) hash: u64,
}

/// The bytes by which a wrong length is wrong.
const LENGTH_ERROR: usize = 10;

fn html(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    format!(
        "<html>\r\n<head><title>{code} {reason}</title></head>\r\n<body>\r\n<center><h1>{code} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
    )
}

impl Exchange {
    /// Answers with an error in the endpoint's dialect.
    pub(crate) fn error(&self, status: StatusCode, message: &str) -> Reply {
        Reply::json(status, &dialect::error(self.endpoint, status, message, self.hash))
    }

    fn status_fault(&self, fault: &StatusFault) -> Reply {
        let message = format!("the script answers {}", fault.status.as_u16());
        let mut reply = self.error(fault.status, &message);
        for given in &fault.retry_after {
            reply = match given {
                RetryAfter::Seconds(seconds) => reply.with_header(RETRY_AFTER, &seconds.to_string()),
                RetryAfter::Date(seconds) => {
                    let moment = tollgate_base::clock::wall() + Duration::from_secs(*seconds);
                    reply.with_header(RETRY_AFTER, &httpdate::fmt_http_date(moment))
                }
                RetryAfter::Milliseconds(milliseconds) => {
                    let name = HeaderName::from_static("retry-after-ms");
                    reply.with_header(name, &milliseconds.to_string())
                }
            };
        }
        reply
    }

    /// Carries out what the plan wants before there is a reply; comes back only if the plan lets it.
    pub(crate) async fn before_reply(&mut self) -> Option<Reply> {
        if self.plan.write_limit > 0 {
            self.control.limit_writes(self.plan.write_limit);
        }
        if let Some(no_answer) = self.plan.no_answer {
            if no_answer != NoAnswer::BlackHole {
                self.guard.ends(End::Scripted);
            }
            match no_answer {
                NoAnswer::Reset => self.control.end(Ending::Reset),
                NoAnswer::Close => self.control.end(Ending::Close),
                NoAnswer::BlackHole => {}
            }
            std::future::pending::<()>().await;
        }
        if let Some((Phase::Head, pause)) = self.plan.stall {
            tokio::time::sleep(pause).await;
        }
        self.plan.status.as_ref().map(|fault| self.status_fault(fault))
    }

    fn deform(&self, deform: Deform, reply: Reply) -> Reply {
        match deform {
            Deform::Html => {
                let html = html(reply.status);
                Reply {
                    headers: reply.headers,
                    ..Reply::new(reply.status, "text/html", html)
                }
                .with_header(CONTENT_TYPE, "text/html")
            }
            Deform::Empty => Reply {
                content: Content::Whole(Bytes::new()),
                ..reply
            },
            Deform::ErrorWith200 => Reply {
                status: StatusCode::OK,
                ..self.error(
                    StatusCode::TOO_MANY_REQUESTS,
                    "the script answers 200 with an error",
                )
            },
            Deform::ContentType => reply.with_header(CONTENT_TYPE, "text/plain"),
            Deform::Garbage => {
                let garbage = Bytes::from_static(b"{\"choices\": [\xff\xfe not json");
                Reply {
                    content: Content::Whole(garbage),
                    ..reply
                }
            }
            Deform::LengthShort | Deform::LengthLong | Deform::CutBody(_) => reply,
        }
    }

    /// The response to send.
    pub(crate) fn respond(self, reply: Reply) -> Response<Body> {
        let mut reply = match self.plan.deform {
            Some(deform) => self.deform(deform, reply),
            None => reply,
        };
        self.guard.status(reply.status.as_u16());
        if self.plan.without_close_notify {
            self.control.shut_down_silently();
            reply = reply.with_header(CONNECTION, "close");
        }
        if let Some(encoding) = self.plan.encoding {
            reply = reply.with_header(CONTENT_ENCODING, encoding.name());
        }
        let mut response = Response::new(());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        match reply.content {
            Content::Stream(player) => {
                if self.plan.stream.trailers {
                    response
                        .headers_mut()
                        .insert(TRAILER, HeaderValue::from_static("x-mock-trailer"));
                }
                response.map(|()| Body::played(*player, self.guard))
            }
            Content::Whole(bytes) => {
                let bytes = match self.plan.encoding {
                    Some(encoding) => Squeeze::whole(encoding, bytes),
                    None => bytes,
                };
                self.respond_whole(response, bytes)
            }
        }
    }

    fn respond_whole(self, mut response: Response<()>, bytes: Bytes) -> Response<Body> {
        let length = |response: &mut Response<()>, length: usize| {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        };
        if self.head_only {
            length(&mut response, bytes.len());
            return response.map(|()| Body::whole(Bytes::new(), self.guard));
        }
        match (self.plan.deform, self.plan.stall) {
            (Some(Deform::LengthShort), _) => {
                length(&mut response, bytes.len() + LENGTH_ERROR);
                let acts = VecDeque::from([Act::Write(bytes), Act::Flush]);
                response.map(|()| Body::acted(acts, self.control, self.guard))
            }
            (Some(Deform::LengthLong), _) if self.version == Version::HTTP_11 => {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
                self.control
                    .inject_at_shutdown(Bytes::from_static(&[b'x'; LENGTH_ERROR]));
                response.map(|()| Body::whole(bytes, self.guard))
            }
            (Some(Deform::CutBody(after)), _) => {
                let sent = bytes.slice(..after.min(bytes.len()));
                let acts = VecDeque::from([Act::Write(sent), Act::Flush, Act::End(Ending::Close)]);
                response.map(|()| Body::acted(acts, self.control, self.guard))
            }
            (_, Some((Phase::First | Phase::Between(_), pause))) => {
                length(&mut response, bytes.len());
                let acts = VecDeque::from([Act::Flush, Act::Pause(pause), Act::Write(bytes)]);
                response.map(|()| Body::acted(acts, self.control, self.guard))
            }
            _ if self.plan.stream.trailers => {
                response
                    .headers_mut()
                    .insert(TRAILER, HeaderValue::from_static("x-mock-trailer"));
                let acts = VecDeque::from([Act::Write(bytes), Act::Trailers]);
                response.map(|()| Body::acted(acts, self.control, self.guard))
            }
            _ => response.map(|()| Body::whole(bytes, self.guard)),
        }
    }
}
