//! `azure`: OpenAI's dialect on paths with a deployment in them (ai-proxy spec §9.2).
//!
//! `azureServiceUrl` names a whole endpoint (`…/openai/deployments/m/chat/completions`), a deployment
//! (`…/openai/deployments/m`) or only a host; the latter two take the API's path, with the mapped model as deployment
//! where the URL names none. Every query parameter of the URL goes along.

use tollgate_base::ConfigError;

use crate::Api;
use crate::lenient::Fields;

use super::Provider;
use super::config::{authority, no_token};
use super::row::PathRule;

/// APIs whose path names no deployment.
const WITHOUT_DEPLOYMENT: &[Api] = &[
    Api::Models,
    Api::Batches,
    Api::RetrieveBatch,
    Api::CancelBatch,
    Api::Files,
    Api::RetrieveFile,
    Api::RetrieveFileContent,
    Api::Responses,
];

pub(super) fn set_up(fields: Fields<'_>, provider: &mut Provider) -> Result<(), ConfigError> {
    let url = fields.text("azureServiceUrl");
    let fault = |text: String| ConfigError::new("azureServiceUrl", text);
    if url.is_empty() {
        return Err(fault("missing azureServiceUrl in provider config".into()));
    }
    let parsed: http::Uri = url
        .parse()
        .map_err(|cause| fault(format!("invalid azureServiceUrl: {cause}")))?;
    let query = parsed.query().unwrap_or_default();
    if !query.split('&').any(|pair| pair.starts_with("api-version=")) {
        return Err(fault(format!(
            "missing api-version query parameter in azureServiceUrl: {url}"
        )));
    }
    if provider.tokens.is_empty() {
        return Err(no_token());
    }
    let host = parsed
        .authority()
        .ok_or_else(|| fault("invalid azureServiceUrl: no host".into()))?;
    provider.host = Some(authority("azureServiceUrl", host.as_str())?);
    let (deployment, is_whole) = classify(parsed.path());
    if is_whole {
        provider.path = PathRule::FixedUnlessOriginal(format!("{}?{query}", parsed.path()).into());
        return Ok(());
    }
    for (api, path) in &mut provider.capabilities {
        let rest = path.strip_prefix("/v1").unwrap_or(path);
        *path = match (WITHOUT_DEPLOYMENT.contains(api), deployment) {
            (true, _) => format!("/openai{rest}"),
            (false, Some(name)) => format!("/openai/deployments/{name}{rest}"),
            (false, None) => format!("/openai/deployments/{{model}}{rest}"),
        }
        .into();
    }
    provider.path = PathRule::CapabilityWithQuery(query.into());
    Ok(())
}

/// The deployment that a URL's path names, and whether the path is a whole endpoint.
fn classify(path: &str) -> (Option<&str>, bool) {
    if path.is_empty() || path == "/" {
        return (None, false);
    }
    let Some(rest) = path.strip_prefix("/openai/deployments/") else {
        return (None, true);
    };
    match rest.trim_end_matches('/').split_once('/') {
        Some(_) => (None, true),
        None => (Some(rest.trim_end_matches('/')), false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn provider(url: &str) -> Provider {
        let config = json!({"type": "azure", "apiTokens": ["t"], "azureServiceUrl": url});
        Provider::parse(&config).unwrap()
    }

    fn path(url: &str, api: Api, client_path: &str) -> String {
        let provider = provider(url);
        provider.with_model(provider.upstream_path(Some(api), client_path), "gpt-3.5-turbo")
    }

    #[test]
    fn whole_deployment_and_domain() {
        let chat = "/v1/chat/completions";
        let whole = "https://r.azure.com/openai/deployments/d/chat/completions?api-version=V";
        assert_eq!(
            path(whole, Api::Chat, chat),
            "/openai/deployments/d/chat/completions?api-version=V"
        );
        let deployment = "https://r.azure.com/openai/deployments/only?api-version=V&x=1";
        assert_eq!(
            path(deployment, Api::Chat, chat),
            "/openai/deployments/only/chat/completions?api-version=V&x=1"
        );
        let domain = "https://r.azure.com?api-version=V";
        assert_eq!(
            path(domain, Api::Chat, chat),
            "/openai/deployments/gpt-3.5-turbo/chat/completions?api-version=V"
        );
        let files = "/v1/files?limit=10&purpose=assistants";
        assert_eq!(
            path(domain, Api::Files, files),
            "/openai/files?limit=10&purpose=assistants&api-version=V"
        );
        assert_eq!(
            path(domain, Api::Files, "/v1/files?"),
            "/openai/files?api-version=V"
        );
        assert_eq!(
            path(domain, Api::RetrieveFile, "/v1/files/f-1"),
            "/openai/files/f-1?api-version=V"
        );
        let responses = "https://r.azure.com/openai/responses?api-version=2025-04-01-preview";
        assert_eq!(
            path(responses, Api::Responses, "/v1/responses"),
            "/openai/responses?api-version=2025-04-01-preview"
        );
        let unread = provider(domain);
        let header_phase = unread.upstream_path(Some(Api::AudioTranscription), "/v1/audio/transcriptions");
        assert_eq!(
            unread.with_model(header_phase, ""),
            "/openai/deployments/placeholder/audio/transcriptions?api-version=V"
        );
        assert_eq!(unread.upstream_path(None, "/unknown?x=1"), "/unknown?x=1");
        assert_eq!(unread.host.unwrap().as_str(), "r.azure.com");
    }

    #[test]
    fn bad_urls() {
        let fault = |config: serde_json::Value| Provider::parse(&config).unwrap_err().to_string();
        assert_eq!(
            fault(json!({"type": "azure", "apiTokens": ["t"]})),
            "azureServiceUrl: missing azureServiceUrl in provider config"
        );
        let without_version = json!({"type": "azure", "apiTokens": ["t"], "azureServiceUrl": "https://r"});
        assert_eq!(
            fault(without_version),
            "azureServiceUrl: missing api-version query parameter in azureServiceUrl: https://r"
        );
        let broken = json!({"type": "azure", "apiTokens": ["t"], "azureServiceUrl": "ht tp://"});
        assert!(fault(broken).starts_with("azureServiceUrl: invalid azureServiceUrl: "));
        let no_token = json!({"type": "azure", "azureServiceUrl": "https://r?api-version=V"});
        assert_eq!(fault(no_token), "apiTokens: no apiToken found in provider config");
    }
}
