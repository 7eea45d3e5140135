//! Accepts connections and leads each request to its answer.
//!
//! The path of a request: accept → TLS → hyper (HTTP/1.1 or h2, whichever the client speaks) → `handle`: record,
//! read the ordered faults, then a vendor's endpoint (`vendor`) or a plain one (`plain`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Options;
use crate::body::Body;
use crate::connection::{Control, Scripted, Socket};
use crate::dialect;
use crate::faults::{self, Source};
use crate::hash::fnv;
use crate::plan::Plan;
use crate::record::{Connection, Log};
use crate::reply::{Exchange, Reply};
use crate::{plain, tls, vendor};

/// How long a connection that the script ends may take to write what it still holds.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all connections of one server share.
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) log: Log,
    /// How often each counted fault was met, by fault and `x-mock-key`.
    strikes: Mutex<HashMap<String, u64>>,
    standing: Arc<Mutex<Option<String>>>,
    connections: AtomicU64,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    /// Checks what the options say; the standing fault must be on the menu.
    pub(crate) fn new(options: Options, log: Log, standing: Arc<Mutex<Option<String>>>) -> io::Result<Self> {
        faults::check(options.fault.as_deref())?;
        let tls = options.tls.as_ref().map(tls::Tls::config).transpose()?;
        Ok(Self {
            options,
            log,
            strikes: Mutex::default(),
            standing,
            connections: AtomicU64::new(0),
            tls,
        })
    }

    fn strikes(&self, fault: &str, times: u64, headers: &HeaderMap) -> bool {
        let key = headers.get("x-mock-key").map_or(&b""[..], |key| key.as_bytes());
        let key = format!("{fault}\n{}", String::from_utf8_lossy(key));
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        let met = strikes.entry(key).or_default();
        *met += 1;
        *met <= times
    }

    /// Adds the faults that `text` orders to the plan.
    pub(crate) fn order(
        &self,
        plan: &mut Plan,
        text: &str,
        source: Source,
        headers: &HeaderMap,
    ) -> Result<(), String> {
        faults::order(plan, text, source, |fault, times| {
            self.strikes(fault, times, headers)
        })
    }

    /// The faults of everything but the model's name, which is in the body.
    fn plan(&self, request: &Request<Incoming>) -> Result<Plan, String> {
        let mut plan = Plan::default();
        let standing = self
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(standing) = standing {
            self.order(&mut plan, &standing, Source::Plain, request.headers())?;
        }
        let query = request.uri().query().unwrap_or("");
        for text in query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("mock-fault="))
        {
            let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
            self.order(&mut plan, &text, Source::Plain, request.headers())?;
        }
        for value in request.headers().get_all("x-mock-fault") {
            let text = value
                .to_str()
                .map_err(|_| "x-mock-fault is not ASCII".to_owned())?;
            self.order(&mut plan, text, Source::Plain, request.headers())?;
        }
        Ok(plan)
    }
}

/// Accepts until `shutdown` is ready, then drops what is open.
pub(crate) async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(Arc::clone(&server), stream, peer));
                }
                // Out of descriptors, or a client that left the queue: others may still be served.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = &mut shutdown => return Ok(()),
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let control = Arc::new(Control::default());
    let socket = Socket::new(stream, Arc::clone(&control));
    let number = server.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let mut connection = Connection {
        number,
        peer: peer.to_string(),
        ..Connection::default()
    };
    let (Some(tls), Some(config)) = (&server.options.tls, &server.tls) else {
        let stream = Scripted::new(socket, Arc::clone(&control));
        return drive(server, stream, control, connection).await;
    };
    match tls::accept(socket, Arc::clone(config), tls.delay).await {
        Ok((stream, greeting)) => {
            connection.tls = true;
            connection.server_name = greeting.server_name;
            connection.alpn = greeting.alpn;
            connection.client_certificate = greeting.client_certificate;
            drive(
                server,
                Scripted::new(stream, Arc::clone(&control)),
                control,
                connection,
            )
            .await;
        }
        Err(error) => tracing::debug!(%error, "handshake failed"),
    }
}

/// Speaks HTTP on a connection until it ends or the script ends it.
async fn drive<S>(server: Arc<Server>, stream: Scripted<S>, control: Arc<Control>, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(connection);
    let handler = Arc::clone(&control);
    let service = service_fn(move |request| {
        let (server, connection, control) =
            (Arc::clone(&server), Arc::clone(&connection), Arc::clone(&handler));
        async move { handle(&server, &connection, control, request).await }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().half_close(false);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            biased;
            served = &mut serving => {
                if let Err(error) = served {
                    tracing::debug!(error, "connection ended");
                }
                return;
            }
            () = control.wanted() => {}
        }
        if control.ending().is_some() {
            // Polled on, the connection flushes, and its stream then refuses to go on.
            let _ = tokio::time::timeout(FAREWELL, &mut serving).await;
            return;
        }
    }
}

async fn handle(
    server: &Server,
    connection: &Arc<Connection>,
    control: Arc<Control>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let guard = server.log.open(connection, &request);
    let endpoint = match server.options.echo_only {
        true => None,
        false => dialect::endpoint(request.uri()),
    };
    let plan = server.plan(&request);
    let (head, body) = request.into_parts();
    let mut exchange = Exchange {
        endpoint,
        plan: Plan::default(),
        control,
        guard,
        version: head.version,
        head_only: head.method == http::Method::HEAD,
        hash: 0,
    };
    match plan {
        Ok(plan) => exchange.plan = plan,
        Err(message) => {
            let reply = exchange.error(StatusCode::BAD_REQUEST, &message);
            return Ok(exchange.respond(reply));
        }
    }
    if exchange.plan.unread {
        let reply = exchange.before_reply().await;
        let reply =
            reply.unwrap_or_else(|| exchange.error(StatusCode::BAD_REQUEST, "`unread` needs another fault"));
        return Ok(exchange.respond(reply));
    }
    let Some(endpoint) = endpoint else {
        return Ok(match plain::answer(server, exchange, head, body).await {
            Some(response) => response,
            // The request broke off: there is nobody to answer.
            None => std::future::pending().await,
        });
    };
    let body = match whole(body, server.options.max_body).await {
        Ok(body) => body,
        Err(Incomplete::TooLarge) => {
            let message = format!(
                "the request's body is larger than {} bytes",
                server.options.max_body
            );
            let reply = exchange.error(StatusCode::PAYLOAD_TOO_LARGE, &message);
            return Ok(exchange.respond(reply));
        }
        Err(Incomplete::Broken) => return Ok(std::future::pending().await),
    };
    exchange.guard.body(&body);
    exchange.hash = fnv(&body);
    let (exchange, reply): (Exchange, Reply) = vendor::answer(server, exchange, endpoint, &head, &body).await;
    Ok(exchange.respond(reply))
}

enum Incomplete {
    TooLarge,
    Broken,
}

async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Incomplete> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Incomplete::TooLarge),
        Err(_) => Err(Incomplete::Broken),
    }
}
