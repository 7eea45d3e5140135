//! Which provider a config makes active (ai-proxy spec §1.1), and the documented fields.
//!
//! A rule inherits the global `providers`, never the choice among them.

use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_llm::lenient::Fields;
use tollgate_llm::providers::Provider;

use crate::table::{Field, ParseContext, field, overlay};

/// The active provider of a config; `None` leaves requests alone.
pub(super) fn active_provider(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Option<Provider>, ConfigError> {
    let chosen_by = rule.or(global);
    let Some(choice) = chosen_by.map(Fields::of) else {
        return Ok(None);
    };
    if let Some(legacy) = choice.get("provider").filter(|value| value.is_object()) {
        return parse(legacy, "provider", context).map(Some);
    }
    let wanted = choice.text("activeProviderId");
    if wanted.is_empty() {
        return Ok(None);
    }
    let merged = Value::Object(overlay(global, rule));
    let providers = merged.get("providers").and_then(Value::as_array);
    let found = providers
        .into_iter()
        .flatten()
        .enumerate()
        .find(|(_, provider)| Fields::of(provider).text("id") == wanted);
    match found {
        Some((position, provider)) => parse(provider, &format!("providers[{position}]"), context).map(Some),
        None => {
            let text = format!("no provider has the id {wanted:?}: requests are left alone");
            context.warn(ConfigError::new("activeProviderId", text));
            Ok(None)
        }
    }
}

fn parse(provider: &Value, place: &str, context: &ParseContext) -> Result<Provider, ConfigError> {
    let parsed = Provider::parse(provider).map_err(|fault| fault.within(place))?;
    for warning in &parsed.warnings {
        context.warn(warning.clone().within(place));
    }
    Ok(parsed)
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "provider",
        "object",
        "The one provider; wins over providers and activeProviderId. Fields: see providers[].",
    ),
    field(
        "providers",
        "list of object",
        "Providers to choose from; rules inherit the list.",
    ),
    field(
        "activeProviderId",
        "string",
        "id of the provider to use; absent: requests are left alone.",
    ),
    field("providers[].id", "string", "Name for activeProviderId."),
    field(
        "providers[].type",
        "string",
        "Vendor, one of the provider table's names. Required.",
    ),
    field(
        "providers[].apiTokens",
        "list of string",
        "Credentials; one is picked per request. Most vendors require one.",
    ),
    field(
        "providers[].protocol",
        "string",
        "openai (default): requests are translated; original: the client speaks the vendor's own dialect.",
    ),
    field(
        "providers[].modelMapping",
        "map of string",
        "Client's model to vendor's model: exact name, prefix* (longest first), ~regular expression, *.",
    ),
    field(
        "providers[].customSettings",
        "list of object",
        "name, value, mode (auto or raw), overwrite: values put into every request body.",
    ),
    field(
        "providers[].capabilities",
        "map of string",
        "API name to upstream path, for APIs the vendor's row does not have.",
    ),
    field(
        "providers[].basePath",
        "string",
        "Prefix that basePathHandling removes or prepends.",
    ),
    field(
        "providers[].basePathHandling",
        "string",
        "removePrefix (default) or prepend.",
    ),
    field(
        "providers[].providerDomain",
        "string",
        "Authority sent instead of the vendor's host.",
    ),
    field(
        "providers[].providerBasePath",
        "string",
        "Prefix put in front of the upstream path.",
    ),
    field(
        "providers[].firstByteTimeout",
        "integer",
        "Milliseconds a streaming request may take to its first byte; 0 (default) is off.",
    ),
    field(
        "providers[].reasoningContentMode",
        "string",
        "passthrough (default), ignore or concat; native qwen only.",
    ),
    field(
        "providers[].context",
        "object",
        "fileUrl, serviceName, servicePort: a text that every chat begins with, fetched once from that service.",
    ),
    field(
        "providers[].timeout",
        "integer",
        "Milliseconds that fetching the context may take; 120000 by default.",
    ),
    field(
        "providers[].contextCleanupCommands",
        "list of string",
        "User messages that make everything before them forgotten.",
    ),
    field(
        "providers[].mergeConsecutiveMessages",
        "boolean",
        "Joins neighbouring messages of the same role. Default false.",
    ),
    field(
        "providers[].promoteThinkingOnEmpty",
        "boolean",
        "A model that only thought gives its thoughts as the answer. Default false.",
    ),
    field(
        "providers[].hiclawMode",
        "boolean",
        "Turns on mergeConsecutiveMessages and promoteThinkingOnEmpty. Default false.",
    ),
    field(
        "providers[].failover",
        "object",
        "enabled, failureThreshold (3), successThreshold (1), healthCheckInterval (5000 ms), healthCheckTimeout (5000 ms), healthCheckModel (required), failoverOnStatus ([4.*, 5.*]): sets failing tokens aside.",
    ),
    field(
        "providers[].retryOnFailure",
        "object",
        "enabled, maxRetries (1), retryTimeout (60000 ms), retryOnStatus ([4.*, 5.*]): tries again with another token.",
    ),
    field(
        "providers[].openaiCustomUrl",
        "string",
        "openai: host and path in place of api.openai.com.",
    ),
    field(
        "providers[].responseJsonSchema",
        "object",
        "openai, longcat: sent as response_format of chat requests.",
    ),
    field(
        "providers[].authHeaderKey",
        "string",
        "openai: header that carries the client's own token when apiTokens is empty.",
    ),
    field(
        "providers[].azureServiceUrl",
        "string",
        "azure: URL with api-version; host only, deployment, or whole endpoint. Required.",
    ),
    field(
        "providers[].qwenEnableCompatible",
        "boolean",
        "qwen: OpenAI-compatible endpoints (default true) or DashScope's own.",
    ),
    field(
        "providers[].qwenEnableSearch",
        "boolean",
        "qwen, native: web search. Default false.",
    ),
    field(
        "providers[].qwenFileIds",
        "list of string",
        "qwen, native, model qwen-long: uploaded files of every conversation.",
    ),
    field(
        "providers[].qwenDomain",
        "string",
        "qwen: host. Default dashscope.aliyuncs.com.",
    ),
    field(
        "providers[].ollamaServerHost",
        "string",
        "ollama: host. Required.",
    ),
    field(
        "providers[].ollamaServerPort",
        "integer",
        "ollama: port. Required.",
    ),
    field(
        "providers[].claudeVersion",
        "string",
        "claude: anthropic-version. Default: the client's, else 2023-06-01.",
    ),
    field(
        "providers[].claudeCodeMode",
        "boolean",
        "claude: OAuth token and headers of Claude Code. Default false.",
    ),
    field(
        "providers[].cloudflareAccountId",
        "string",
        "cloudflare: account.",
    ),
    field(
        "providers[].doubaoDomain",
        "string",
        "doubao: host. Default ark.cn-beijing.volces.com.",
    ),
    field(
        "providers[].zhipuDomain",
        "string",
        "zhipuai: host. Default open.bigmodel.cn.",
    ),
    field(
        "providers[].zhipuCodePlanMode",
        "boolean",
        "zhipuai: the coding plan's chat path. Default false.",
    ),
    field("providers[].vllmCustomUrl", "string", "vllm: host and path."),
    field("providers[].vllmServerHost", "string", "vllm: host without port."),
    field(
        "providers[].genericHost",
        "string",
        "generic: host; absent keeps the client's.",
    ),
    field("providers[].minimaxApiType", "string", "minimax: v2 (default)."),
];
