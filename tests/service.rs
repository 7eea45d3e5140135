//! A real HTTP service beside the vendor's mock, for plugins that ask one: what it answers is each test's own business.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What it says to a request; `None`: nothing, ever.
type Answer = dyn Fn(&Parts) -> Option<Response<Full<Bytes>>> + Send + Sync;

/// A running service; ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// What it was asked and nobody has looked at yet.
    pub(crate) asked: Arc<Mutex<Vec<(Parts, Bytes)>>>,
    stop: Arc<Notify>,
    answer: Arc<Answer>,
}

impl Service {
    pub(crate) async fn start(
        address: &str,
        answer: impl Fn(&Parts) -> Option<Response<Full<Bytes>>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            stop: Arc::default(),
            answer: Arc::new(answer),
        };
        let served = service.clone();
        drop(tollgate_base::task::spawn("service of a test", async move {
            tokio::select! {
                () = served.accept(listener) => {}
                () = served.stop.notified() => {}
            }
        }));
        service
    }

    /// Closes its port and all its connections.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// The newest question.
    pub(crate) fn last(&self) -> (Parts, Bytes) {
        self.asked.lock().unwrap().pop().expect("nobody asked")
    }

    async fn accept(&self, listener: TcpListener) {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = self.clone();
            connections.spawn(async move {
                let answer = service_fn(|request| service.answer(request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                drop(connection.await);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let answer = (self.answer)(&head);
        self.asked.lock().unwrap().push((head, body));
        match answer {
            Some(answer) => Ok(answer),
            None => std::future::pending().await,
        }
    }
}
