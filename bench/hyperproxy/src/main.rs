//! The smallest honest hyper reverse proxy: what a Rust gateway costs before it does any of a gateway's work.
//!   bench-hyper LISTEN UPSTREAM stream   bodies pass through frame by frame
//!   bench-hyper LISTEN UPSTREAM json     the request is collected, parsed, its model replaced, and written out
//!                                        again; the reply is parsed for its usage
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, Uri, body::Incoming, header, service::service_fn};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Body = BoxBody<Bytes, hyper::Error>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Proxy {
    client: Client<HttpConnector, Body>,
    upstream: String,
    json: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, listen, upstream, mode] = arguments.as_slice() else {
        panic!("usage: bench-hyper LISTEN UPSTREAM stream|json");
    };
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let proxy = Proxy {
        client: Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1024)
            .build(connector),
        upstream: upstream.clone(),
        json: mode == "json",
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(listen, proxy));
}

async fn serve(listen: &str, proxy: Proxy) {
    let listener = TcpListener::bind(listen).await.expect("the address is free");
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let _ = socket.set_nodelay(true);
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let proxy = proxy.clone();
                async move { proxy.forward(request).await.map_err(std::io::Error::other) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

impl Proxy {
    async fn forward(self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = format!("http://{}{path}", self.upstream).parse::<Uri>()?;
        head.headers.remove(header::CONNECTION);
        let body = if self.json {
            let mut parsed: serde_json::Value =
                serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
            if parsed.is_object() {
                parsed["model"] = "qwen-turbo".into();
            }
            head.headers.remove(header::CONTENT_LENGTH);
            whole(serde_json::to_vec(&parsed)?.into())
        } else {
            body.boxed()
        };
        let response = self.client.request(Request::from_parts(head, body)).await?;
        let (mut head, body) = response.into_parts();
        head.headers.remove(header::CONNECTION);
        let is_stream = head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if !self.json || is_stream {
            return Ok(Response::from_parts(head, body.boxed()));
        }
        let bytes = body.collect().await?.to_bytes();
        let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(tokens) = parsed["usage"]["total_tokens"].as_u64() {
            head.headers.insert("x-tokens", tokens.into());
        }
        Ok(Response::from_parts(head, whole(bytes)))
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
