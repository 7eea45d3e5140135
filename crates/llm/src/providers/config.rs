//! A provider as configured: the common fields, checked in Higress's order and with its texts (ai-proxy spec §1.2–1.3).
//!
//! Order of the checks: protocol, context, failover, type, then the vendor's own fields; the first fault is reported.

use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use tollgate_base::{ConfigError, Secret};

use crate::Api;
use crate::lenient::Fields;

use super::context_file::ContextFile;
use super::custom_settings::{self, CustomSetting};
use super::head::bearer;
use super::model_mapping::ModelMapping;
use super::row::{Auth, PathRule, Row};
use super::table;
use super::wire::Wire;

/// A provider ready for requests. Immutable; state of failover lives with the plugin.
#[derive(Debug)]
pub struct Provider {
    /// Its vendor.
    pub row: &'static Row,
    /// `id`.
    pub id: String,
    /// `apiTokens`.
    pub tokens: Vec<Secret>,
    /// The same, each as the header that most vendors want it in; `None` where it cannot be one.
    pub(super) bearers: Vec<Option<HeaderValue>>,
    /// Whether requests are translated at all.
    pub protocol: Protocol,
    /// `modelMapping`.
    pub model_mapping: ModelMapping,
    /// `customSettings` that apply.
    pub custom_settings: Vec<CustomSetting>,
    /// `firstByteTimeout`; `None` is off.
    pub first_byte_timeout: Option<Duration>,
    /// `reasoningContentMode`.
    pub reasoning_mode: ReasoningMode,
    /// `basePath` with its handling; `None` when not set.
    pub base_path: Option<BasePath>,
    /// `providerDomain`.
    pub provider_domain: Option<Authority>,
    /// `providerBasePath`, as written.
    pub provider_base_path: String,
    /// `contextCleanupCommands`.
    pub cleanup_commands: Vec<String>,
    /// `mergeConsecutiveMessages`.
    pub merge_messages: bool,
    /// `promoteThinkingOnEmpty`.
    pub promote_thinking: bool,
    /// `context`.
    pub context: Option<ContextFile>,
    /// `timeout`: limit of the plugin's own calls. Default 2 minutes.
    pub call_timeout: Duration,
    /// `failover`, when enabled.
    pub failover: Option<Failover>,
    /// `retryOnFailure`, when enabled.
    pub retry: Option<RetryOnFailure>,
    /// Vendor's host; `None` keeps the client's.
    pub host: Option<Authority>,
    /// APIs served, with the upstream path of each.
    pub capabilities: Vec<(Api, Box<str>)>,
    /// How the upstream path is found.
    pub path: PathRule,
    /// How the token is sent.
    pub auth: Auth,
    /// Translation to another wire format; `None` speaks OpenAI's.
    pub wire: Option<Box<dyn Wire>>,
    /// `responseJsonSchema`, as JSON text.
    pub response_schema: Option<Box<str>>,
    /// `authHeaderKey`: header in which the client sends the vendor's token.
    pub client_token_header: Option<HeaderName>,
    /// Fields that Higress reads and ignores, or that do nothing here.
    pub warnings: Vec<ConfigError>,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The client speaks OpenAI's dialect or Anthropic's, found by the path.
    OpenAi,
    /// The client speaks the vendor's own dialect: bodies pass.
    Original,
}

/// `reasoningContentMode`: what a client sees of a model's reasoning (native qwen only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReasoningMode {
    /// As `reasoning_content`.
    #[default]
    PassThrough,
    /// Nothing.
    Ignore,
    /// In front of the content, in `<think>` tags.
    Concat,
}

/// `basePath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePath {
    /// The prefix.
    pub prefix: String,
    /// `basePathHandling`.
    pub handling: BasePathHandling,
}

/// `basePathHandling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePathHandling {
    /// The client's path loses the prefix.
    Remove,
    /// The upstream path gains it.
    Prepend,
    /// A value Higress does not know: nothing happens.
    Nothing,
}

/// `failover` (§6.2).
#[derive(Debug, Clone)]
pub struct Failover {
    /// Consecutive failures before a token is set aside.
    pub failure_threshold: u64,
    /// Successful probes before it comes back.
    pub success_threshold: u64,
    /// Between two probes.
    pub health_check_interval: Duration,
    /// Limit of a probe.
    pub health_check_timeout: Duration,
    /// Model of a probe.
    pub health_check_model: String,
    /// Statuses that count as failure.
    pub statuses: StatusPatterns,
}

/// `retryOnFailure` (§6.3).
#[derive(Debug, Clone)]
pub struct RetryOnFailure {
    /// Attempts after the first.
    pub max_retries: u64,
    /// Limit of one attempt.
    pub timeout: Duration,
    /// Statuses that are tried again with another token.
    pub statuses: StatusPatterns,
}

/// Statuses as regular expressions, searched for anywhere in the decimal text (`4.*` also finds 204, as in Higress).
#[derive(Debug, Clone)]
pub struct StatusPatterns(Vec<regex::Regex>);

impl StatusPatterns {
    fn parse(settings: Fields<'_>, name: &str) -> Self {
        let mut patterns = settings.texts(name);
        if patterns.is_empty() {
            patterns = vec!["4.*".to_owned(), "5.*".to_owned()];
        }
        // Higress lets an invalid pattern never match.
        Self(
            patterns
                .iter()
                .filter_map(|text| regex::Regex::new(text).ok())
                .collect(),
        )
    }

    /// Whether `status` is meant.
    #[must_use]
    pub fn matches(&self, status: http::StatusCode) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(status.as_str()))
    }
}

impl Provider {
    /// Compiles one provider object.
    ///
    /// # Errors
    /// The first fault, with Higress's text and the field that holds it.
    pub fn parse(config: &serde_json::Value) -> Result<Self, ConfigError> {
        let fields = Fields::of(config);
        let protocol = match fields.text("protocol").as_str() {
            "" | "openai" => Protocol::OpenAi,
            "original" => Protocol::Original,
            _ => return Err(ConfigError::new("protocol", "invalid protocol in config")),
        };
        let context = ContextFile::parse(fields)?;
        let failover = fields
            .object("failover")
            .filter(|settings| settings.flag("enabled", false))
            .map(Failover::parse)
            .transpose()?;
        let row = find_row(&fields.text("type"))?;
        let mut provider = Self::with_common_fields(row, fields, protocol, failover)?;
        provider.context = context;
        if row.token_required && provider.tokens.is_empty() {
            return Err(no_token());
        }
        (row.set_up)(fields, &mut provider)?;
        provider.add_configured_capabilities(fields);
        Ok(provider)
    }

    fn with_common_fields(
        row: &'static Row,
        fields: Fields<'_>,
        protocol: Protocol,
        failover: Option<Failover>,
    ) -> Result<Self, ConfigError> {
        let target = match protocol {
            Protocol::OpenAi => "openai",
            Protocol::Original => row.name,
        };
        let hiclaw = fields.flag("hiclawMode", false);
        let first_byte_ms = fields.count("firstByteTimeout");
        let domain = fields.text("providerDomain");
        let tokens: Vec<Secret> = fields.texts("apiTokens").into_iter().map(Secret::new).collect();
        Ok(Self {
            row,
            id: fields.text("id"),
            bearers: tokens.iter().map(|token| bearer(token.expose())).collect(),
            tokens,
            protocol,
            model_mapping: ModelMapping::parse(fields)?,
            custom_settings: custom_settings::parse(fields, target),
            first_byte_timeout: (first_byte_ms > 0).then(|| Duration::from_millis(first_byte_ms)),
            reasoning_mode: match fields.text("reasoningContentMode").to_ascii_lowercase().as_str() {
                "ignore" => ReasoningMode::Ignore,
                "concat" => ReasoningMode::Concat,
                _ => ReasoningMode::PassThrough,
            },
            base_path: BasePath::parse(fields),
            provider_domain: (!domain.is_empty())
                .then(|| authority("providerDomain", &domain))
                .transpose()?,
            provider_base_path: fields.text("providerBasePath"),
            cleanup_commands: fields
                .texts("contextCleanupCommands")
                .into_iter()
                .filter(|command| !command.is_empty())
                .collect(),
            merge_messages: hiclaw || fields.flag("mergeConsecutiveMessages", false),
            promote_thinking: hiclaw || fields.flag("promoteThinkingOnEmpty", false),
            context: None,
            call_timeout: Duration::from_millis(count_or(fields, "timeout", 120_000)),
            failover,
            retry: fields
                .object("retryOnFailure")
                .filter(|settings| settings.flag("enabled", false))
                .map(RetryOnFailure::parse),
            host: row.host.map(|host| authority("type", host)).transpose()?,
            capabilities: row
                .capabilities
                .iter()
                .map(|(api, path)| (*api, (*path).into()))
                .collect(),
            path: row.path.clone(),
            auth: row.auth,
            wire: None,
            response_schema: None,
            client_token_header: None,
            warnings: warnings(fields),
        })
    }

    /// The vendor's own path wins; the configuration can only add APIs (§1.6).
    fn add_configured_capabilities(&mut self, fields: Fields<'_>) {
        for (name, path) in fields.entries("capabilities") {
            let Some(api) = Api::of_name(name).filter(|api| api.is_configurable()) else {
                continue;
            };
            if !self.serves(api) {
                self.capabilities
                    .push((api, crate::lenient::text_of(path).into()));
            }
        }
    }

    /// Whether the vendor serves `api` itself.
    #[must_use]
    pub fn serves(&self, api: Api) -> bool {
        self.capability(api).is_some()
    }

    /// Upstream path of `api`, placeholders unfilled.
    #[must_use]
    pub fn capability(&self, api: Api) -> Option<&str> {
        self.capabilities
            .iter()
            .find(|row| row.0 == api)
            .map(|row| &*row.1)
    }
}

fn find_row(name: &str) -> Result<&'static Row, ConfigError> {
    if name.is_empty() {
        return Err(ConfigError::new("type", "missing type in provider config"));
    }
    let Some(row) = table::find(name) else {
        return Err(ConfigError::new("type", format!("unknown provider type: {name}")));
    };
    if !row.built {
        return Err(not_supported(name));
    }
    Ok(row)
}

pub(super) fn not_supported(name: &str) -> ConfigError {
    ConfigError::new("type", format!("provider type {name} is not supported yet"))
}

pub(super) fn no_token() -> ConfigError {
    ConfigError::new("apiTokens", "no apiToken found in provider config")
}

/// A host, with or without port, as it goes into `:authority`.
pub(super) fn authority(field: &str, text: &str) -> Result<Authority, ConfigError> {
    text.parse()
        .map_err(|_| ConfigError::new(field, format!("invalid host {text:?}")))
}

/// Fields that look as if they did something.
fn warnings(fields: Fields<'_>) -> Vec<ConfigError> {
    let ignored = [
        ("subPath", "subPath has no effect; use basePath"),
        ("apiToken", "apiToken has no effect; use apiTokens"),
        ("moonshotFileId", "moonshotFileId has no effect"),
    ];
    let present = ignored.into_iter().filter(|row| fields.get(row.0).is_some());
    present.map(|row| ConfigError::new(row.0, row.1)).collect()
}

impl BasePath {
    fn parse(fields: Fields<'_>) -> Option<Self> {
        let prefix = fields.text("basePath");
        if prefix.is_empty() {
            return None;
        }
        let handling = match fields.text("basePathHandling").as_str() {
            "" | "removePrefix" => BasePathHandling::Remove,
            "prepend" => BasePathHandling::Prepend,
            _ => BasePathHandling::Nothing,
        };
        Some(Self { prefix, handling })
    }
}

fn count_or(settings: Fields<'_>, name: &str, default: u64) -> u64 {
    match settings.count(name) {
        0 => default,
        count => count,
    }
}

impl Failover {
    fn parse(settings: Fields<'_>) -> Result<Self, ConfigError> {
        let model = settings.text("healthCheckModel");
        if model.is_empty() {
            return Err(ConfigError::new(
                "failover.healthCheckModel",
                "missing healthCheckModel in failover config",
            ));
        }
        Ok(Self {
            failure_threshold: count_or(settings, "failureThreshold", 3),
            success_threshold: count_or(settings, "successThreshold", 1),
            health_check_interval: Duration::from_millis(count_or(settings, "healthCheckInterval", 5000)),
            health_check_timeout: Duration::from_millis(count_or(settings, "healthCheckTimeout", 5000)),
            health_check_model: model,
            statuses: StatusPatterns::parse(settings, "failoverOnStatus"),
        })
    }
}

impl RetryOnFailure {
    fn parse(settings: Fields<'_>) -> Self {
        Self {
            max_retries: count_or(settings, "maxRetries", 1),
            timeout: Duration::from_millis(count_or(settings, "retryTimeout", 60_000)),
            statuses: StatusPatterns::parse(settings, "retryOnStatus"),
        }
    }
}
