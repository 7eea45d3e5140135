//! The request on its way to the vendor: what it is, what is read of it, and its new head and body (spec §3.1–3.2).

use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri, request};
use http_body::Body as _;
use tollgate_base::Error;
use tollgate_base::headers::{
    X_ENVOY_ORIGINAL_HOST, X_ENVOY_ORIGINAL_PATH, X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS, remove_all,
};
use tollgate_body::{Body, JsonBodyError, Request};
use tollgate_llm::openai::RequestFault;
use tollgate_llm::providers::config::Protocol;
use tollgate_llm::providers::request::{BodyContext, BodyFacts};
use tollgate_llm::providers::row::BodyRule;
use tollgate_llm::providers::wire::Outgoing;
use tollgate_llm::providers::{Provider, multipart};
use tollgate_llm::translate::AnswerPlan;
use tollgate_llm::{Api, Dialect, path};

use super::tokens::Choice;
use super::watch::Account;
use super::{BODY_LIMIT, BODY_LIMIT_NAME};

/// What a request turned out to be.
#[derive(Debug)]
pub(super) struct Plan {
    /// The API as the vendor sees it; `None` for a path we do not know.
    pub(super) api: Option<Api>,
    /// How the client speaks.
    pub(super) dialect: Dialect,
    /// The client speaks Anthropic and the vendor does not.
    claude_client: bool,
    /// Path and query that the vendor's path is made from.
    client_path: String,
    body: BodyUse,
    /// The whole body will be at hand, so that the request can be sent again.
    pub(super) repeatable: bool,
    /// Who is told what is asked.
    pub(super) account: Option<Rc<Account>>,
}

/// What is done with the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyUse {
    /// It streams through.
    Leave,
    /// It is read as JSON and edited.
    Json,
    /// It is read as a form, for the model's name.
    Form,
    /// It is refused unread: the vendor does not serve the API.
    Refuse,
}

impl Plan {
    /// Whether the conversation begins with the provider's context file.
    pub(super) fn takes_context(&self) -> bool {
        self.api == Some(Api::Chat) && self.body == BodyUse::Json
    }

    /// Whether the body passes through unread.
    pub(super) fn leaves_body(&self) -> bool {
        self.body == BodyUse::Leave
    }

    pub(super) fn of(provider: &Provider, request: &Request, account: Option<Rc<Account>>) -> Self {
        let sent = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let decoded = path::decoded(sent);
        let mut api = provider.api_of(&decoded);
        let dialect = api.map(Dialect::of_api).unwrap_or_default();
        let claude_client = api == Some(Api::AnthropicMessages)
            && provider.protocol == Protocol::OpenAi
            && !provider.serves(Api::AnthropicMessages)
            && provider.row.body != BodyRule::NeverRead;
        let client_path = if claude_client {
            api = Some(Api::Chat);
            let spelled = path::split_query(sent).0;
            let messages = if spelled.contains("/v1/messages") {
                spelled
            } else {
                &decoded
            };
            messages.replacen("/v1/messages", "/v1/chat/completions", 1)
        } else {
            sent.to_owned()
        };
        let body = api.map_or(BodyUse::Leave, |api| body_use(provider, api, request));
        Self {
            api,
            dialect,
            claude_client,
            client_path,
            body,
            repeatable: body != BodyUse::Leave || request.body().is_end_stream(),
            account,
        }
    }
}

fn body_use(provider: &Provider, api: Api, request: &Request) -> BodyUse {
    let headers = request.headers();
    if request.body().is_end_stream() || headers.contains_key(CONTENT_ENCODING) || is_websocket(headers) {
        return BodyUse::Leave;
    }
    let content_type = text(headers, CONTENT_TYPE);
    // What nearly every client says needs no search.
    let is_usual = content_type == "application/json";
    if !is_usual && (content_type.contains("octet-stream") || content_type.contains("grpc")) {
        return BodyUse::Leave;
    }
    let is_json = is_usual || content_type.is_empty() || content_type.contains("application/json");
    let is_form = api.takes_multipart() && multipart::is_form(content_type);
    if !is_json && !is_form {
        return BodyUse::Leave;
    }
    if provider.refuses(api) {
        return BodyUse::Refuse;
    }
    match provider.reads_body(api) {
        true if is_form => BodyUse::Form,
        true => BodyUse::Json,
        false => BodyUse::Leave,
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    text(headers, UPGRADE).eq_ignore_ascii_case("websocket")
        && text(headers, CONNECTION).to_ascii_lowercase().contains("upgrade")
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(super) struct Answerable {
    /// What has to be done to a 200; `None` leaves every answer alone.
    pub(super) plan: Option<AnswerPlan>,
    /// The answer came from the vendor, not from a plugin between here and there.
    pub(super) from_upstream: bool,
}

/// A copy of the request, for another token.
pub(super) struct Spare {
    parts: request::Parts,
    body: Bytes,
}

impl Spare {
    /// A copy, if the body is at hand.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let body = request.body().known_bytes()?;
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();
        parts.extensions = request.extensions().clone();
        Some(Self { parts, body })
    }

    /// The request with another token.
    pub(super) fn with_token(&self, provider: &Provider, token: &str) -> Option<Request> {
        let mut parts = self.parts.clone();
        provider.authorize(&mut parts.headers, token);
        Some(Request::from_parts(parts, Body::bytes(self.body.clone())))
    }
}

/// Makes it the upstream request. The inner error is a refusal; the outer one a body that could not be read.
pub(super) async fn prepare(
    provider: &Provider,
    plan: &Plan,
    request: &mut Request,
    choice: &Choice,
    context_file: Option<&str>,
) -> Result<Result<Answerable, RequestFault>, Error> {
    let mut upstream_path = provider.upstream_path(plan.api, &plan.client_path);
    // Apart, since the head may have to change with it.
    let mut body = request.body_mut().take();
    let headers = request.headers_mut();
    provider.authorize(headers, choice.token(provider));
    headers.remove(ACCEPT_ENCODING);
    if let Some(wire) = &provider.wire {
        wire.head(headers, &mut upstream_path);
    }
    let mut outgoing = Outgoing {
        provider,
        headers,
        path: &mut upstream_path,
    };
    let edited = edit_body(provider, plan, context_file, &mut body, &mut outgoing).await?;
    *request.body_mut() = body;
    let facts = match edited {
        Ok(facts) => facts,
        Err(fault) => return Ok(Err(fault)),
    };
    let model = facts.as_ref().map_or("", |facts| facts.model.as_str());
    upstream_path = provider.with_model(upstream_path, model);
    if let Err(fault) = set_target(provider, request, upstream_path) {
        return Ok(Err(fault));
    }
    if facts.is_some() {
        request.headers_mut().remove(CONTENT_LENGTH);
    }
    set_first_byte_timeout(provider, plan, facts.as_ref(), request.headers_mut());
    Ok(Ok(answerable(provider, plan, facts.unwrap_or_default())))
}

/// Reads and edits the body if it is to be; `None` when it streams through.
async fn edit_body(
    provider: &Provider,
    plan: &Plan,
    context_file: Option<&str>,
    body: &mut Body,
    outgoing: &mut Outgoing<'_>,
) -> Result<Result<Option<BodyFacts>, RequestFault>, Error> {
    let (Some(api), BodyUse::Json | BodyUse::Form | BodyUse::Refuse) = (plan.api, plan.body) else {
        return Ok(Ok(None));
    };
    let context = BodyContext {
        api,
        claude_client: plan.claude_client,
        context_file,
    };
    match plan.body {
        BodyUse::Refuse => return Ok(Err(RequestFault::Refused("unsupported API name".into()))),
        BodyUse::Form => {
            let form = body.buffer(BODY_LIMIT_NAME, BODY_LIMIT).await?;
            let edited = provider.edit_form(form, text(outgoing.headers, CONTENT_TYPE));
            return Ok(edited.map(|(bytes, facts)| {
                *body = Body::bytes(bytes);
                Some(facts)
            }));
        }
        BodyUse::Json | BodyUse::Leave => {}
    }
    match body.json(BODY_LIMIT_NAME, BODY_LIMIT).await {
        Ok(document) => {
            if let Some(account) = &plan.account {
                account.asked(&plan.client_path, document);
            }
            Ok(provider.edit_body(context, document, outgoing).map(Some))
        }
        Err(JsonBodyError::NotJson(cause)) => Ok(Err(provider.not_json(context, &cause))),
        Err(JsonBodyError::Unread(error)) => Err(error),
    }
}

/// Authority and path of the upstream request; what the client asked for is kept in `x-envoy-original-*`.
fn set_target(provider: &Provider, request: &mut Request, upstream_path: String) -> Result<(), RequestFault> {
    let fault =
        |cause: &dyn std::fmt::Display| RequestFault::BadRequest(format!("invalid upstream path: {cause}"));
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    let headers = request.headers_mut();
    remove_all(headers, |name| {
        matches!(name, "x-envoy-original-host" | "x-envoy-original-path")
    });
    let new_path = PathAndQuery::try_from(upstream_path).map_err(|cause| fault(&cause))?;
    if let Some(old) = target.path_and_query.take().filter(|old| *old != new_path) {
        let original = HeaderValue::from_str(old.as_str()).map_err(|cause| fault(&cause))?;
        headers.insert(X_ENVOY_ORIGINAL_PATH, original);
    }
    target.path_and_query = Some(new_path);
    if let Some(host) = provider.provider_domain.as_ref().or(provider.host.as_ref()) {
        if let Some(original) = replaced(target.authority.as_ref(), headers, host) {
            headers.insert(X_ENVOY_ORIGINAL_HOST, original);
        }
        if headers.contains_key(HOST) {
            let value = HeaderValue::from_str(host.as_str()).map_err(|cause| fault(&cause))?;
            headers.insert(HOST, value);
        }
        target.scheme.get_or_insert(Scheme::HTTP);
        target.authority = Some(host.clone());
    }
    *request.uri_mut() = Uri::from_parts(target).map_err(|cause| fault(&cause))?;
    Ok(())
}

/// The authority that the client named, in the target or in `Host`, unless it is `host` already.
fn replaced(named: Option<&Authority>, headers: &HeaderMap, host: &Authority) -> Option<HeaderValue> {
    let in_header = || headers.get(HOST)?.to_str().ok();
    let old = named.map(Authority::as_str).or_else(in_header)?;
    HeaderValue::from_str(old).ok().filter(|_| old != host.as_str())
}

/// The plan for the answer.
fn answerable(provider: &Provider, plan: &Plan, facts: BodyFacts) -> Answerable {
    Answerable {
        plan: plan.api.map(|api| AnswerPlan {
            api,
            model: facts.model,
            with_tools: facts.with_tools,
            claude_client: plan.claude_client,
            original: provider.protocol == Protocol::Original,
        }),
        from_upstream: true,
    }
}

/// `firstByteTimeout`: a header that the end of the chain understands and removes (spec §10.6). A client may not set it.
fn set_first_byte_timeout(
    provider: &Provider,
    plan: &Plan,
    facts: Option<&BodyFacts>,
    headers: &mut HeaderMap,
) {
    headers.remove(X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS);
    let Some(limit) = provider.first_byte_timeout else {
        return;
    };
    let streams = facts.is_some_and(|facts| facts.stream) && plan.api.is_some_and(Api::streams);
    if streams || provider.row.body == BodyRule::SettingsOnly {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        headers.insert(X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS, milliseconds.into());
    }
}
