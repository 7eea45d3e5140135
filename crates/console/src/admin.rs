//! The admin listener: `/stats/prometheus`, `/healthz/ready`, `/healthz/live`, `/config_dump`.
//!
//! It has no login and binds to loopback by default; nothing it shows holds a secret.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tollgate_base::Shutdown;
use tollgate_base::shutdown::Phase;

/// What the endpoints show; asked at each request.
pub trait Sight: Send + Sync + 'static {
    /// Prometheus text exposition.
    fn metrics(&self) -> String;
    /// Why the gateway is not ready; `Ok` once the first configuration is live and until it drains.
    ///
    /// # Errors
    /// The reason, one line.
    fn ready(&self) -> Result<(), String>;
    /// What is amiss without making the gateway unready, one line each.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
    /// The configuration in force and what was refused, secrets masked.
    fn config_dump(&self) -> serde_json::Value;
}

/// The endpoints.
pub fn router(sight: Arc<dyn Sight>) -> Router {
    Router::new()
        .route("/stats/prometheus", get(metrics))
        .route("/healthz/ready", get(ready))
        .route("/healthz/live", get(live))
        .route("/config_dump", get(config_dump))
        .with_state(sight)
}

/// Serves the endpoints until the gateway has stopped (probes still ask while it drains).
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, sight: Arc<dyn Sight>, mut shutdown: Shutdown) -> io::Result<()> {
    let stopped = async move { shutdown.reached(Phase::Stopped).await };
    axum::serve(listener, router(sight))
        .with_graceful_shutdown(stopped)
        .await
}

async fn metrics(State(sight): State<Arc<dyn Sight>>) -> Response {
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([content_type], sight.metrics()).into_response()
}

async fn ready(State(sight): State<Arc<dyn Sight>>) -> Response {
    match sight.ready() {
        Ok(()) => {
            let troubles = sight.troubles().into_iter().map(|trouble| trouble + "\n");
            (StatusCode::OK, format!("ready\n{}", troubles.collect::<String>())).into_response()
        }
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn live() -> &'static str {
    "live\n"
}

async fn config_dump(State(sight): State<Arc<dyn Sight>>) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    ([content_type], format!("{:#}\n", sight.config_dump())).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    struct Fixed(Result<(), String>);

    impl Sight for Fixed {
        fn metrics(&self) -> String {
            "# TYPE x counter\nx 1\n".to_owned()
        }
        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }
        fn config_dump(&self) -> serde_json::Value {
            serde_json::json!({"generation": 3})
        }
    }

    async fn ask(sight: Fixed, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("valid request");
        let response = router(Arc::new(sight))
            .oneshot(request)
            .await
            .expect("infallible");
        let status = response.status();
        let body = response.into_body().collect().await.expect("readable").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn readiness_says_why_not() {
        assert_eq!(
            ask(Fixed(Ok(())), "/healthz/ready").await,
            (StatusCode::OK, "ready\n".to_owned())
        );
        let draining = Fixed(Err("draining".to_owned()));
        assert_eq!(
            ask(draining, "/healthz/ready").await,
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        );
    }

    #[tokio::test]
    async fn live_metrics_and_dump() {
        assert_eq!(
            ask(Fixed(Err(String::new())), "/healthz/live").await.0,
            StatusCode::OK
        );
        assert!(ask(Fixed(Ok(())), "/stats/prometheus").await.1.contains("x 1"));
        assert!(
            ask(Fixed(Ok(())), "/config_dump")
                .await
                .1
                .contains("\"generation\": 3")
        );
        assert_eq!(ask(Fixed(Ok(())), "/nothing").await.0, StatusCode::NOT_FOUND);
    }
}
