//! The suite's plugin in Rust, on the crate `proxy-wasm`; `host` has what that SDK lacks.

mod host;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MapType};

const LANGUAGE: &str = "rust";
const CALLOUT_CLUSTER: &str = "outbound|80||callout.static";
const REDIS_CLUSTER: &str = "outbound|6379||redis.static";
const INCR: &[u8] = b"*2\r\n$4\r\nINCR\r\n$5\r\nsuite\r\n";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Plugin { mode: Mode::Transform }));
}}

thread_local! {
    /// Whose request waits for which Redis call: the SDK knows HTTP's calls alone.
    static WAITING: RefCell<HashMap<u32, u32>> = RefCell::default();
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Transform,
    Reply,
    Callout,
    Stream,
    Rewrite,
    Redis,
    Trap,
}

impl Mode {
    const NAMES: [(&str, Self); 7] = [
        ("transform", Self::Transform),
        ("reply", Self::Reply),
        ("callout", Self::Callout),
        ("stream", Self::Stream),
        ("rewrite", Self::Rewrite),
        ("redis", Self::Redis),
        ("trap", Self::Trap),
    ];

    fn of(config: &str) -> Option<Self> {
        let (_, value) = config.split_once("\"mode\"")?;
        let known = |(name, _): &&(&str, Self)| value.contains(&format!("\"{name}\""));
        Self::NAMES.iter().find(known).map(|(_, mode)| *mode)
    }
}

struct Plugin {
    mode: Mode,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _: usize) -> bool {
        let config = self.get_plugin_configuration().unwrap_or_default();
        let Some(mode) = Mode::of(&String::from_utf8_lossy(&config)) else {
            log::error!("no known mode");
            return false;
        };
        self.mode = mode;
        mode != Mode::Redis || host::redis_init(REDIS_CLUSTER, 1000).is_ok()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { id, mode: self.mode }))
    }
}

struct Request {
    id: u32,
    mode: Mode,
}

impl Request {
    fn has(&self, name: &str) -> bool {
        self.get_http_request_header(name)
            .is_some_and(|value| !value.is_empty())
    }

    fn call_out(&self) -> Action {
        let headers = vec![(":method", "GET"), (":path", "/echo"), (":authority", "callout")];
        match self.dispatch_http_call(CALLOUT_CLUSTER, headers, None, vec![], Duration::from_secs(1)) {
            Ok(_) => Action::Pause,
            Err(status) => {
                log::error!("call-out: {status:?}");
                Action::Continue
            }
        }
    }

    fn count(&self) -> Action {
        match host::redis_call(REDIS_CLUSTER, INCR) {
            Ok(token) => {
                WAITING.with_borrow_mut(|waiting| waiting.insert(token, self.id));
                Action::Pause
            }
            Err(status) => {
                log::error!("redis: {status}");
                Action::Continue
            }
        }
    }
}

impl Context for Request {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        self.set_http_request_header("x-callout-status", Some(status.as_deref().unwrap_or("none")));
        self.resume_http_request();
    }
}

// The SDK pauses in one way alone: in its version of the ABI a paused header callback stops the body too.
impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        match self.mode {
            Mode::Transform => {
                self.set_http_request_header("x-suite", Some(LANGUAGE));
                self.remove_http_request_header("x-remove");
            }
            Mode::Reply if self.has("x-deny") => {
                let body = format!("denied by {LANGUAGE}");
                host::answer(403, "suite", &[("x-denied", "yes")], &body).unwrap();
                return Action::Pause;
            }
            Mode::Callout => return self.call_out(),
            Mode::Redis => return self.count(),
            Mode::Rewrite => self.remove_http_request_header("content-length"),
            Mode::Trap if self.has("x-trap") => panic!("asked to"),
            Mode::Reply | Mode::Stream | Mode::Trap => {}
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        if self.mode != Mode::Rewrite {
            return Action::Continue;
        }
        if !end {
            return Action::Pause;
        }
        let mut whole = format!("{LANGUAGE}:").into_bytes();
        whole.extend(self.get_http_request_body(0, size).unwrap_or_default());
        self.set_http_request_body(0, size, &whole);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        match self.mode {
            Mode::Transform => self.set_http_response_header("x-suite-response", Some("done")),
            Mode::Stream => self.remove_http_response_header("content-length"),
            _ => {}
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.mode == Mode::Stream {
            let mut chunk = self.get_http_response_body(0, size).unwrap_or_default();
            chunk.make_ascii_uppercase();
            if end {
                chunk.extend(b"[end]");
            }
            self.set_http_response_body(0, size, &chunk);
        }
        Action::Continue
    }
}

/// Redis's reply, or a status that says why there is none.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_redis_call_response(_plugin: u32, token: u32, status: u32, size: usize) {
    let reply = host::redis_reply(size).unwrap_or_default();
    let Some(waiter) = WAITING.with_borrow_mut(|waiting| waiting.remove(&token)) else {
        return;
    };
    hostcalls::set_effective_context(waiter).unwrap();
    // ":7\r\n"
    let value = reply
        .strip_prefix(b":")
        .and_then(|rest| rest.strip_suffix(b"\r\n"));
    if let (0, Some(value)) = (status, value) {
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, "x-redis", Some(value)).unwrap();
    }
    hostcalls::resume_http_request().unwrap();
}
