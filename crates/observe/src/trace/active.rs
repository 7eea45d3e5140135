//! The trace of a request under way, and the spans that are open in it.
//!
//! Single-threaded like the record it lies in. What is recorded leaves when the last one who holds it lets go: the
//! record at settlement, an open span at its end.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Termination};

use super::attributes::{Attributes, Value};
use super::context::{Context, Parent};
use super::ids::SpanId;
use super::propagation::{Sender, inject};
use super::span::{Kind, Span};
use super::{Settings, Wire, entry, propagation};
use crate::Record;
use crate::export::{Item, Queue};

/// Spans that one trace keeps; a plugin that calls out without end makes no more.
const MAX_SPANS: usize = 128;
/// Attributes of a span that there is room for at once.
const USUAL: usize = 16;
/// Bytes of a path that become a name or a tag.
const MAX_PATH: usize = 256;

/// Where the traces of one generation of the settings go. Shared by all workers.
#[derive(Debug)]
pub struct Tracer {
    /// Wire format, sampling, names.
    pub settings: Settings,
    /// Name of this process among those of the service.
    pub instance: Arc<str>,
    /// To the exporter.
    pub queue: Queue<Finished>,
}

/// A trace that is over, on its way to the exporter.
#[derive(Debug)]
pub struct Finished {
    /// Its ids.
    pub context: Context,
    /// What the request asked for, without its query: SkyWalking's endpoint.
    pub endpoint: Box<str>,
    /// Spans, in the order of their ends.
    pub spans: Vec<Span>,
    /// Whether some found no place.
    pub is_partial: bool,
}

impl Item for Finished {
    fn units(&self) -> u64 {
        self.spans.len() as u64
    }

    fn size(&self) -> usize {
        self.spans.iter().map(Span::size).sum()
    }
}

/// The place of a trace in a [`Record`]; empty while tracing is off and once the exchange is settled.
#[derive(Debug, Default)]
pub struct Slot(RefCell<Option<Rc<Active>>>);

/// A trace under way.
pub(super) struct Active {
    pub(super) tracer: Arc<Tracer>,
    pub(super) context: Context,
    pub(super) endpoint: Box<str>,
    pub(super) user_agent: Option<HeaderValue>,
    wall: SystemTime,
    started: Instant,
    spans: RefCell<Vec<Span>>,
    numbers: Cell<i32>,
    partial: Cell<bool>,
}

impl fmt::Debug for Active {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Active")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// Begins the trace of a request that has just arrived, as its headers say.
    pub fn begin(&self, tracer: &Arc<Tracer>, record: &Record, headers: &mut HeaderMap) {
        let context = Context::join(&tracer.settings, headers);
        let path = record.original.path.path();
        let end = path.floor_char_boundary(MAX_PATH);
        let user_agent = headers.get(http::header::USER_AGENT).filter(|_| context.sampled);
        let active = Active {
            tracer: Arc::clone(tracer),
            context,
            endpoint: path.get(..end).unwrap_or_default().into(),
            user_agent: user_agent.cloned(),
            wall: record.start_time,
            started: record.started,
            spans: RefCell::default(),
            numbers: Cell::new(0),
            partial: Cell::new(false),
        };
        self.0.replace(Some(Rc::new(active)));
    }

    /// Whether the request's spans are kept.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        let active = self.0.borrow();
        active.as_ref().is_some_and(|active| active.context.sampled)
    }

    /// Opens a span for a request that is about to be sent to `authority`; `None` while tracing is off.
    #[must_use]
    pub fn open(&self, kind: Kind, cluster: &str, authority: &str) -> Option<OpenSpan> {
        let active = self.0.borrow().clone()?;
        Some(active.open(kind, cluster, authority))
    }

    /// Puts the trace id where Higress's log format looks for it, if this wire format has it there.
    pub fn announce(&self, headers: &mut HeaderMap) {
        if let Some(active) = &*self.0.borrow()
            && active.tracer.settings.wire == Wire::Zipkin
        {
            propagation::announce(&active.context, headers);
        }
    }

    /// Itself, for somebody who outlives the exchange.
    #[must_use]
    pub fn share(&self) -> Self {
        Self(RefCell::new(self.0.borrow().clone()))
    }

    /// The trace id, if there is a trace.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        let active = self.0.borrow();
        active
            .as_ref()
            .map(|active| active.context.trace_text().into_owned())
    }

    /// The id of the request's own span, if there is a trace.
    #[must_use]
    pub fn span_id(&self) -> Option<String> {
        let active = self.0.borrow();
        active
            .as_ref()
            .map(|active| active.context.span_text(active.tracer.settings.wire))
    }

    /// Ends the request's own span; called once, at settlement.
    pub(crate) fn finish(&self, record: &Record, ended: Instant) {
        let Some(active) = self.0.take() else { return };
        if active.context.sampled {
            let span = entry::span(&active, record, active.nanoseconds(ended));
            active.spans.borrow_mut().push(span);
        }
    }
}

impl Active {
    /// A moment of this request since 1970.
    pub(super) fn nanoseconds(&self, at: Instant) -> u64 {
        let wall = self.wall + at.saturating_duration_since(self.started);
        let since = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn open(self: Rc<Self>, kind: Kind, cluster: &str, authority: &str) -> OpenSpan {
        let number = self.numbers.get() + 1;
        let is_recorded =
            self.context.sampled && usize::try_from(number).is_ok_and(|number| number < MAX_SPANS);
        if !is_recorded {
            self.partial.set(self.context.sampled);
            return OpenSpan {
                active: self,
                peer: authority.into(),
                span: None,
            };
        }
        self.numbers.set(number);
        let mut attributes = Attributes::with_room(USUAL);
        attributes.add("component", "proxy");
        attributes.add("upstream_cluster", cluster.to_owned());
        attributes.add("upstream_cluster.name", cluster.to_owned());
        let name = match kind {
            Kind::Attempt => ["router ", cluster, " egress"].concat(),
            Kind::CallOut | Kind::Entry => ["async ", cluster, " egress"].concat(),
        };
        let span = Span {
            kind,
            id: SpanId::random(),
            number,
            name: name.into(),
            start: self.nanoseconds(clock::now()),
            end: 0,
            peer: authority.into(),
            error: false,
            message: Cow::Borrowed(""),
            attributes,
        };
        OpenSpan {
            active: self,
            peer: authority.into(),
            span: Some(Box::new(span)),
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let spans = self.spans.take();
        if spans.is_empty() {
            return;
        }
        self.tracer.queue.offer(Finished {
            context: self.context.clone(),
            endpoint: std::mem::take(&mut self.endpoint),
            spans,
            is_partial: self.partial.get(),
        });
    }
}

/// A request that was sent on and is not over yet; it ends when dropped. Without a recorded span it only carries the
/// trace on.
#[derive(Debug)]
pub struct OpenSpan {
    active: Rc<Active>,
    peer: Box<str>,
    span: Option<Box<Span>>,
}

impl OpenSpan {
    /// Whether anything of it is kept.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.span.is_some()
    }

    /// Writes the headers by which the other side joins the trace.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let active = &self.active;
        let own = active.context.span;
        let (span, parent, number) = match (&self.span, &active.context.parent) {
            (Some(span), _) => (span.id, own, span.number),
            (None, Some(Parent::Span(parent))) => (own, *parent, 0),
            (None, _) => (own, own, 0),
        };
        let sender = Sender {
            span,
            parent,
            number,
            service: &active.tracer.settings.service,
            instance: &active.tracer.instance,
            endpoint: &active.endpoint,
            peer: &self.peer,
        };
        inject(active.tracer.settings.wire, &active.context, &sender, headers);
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.set(name, value);
        }
    }

    /// The answer's status; 5xx is a failure, and for our own request 4xx is one too.
    pub fn answered(&mut self, status: u16) {
        self.set("http.status_code", status.to_string());
        self.set("http.response.status_code", status);
        if status >= 400 {
            self.set("error.type", status.to_string());
        }
        if let Some(span) = &mut self.span {
            span.error |= status >= 400;
        }
    }

    /// It failed.
    pub fn failed(&mut self, failure: &Error) {
        let kind = match failure.timer() {
            Some(timer) => Termination::Timeout(timer).name().into(),
            None => failure.reason().to_owned(),
        };
        self.set("error.type", kind);
        if let Some(timer) = failure.timer() {
            self.set("tollgate.timer", timer.name());
        }
        if let Some(span) = &mut self.span {
            span.error = true;
            span.message = failure.message().to_owned().into();
            span.attributes.set("error", "true");
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.end = self.active.nanoseconds(clock::now());
            self.active.spans.borrow_mut().push(*span);
        }
    }
}
