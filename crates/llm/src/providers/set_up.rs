//! Vendor fields of the OpenAI-like rows: each function reads its own and adjusts the provider (ai-proxy spec §1.3, §9).
//!
//! Runs after the common fields are in; the texts of faults are Higress's.

use tollgate_base::ConfigError;

use crate::anthropic::Anthropic;
use crate::dashscope::DashScope;
use crate::lenient::Fields;
use crate::path;

use super::Provider;
use super::config::{authority, not_supported};
use super::row::{Auth, Capabilities, PathRule};
use super::table;

/// Custom URLs of `openai` whose path is taken for every request.
const OPENAI_DIRECT: &[&str] = &[
    "/completions",
    "/embeddings",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/images/generations",
    "/images/variations",
    "/images/edits",
    "/models",
    "/responses",
    "/fine_tuning/jobs",
    "/fine_tuning/checkpoints",
    "/realtime",
    "/videos",
];

/// Custom URLs of `vllm` whose path is taken for every request.
const VLLM_DIRECT: &[&str] = &["/completions", "/rerank"];

pub(super) fn openai(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    custom_url(fields, "openaiCustomUrl", OPENAI_DIRECT, provider)?;
    let header = fields.text("authHeaderKey");
    if !header.is_empty() {
        let fault = |_| ConfigError::new("authHeaderKey", format!("invalid header name {header:?}"));
        provider.client_token_header = Some(header.parse().map_err(fault)?);
    }
    response_schema(fields, provider)
}

/// Host and path from a URL whose scheme does not matter: a known API at the end makes the path the only one,
/// otherwise it stands in front of each API's path without `/v1`.
fn custom_url(
    fields: Fields<'_>,
    name: &str,
    direct: &[&str],
    provider: &mut Provider,
) -> Result<(), ConfigError> {
    let text = fields.text(name);
    if text.is_empty() {
        return Ok(());
    }
    let without_scheme = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(&text);
    let (host, tail) = without_scheme.split_once('/').unwrap_or((without_scheme, ""));
    provider.host = Some(authority(name, host)?);
    let prefix = format!("/{tail}");
    if direct.iter().any(|ending| prefix.ends_with(ending)) {
        provider.path = PathRule::Fixed(prefix.into());
        return Ok(());
    }
    for (_, own) in &mut provider.capabilities {
        let canonical = own.strip_prefix("/v1").unwrap_or(own);
        *own = path::join(&prefix, canonical).into();
    }
    Ok(())
}

pub(super) fn response_schema(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    provider.response_schema = fields
        .get("responseJsonSchema")
        .filter(|value| value.is_object())
        .map(|value| value.to_string().into());
    Ok(())
}

/// Replaces the host where `name` is set.
fn own_host(fields: Fields<'_>, name: &str, provider: &mut Provider) -> Result<(), ConfigError> {
    let host = fields.text(name);
    if !host.is_empty() {
        provider.host = Some(authority(name, &host)?);
    }
    Ok(())
}

pub(super) fn claude(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    let version = ["claudeVersion", "apiVersion"]
        .into_iter()
        .map(|name| fields.text(name))
        .find(|text| !text.is_empty());
    let fault = |_| ConfigError::new("claudeVersion", "invalid header value");
    let claude_code = fields.flag("claudeCodeMode", false);
    if claude_code {
        provider.auth = Auth::Bearer;
    }
    provider.wire = Some(Box::new(Anthropic {
        version: version.map(|text| text.parse().map_err(fault)).transpose()?,
        claude_code,
    }));
    Ok(())
}

pub(super) fn cloudflare(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    let account = fields.text("cloudflareAccountId");
    let only = format!("/client/v4/accounts/{account}/ai/v1/chat/completions");
    provider.path = PathRule::Fixed(only.into());
    Ok(())
}

pub(super) fn doubao(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    own_host(fields, "doubaoDomain", provider)
}

pub(super) fn generic(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    own_host(fields, "genericHost", provider)
}

pub(super) fn hunyuan(fields: Fields<'_>, _: &mut Provider) -> Result<(), ConfigError> {
    let (id, key) = (fields.text("hunyuanAuthId"), fields.text("hunyuanAuthKey"));
    if id.is_empty() && key.is_empty() {
        return Ok(());
    }
    if id.len() != 36 || key.len() != 32 {
        let text = "hunyuanAuthId / hunyuanAuthKey is illegal in config file";
        return Err(ConfigError::new("hunyuanAuthId", text));
    }
    Err(not_supported("hunyuan with hunyuanAuthId"))
}

pub(super) fn minimax(fields: Fields<'_>, _: &mut Provider) -> Result<(), ConfigError> {
    if fields.text("minimaxApiType") != "pro" {
        return Ok(());
    }
    if fields.text("minimaxGroupId").is_empty() {
        let text = "missing minimaxGroupId in provider config when minimaxApiType is pro";
        return Err(ConfigError::new("minimaxGroupId", text));
    }
    Err(not_supported("minimax with minimaxApiType pro"))
}

pub(super) fn ollama(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    let host = fields.text("ollamaServerHost");
    if host.is_empty() {
        return Err(ConfigError::new(
            "ollamaServerHost",
            "missing ollamaServerHost in provider config",
        ));
    }
    let port = fields.count("ollamaServerPort");
    if port == 0 {
        return Err(ConfigError::new(
            "ollamaServerPort",
            "missing ollamaServerPort in provider config",
        ));
    }
    provider.host = Some(authority("ollamaServerHost", &format!("{host}:{port}"))?);
    Ok(())
}

pub(super) fn qwen(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    own_host(fields, "qwenDomain", provider)?;
    if fields.flag("qwenEnableCompatible", true) {
        return Ok(());
    }
    replace_capabilities(provider, table::QWEN_NATIVE);
    provider.path = PathRule::Capability;
    provider.wire = Some(Box::new(DashScope {
        enable_search: fields.flag("qwenEnableSearch", false),
        file_ids: fields.texts("qwenFileIds"),
        reasoning: provider.reasoning_mode,
    }));
    Ok(())
}

fn replace_capabilities(provider: &mut Provider, capabilities: Capabilities) {
    provider.capabilities = capabilities
        .iter()
        .map(|(api, own)| (*api, (*own).into()))
        .collect();
}

pub(super) fn vllm(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    let host = fields.text("vllmServerHost");
    if !host.is_empty() {
        let name = host.rsplit_once(':').map_or(host.as_str(), |parts| parts.0);
        provider.host = Some(authority("vllmServerHost", name)?);
    }
    custom_url(fields, "vllmCustomUrl", VLLM_DIRECT, provider)
}

pub(super) fn zhipuai(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    own_host(fields, "zhipuDomain", provider)?;
    if fields.flag("zhipuCodePlanMode", false) {
        for (api, own) in &mut provider.capabilities {
            if *api == crate::Api::Chat {
                *own = "/api/coding/paas/v4/chat/completions".into();
            }
        }
    }
    Ok(())
}
