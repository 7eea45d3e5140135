//! What `ai-proxy` notes of each exchange for the accounts, where no plugin further out reads the answer anyway.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use tollgate_body::{Body, JsonDocument, Request, Response};
use tollgate_observe::Record;
use tollgate_observe::conversation::Turn;
use tollgate_plugin::Exchange;

use crate::answer_watch::{self, Asked, Observer, Watch};
use crate::token_usage;

/// One exchange under observation.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The request is one whose tokens may be estimated.
    estimable: bool,
    /// The configuration asks for counts.
    countable: bool,
    /// Somebody asks which conversation the request is of.
    placed: bool,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Asked,
    /// The model that the client named.
    model: Option<Box<str>>,
    turn: Turn,
    answer: Option<Watch>,
}

impl Account {
    /// Begins; `None` where somebody else does all this.
    pub(super) fn begin(exchange: &Exchange, request: &Request) -> Option<Rc<Self>> {
        let record = &exchange.record;
        if record.usage.borrow().watched {
            return None;
        }
        let placed = !record.unplaced.get();
        let mut turn = Turn::default();
        if placed {
            turn.head(request.headers(), None, |name, value| record.hides(name, value));
        }
        let account = Rc::new(Self {
            estimable: answer_watch::is_estimable(request),
            countable: answer_watch::is_countable(record),
            placed,
            state: RefCell::new(State {
                turn,
                ..State::default()
            }),
        });
        let settled = account.clone();
        record.on_settle(move |record, _| settled.settle(record));
        Some(account)
    }

    /// Notes the request as the client wrote it.
    pub(super) fn asked(&self, path: &str, document: &JsonDocument) {
        let mut state = self.state.borrow_mut();
        if self.placed {
            state.turn.body(document);
        }
        if self.estimable {
            state.asked = Asked::Unread {
                body: document.to_bytes(),
                countable: self.countable,
            };
        }
        let model = document.get("model").map(|model| model.text().into_owned());
        let model = model
            .filter(|name| !name.is_empty())
            .or_else(|| token_usage::model_of_path(path).map(std::borrow::Cow::into_owned));
        state.model = model.map(|name| answer_watch::bounded(name).into_boxed_str());
    }

    /// Notes a request whose body passes through; nobody else here reads it.
    pub(super) fn passes(&self, record: &Record, body: &Body) {
        if self.estimable {
            self.state.borrow_mut().asked = Asked::at_hand(record, body);
        }
    }

    /// Looks at the answer, in the form in which the client gets it.
    pub(super) fn answered(self: &Rc<Self>, record: &Rc<Record>, response: &mut Response) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let watch = Watch::begin(record, response).for_usage();
        let (streamed, kind) = (watch.streamed, watch.kind());
        let mut state = self.state.borrow_mut();
        state.answer = Some(watch);
        if streamed {
            state.asked.weigh();
        }
        drop(state);
        let passing = Passing {
            account: self.clone(),
            record: record.clone(),
        };
        answer_watch::observe(response, kind, passing);
    }

    fn settle(&self, record: &Record) {
        let mut state = self.state.borrow_mut();
        record.turn.replace(std::mem::take(&mut state.turn));
        if let Some(model) = state.model.take() {
            record.usage.borrow_mut().model_requested = Some(model);
        }
        let asked = std::mem::take(&mut state.asked);
        let Some(watch) = &mut state.answer else { return };
        drop(watch.finish(record));
        if self.estimable && watch.lacks_usage(record) {
            watch.supply(record, &asked.read());
        }
    }
}

/// The answer's way past the account.
struct Passing {
    account: Rc<Account>,
    record: Rc<Record>,
}

impl Observer for Passing {
    fn event(&self, data: &[u8]) {
        if let Some(watch) = &mut self.account.state.borrow_mut().answer {
            watch.event(&self.record, data);
        }
    }

    fn frame(&self, data: &Bytes) {
        if let Some(watch) = &mut self.account.state.borrow_mut().answer {
            watch.frame(data);
        }
    }
}
