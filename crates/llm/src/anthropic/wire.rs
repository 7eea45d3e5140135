//! Anthropic as a vendor: headers, Claude Code mode, and which APIs are translated (ai-proxy spec §9.6).

use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde_json::Value;

use super::{AnthropicStream, answer_from_vendor, request_for_vendor};
use crate::Api;
use crate::openai::RequestFault;
use crate::path;
use crate::providers::wire::{Outgoing, VendorStream, Wire};

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
const X_APP: HeaderName = HeaderName::from_static("x-app");

const DEFAULT_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
const CLAUDE_CODE_AGENT: HeaderValue = HeaderValue::from_static("claude-cli/2.1.2 (external, cli)");
const CLAUDE_CODE_APP: HeaderValue = HeaderValue::from_static("cli");
const CLAUDE_CODE_BETA: HeaderValue =
    HeaderValue::from_static("oauth-2025-04-20,interleaved-thinking-2025-05-14,claude-code-20250219");

/// The wire of provider `claude`.
#[derive(Debug)]
pub struct Anthropic {
    /// `claudeVersion`; `None` sends the client's own version, or the default.
    pub version: Option<HeaderValue>,
    /// `claudeCodeMode`.
    pub claude_code: bool,
}

impl Wire for Anthropic {
    fn translates(&self, api: Api) -> bool {
        api == Api::Chat
    }

    fn head(&self, headers: &mut HeaderMap, upstream_path: &mut String) {
        match &self.version {
            Some(version) => {
                headers.insert(ANTHROPIC_VERSION, version.clone());
            }
            None => {
                headers.entry(ANTHROPIC_VERSION).or_insert(DEFAULT_VERSION);
            }
        }
        if !self.claude_code {
            return;
        }
        headers.insert(USER_AGENT, CLAUDE_CODE_AGENT);
        headers.insert(X_APP, CLAUDE_CODE_APP);
        headers.insert(ANTHROPIC_BETA, CLAUDE_CODE_BETA);
        let (_, query) = path::split_query(upstream_path);
        if !query
            .trim_start_matches('?')
            .split('&')
            .any(|pair| pair == "beta=true")
        {
            *upstream_path = path::append_query(std::mem::take(upstream_path), "?beta=true");
        }
    }

    fn request(
        &self,
        _api: Api,
        request: &Value,
        _outgoing: &mut Outgoing<'_>,
    ) -> Result<Value, RequestFault> {
        request_for_vendor(request, self.claude_code)
    }

    fn answer(&self, _api: Api, model: &str, answer: &[u8]) -> Result<Value, String> {
        answer_from_vendor(answer, model)
    }

    fn stream(&self, _api: Api, model: &str, _with_tools: bool) -> Box<dyn VendorStream> {
        Box::new(AnthropicStream::new(model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let mut headers = HeaderMap::new();
        let mut path = "/v1/messages".to_owned();
        let mut wire = Anthropic {
            version: None,
            claude_code: false,
        };
        wire.head(&mut headers, &mut path);
        assert_eq!(headers[ANTHROPIC_VERSION], "2023-06-01");
        headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2024-01-01"));
        wire.head(&mut headers, &mut path);
        assert_eq!(headers[ANTHROPIC_VERSION], "2024-01-01", "the client's own");
        wire.version = Some(HeaderValue::from_static("2030-01-01"));
        wire.head(&mut headers, &mut path);
        assert_eq!(headers[ANTHROPIC_VERSION], "2030-01-01", "the configured one");
        assert_eq!(path, "/v1/messages");
    }

    #[test]
    fn claude_code_is_added_once() {
        let wire = Anthropic {
            version: None,
            claude_code: true,
        };
        let (mut headers, mut path) = (HeaderMap::new(), "/v1/messages?x=1".to_owned());
        wire.head(&mut headers, &mut path);
        wire.head(&mut headers, &mut path);
        assert_eq!(path, "/v1/messages?x=1&beta=true");
        assert_eq!(headers[X_APP], "cli");
        assert_eq!(headers[USER_AGENT], "claude-cli/2.1.2 (external, cli)");
    }
}
