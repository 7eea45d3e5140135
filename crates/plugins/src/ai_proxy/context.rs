//! The text of a provider's context file: fetched with the first chat that needs it, kept as long as the config.
//!
//! A failure is not kept: the next chat tries again. Requests that arrive together may each fetch it.

use std::sync::OnceLock;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Scheme;
use http::{StatusCode, Uri};
use tollgate_base::Error;
use tollgate_body::{Body, Request};
use tollgate_llm::providers::context_file::ContextFile;
use tollgate_plugin::{Exchange, Next, cluster_name};

/// Name and size of the limit on the text.
const LIMIT_NAME: &str = "context file limit";
const LIMIT: usize = 4 * 1024 * 1024;

/// Shared by all workers.
#[derive(Default)]
pub(super) struct ContextText(OnceLock<String>);

impl ContextText {
    /// The text; fetched if nobody has done so yet.
    ///
    /// # Errors
    /// Why it could not be had: the service, its status, or its text.
    pub(super) async fn get(
        &self,
        file: &ContextFile,
        limit: Duration,
        exchange: &Exchange,
        next: Next<'_>,
    ) -> Result<&str, String> {
        if self.0.get().is_none() {
            let text = fetch(file, limit, exchange, next).await?;
            return Ok(self.0.get_or_init(|| text));
        }
        Ok(self.0.get().map_or("", String::as_str))
    }
}

async fn fetch(
    file: &ContextFile,
    limit: Duration,
    exchange: &Exchange,
    next: Next<'_>,
) -> Result<String, String> {
    let caller = next.caller(exchange);
    let cluster = cluster_name(&file.service, file.port);
    let request = request(file).map_err(|cause| cause.to_string())?;
    let answer = caller.call(&cluster, request, limit).await;
    let mut response = answer.map_err(|cause| told(&cause))?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!(
            "failed to load context file, status: {}",
            status.as_u16()
        ));
    }
    let body = response.body_mut().buffer(LIMIT_NAME, LIMIT).await;
    let bytes = body.map_err(|cause| told(&cause))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| "the context file is not UTF-8 text".to_owned())
}

fn request(file: &ContextFile) -> Result<Request, http::Error> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(file.authority.clone())
        .path_and_query(file.path.clone())
        .build()?;
    let host = HeaderValue::from_str(file.authority.as_str())?;
    http::Request::get(uri).header(HOST, host).body(Body::empty())
}

fn told(cause: &Error) -> String {
    format!("failed to load context file: {cause}")
}
