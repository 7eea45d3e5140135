//! The request's own span, made of its record at settlement: Envoy's tags, OpenTelemetry's attributes of HTTP and of
//! generative AI, and the tags that plugins left.
//!
//! No query, no header but the user agent, no body: a key can stand in any of them.

use std::borrow::Cow;

use tollgate_base::{Flag, Termination};

use super::Wire;
use super::active::Active;
use super::attributes::{Attributes, Value};
use super::span::{Kind, Span};
use crate::Record;
use crate::access_log::{address_text, ip_text};

/// Attributes that there is room for at once; the request of a model has about as many.
const USUAL: usize = 48;

/// The span of a settled request.
pub(super) fn span(active: &Active, record: &Record, end: u64) -> Span {
    let mut attributes = Attributes::with_room(USUAL);
    let failure = failure(record);
    http(active, record, &mut attributes);
    generative(record, &mut attributes);
    if let Some(kind) = &failure {
        // Before what plugins left: of that there may be more than a span has room for.
        attributes.add("error", "true");
        attributes.add("error.type", Value::Text(kind.clone()));
    }
    left_by_plugins(record, failure.is_some(), &mut attributes);
    Span {
        kind: Kind::Entry,
        id: active.context.span,
        number: 0,
        name: name(active, record),
        start: active.nanoseconds(record.started),
        end,
        peer: address_text(record.connection.peer),
        error: failure.is_some(),
        message: Cow::Borrowed(""),
        attributes,
    }
}

/// The tags of plugins; what a request failed of is not theirs to say.
fn left_by_plugins(record: &Record, has_failed: bool, to: &mut Attributes) {
    for (name, value) in record.span_tags.borrow().iter() {
        if has_failed && matches!(&**name, "error" | "error.type") {
            continue;
        }
        match value.parse::<i64>() {
            // Plugins leave texts; these are numbers by convention.
            Ok(number) if name.starts_with("gen_ai.usage.") => to.set(name.clone(), Value::Number(number)),
            _ => to.set(name.clone(), value.clone()),
        }
    }
}

/// Method and route; SkyWalking's endpoints are paths.
fn name(active: &Active, record: &Record) -> Cow<'static, str> {
    if active.tracer.settings.wire == Wire::SkyWalking {
        return String::from(&*active.endpoint).into();
    }
    let method = record.original.method.as_str();
    match &*record.route.borrow() {
        Some(route) => [method, " ", route].concat().into(),
        None => method.to_owned().into(),
    }
}

/// `error.type` of a request that failed by its server's fault.
fn failure(record: &Record) -> Option<Cow<'static, str>> {
    let status = record.status.get();
    match record.termination.get() {
        Some(
            ended @ (Termination::Timeout(_)
            | Termination::UpstreamCut
            | Termination::UpstreamError
            | Termination::Shutdown),
        ) => Some(ended.name().into()),
        _ if status >= 500 => Some(status.to_string().into()),
        _ => None,
    }
}

fn http(active: &Active, record: &Record, to: &mut Attributes) {
    let original = &record.original;
    let scheme = if record.connection.tls { "https" } else { "http" };
    let (protocol, version) = match original.version {
        http::Version::HTTP_10 => ("HTTP/1.0", "1.0"),
        http::Version::HTTP_2 => ("HTTP/2", "2"),
        _ => ("HTTP/1.1", "1.1"),
    };
    let status = record.status.get();
    let text = |bytes: &http::HeaderValue| String::from_utf8_lossy(bytes.as_bytes()).into_owned();
    let (authority, path) = (&*original.authority, &*active.endpoint);
    let client = ip_text(record.connection.peer.ip());
    to.add("component", "proxy");
    to.add("guid:x-request-id", text(&record.request_id));
    to.add("http.url", [scheme, "://", authority, path].concat());
    to.add("http.method", original.method.as_str().to_owned());
    to.add("http.protocol", protocol);
    to.add("http.status_code", status.to_string());
    to.add("peer.address", client.clone());
    to.add("request_size", record.bytes_received.get().to_string());
    to.add("response_size", record.bytes_sent.get().to_string());
    let flags: Vec<_> = record.flags.get().iter().map(Flag::short_name).collect();
    to.add(
        "response_flags",
        if flags.is_empty() {
            "-".to_owned()
        } else {
            flags.join(",")
        },
    );
    if let Some(cluster) = &*record.cluster.borrow() {
        to.add("upstream_cluster", (**cluster).to_owned());
        to.add("upstream_cluster.name", (**cluster).to_owned());
    }
    if let Some(agent) = &active.user_agent {
        to.add("user_agent", text(agent));
        to.add("user_agent.original", text(agent));
    }
    to.add("http.request.method", original.method.as_str().to_owned());
    if status > 0 {
        to.add("http.response.status_code", status);
    }
    to.add("url.scheme", scheme);
    to.add("url.path", path.to_owned());
    to.add("server.address", host(authority));
    to.add("client.address", client);
    to.add("network.protocol.version", version);
    if let Some(route) = &*record.route.borrow() {
        to.add("tollgate.route", (**route).to_owned());
    }
    to.add("tollgate.attempts", u64::from(record.attempts.get()));
    if let Some(consumer) = &*record.consumer.borrow() {
        to.add("tollgate.consumer", (**consumer).to_owned());
    }
    if let Some(termination) = record.termination.get() {
        to.add("tollgate.termination", termination.name());
    }
}

/// Attributes of generative AI, semantic conventions 1.37, for a request that named or met a model.
fn generative(record: &Record, to: &mut Attributes) {
    let usage = record.usage.borrow();
    if usage.model_requested.is_none() && usage.model.is_none() && usage.source.is_none() {
        return;
    }
    if let Some(operation) = operation(record.original.path.path()) {
        to.add("gen_ai.operation.name", operation);
    }
    if let Some(vendor) = record.vendor.get() {
        to.add("gen_ai.provider.name", provider(vendor));
        // The name of the same before 1.37, which many backends still read.
        to.add("gen_ai.system", provider(vendor));
    }
    if let Some(model) = &usage.model_requested {
        to.add("gen_ai.request.model", (**model).to_owned());
    }
    if let Some(model) = &usage.model {
        to.add("gen_ai.response.model", (**model).to_owned());
    }
    if usage.source.is_some() {
        to.add("gen_ai.usage.input_tokens", usage.tokens.input);
        to.add("gen_ai.usage.output_tokens", usage.tokens.output);
    }
    if let Some(first) = usage.first_token.filter(|_| usage.streamed) {
        let taken = first.saturating_duration_since(record.started).as_millis();
        to.add(
            "tollgate.first_token_ms",
            u64::try_from(taken).unwrap_or(u64::MAX),
        );
    }
}

/// What kind of work a path asks a model for.
fn operation(path: &str) -> Option<&'static str> {
    let rows = [
        ("/chat/completions", "chat"),
        ("/messages", "chat"),
        ("/responses", "chat"),
        ("/completions", "text_completion"),
        ("/embeddings", "embeddings"),
        // `streamGenerateContent` too.
        ("enerateContent", "generate_content"),
        ("/images/generations", "generate_content"),
        ("/generation", "chat"),
    ];
    let found = rows.iter().find(|(end, _)| path.ends_with(end));
    found.map(|(_, name)| *name)
}

/// The conventions' name of a vendor; those that they do not know keep `ai-proxy`'s.
fn provider(vendor: &'static str) -> &'static str {
    match vendor {
        "azure" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "claude" => "anthropic",
        "gemini" => "gcp.gemini",
        "grok" => "x_ai",
        "mistral" => "mistral_ai",
        "vertex" => "gcp.vertex_ai",
        other => other,
    }
}

fn host(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => authority.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_vendors_own_paths() {
        for (path, name) in [
            ("/v1/chat/completions", Some("chat")),
            ("/openai/deployments/x/completions", Some("text_completion")),
            ("/api/v1/services/aigc/text-generation/generation", Some("chat")),
            ("/v1beta/models/m:generateContent", Some("generate_content")),
            ("/v1beta/models/m:streamGenerateContent", Some("generate_content")),
            ("/api/items", None),
        ] {
            assert_eq!(operation(path), name, "{path}");
        }
    }
}
