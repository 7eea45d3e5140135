//! WasmPlugin (extensions.higress.io/v1alpha1): which plugin runs, in what order, with which config where.
//!
//! The configs stay raw JSON in file order: only the plugin knows their fields.

use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::lenient::named;
use crate::resource::{Body, Resource, read};

/// A WasmPlugin.
pub type WasmPlugin = Resource<WasmPluginSpec>;

/// `spec` of a WasmPlugin.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WasmPluginSpec {
    /// Where the module is: `oci://` (also without a scheme), `file://`, `http(s)://`.
    pub url: String,
    /// Digest of the module or image, checked when set.
    pub sha256: String,
    /// When an image is pulled again.
    pub image_pull_policy: ImagePullPolicy,
    /// Secret in the same namespace with registry credentials.
    pub image_pull_secret: String,
    /// PEM; read and not used, as in Higress.
    pub verification_key: String,
    /// Raw config; when set, `defaultConfig` and `matchRules` do not count.
    pub plugin_config: Option<Value>,
    /// Root id for modules with several plugins.
    pub plugin_name: String,
    /// Which part of the chain it runs in.
    pub phase: Phase,
    /// Higher runs first within a phase; unset runs last.
    pub priority: Option<i32>,
    /// What a request gets when the plugin cannot run.
    pub fail_strategy: FailStrategy,
    /// Environment of the module.
    pub vm_config: VmConfig,
    /// Config for all requests that no rule matches.
    pub default_config: Option<Value>,
    /// Whether `defaultConfig` is switched off.
    pub default_config_disable: bool,
    /// Configs for some routes, hosts or services; the first that matches wins.
    pub match_rules: Vec<MatchRule>,
}

/// A config and what it is for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MatchRule {
    /// Route names.
    pub ingress: Vec<String>,
    /// Hosts, possibly with a `*` at one end.
    pub domain: Vec<String>,
    /// Services, `host` or `host:port`.
    pub service: Vec<String>,
    /// Kind of route that `ingress` means.
    pub route_type: RouteType,
    /// The config; absent is the same as `{}`.
    pub config: Option<Value>,
    /// Whether the rule is switched off.
    pub config_disable: bool,
}

/// `vmConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct VmConfig {
    /// Environment variables.
    pub env: Vec<EnvVar>,
}

/// An environment variable of a module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Where the value comes from.
    pub value_from: EnvSource,
    /// The value, for `INLINE`.
    pub value: String,
}

/// Part of the chain. Requests pass AUTHN, AUTHZ, STATS and then the unspecified ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum Phase {
    #[default]
    Unspecified,
    Authn,
    Authz,
    Stats,
}

/// What happens when a plugin cannot be loaded or traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FailStrategy {
    /// The request is refused.
    #[default]
    Close,
    /// The plugin is skipped.
    Open,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ImagePullPolicy {
    /// `Always` for the tag `latest`, else `IfNotPresent`.
    #[default]
    Unspecified,
    /// Once.
    IfNotPresent,
    /// At each start.
    Always,
}

/// Kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub enum RouteType {
    #[default]
    Http,
    Grpc,
}

/// Source of an environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EnvSource {
    /// `value`.
    #[default]
    Inline,
    /// The gateway's own environment.
    Host,
}

/// Protobuf's JSON allows an enum as name or number.
macro_rules! enum_by_name_or_number {
    ($type:ty, $($name:literal = $number:literal => $value:expr),+ $(,)?) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                named(deserializer, &[$(($name, $number, $value)),+])
            }
        }
    };
}

enum_by_name_or_number!(
    Phase,
    "UNSPECIFIED_PHASE" = 0 => Phase::Unspecified,
    "AUTHN" = 1 => Phase::Authn,
    "AUTHZ" = 2 => Phase::Authz,
    "STATS" = 3 => Phase::Stats,
);
enum_by_name_or_number!(FailStrategy, "FAIL_CLOSE" = 0 => FailStrategy::Close, "FAIL_OPEN" = 1 => FailStrategy::Open);
enum_by_name_or_number!(
    ImagePullPolicy,
    "UNSPECIFIED_POLICY" = 0 => ImagePullPolicy::Unspecified,
    "IfNotPresent" = 1 => ImagePullPolicy::IfNotPresent,
    "Always" = 2 => ImagePullPolicy::Always,
);
enum_by_name_or_number!(RouteType, "HTTP" = 0 => RouteType::Http, "GRPC" = 1 => RouteType::Grpc);
enum_by_name_or_number!(EnvSource, "INLINE" = 0 => EnvSource::Inline, "HOST" = 1 => EnvSource::Host);

pub(crate) fn parse(document: &Document, namespace: Option<&str>) -> Result<WasmPlugin, Diagnostic> {
    let plugin: WasmPlugin = read(document, "WasmPlugin", namespace, Body::Spec)?;
    let spec = &plugin.spec;
    let configs = [
        ("spec.pluginConfig", &spec.plugin_config),
        ("spec.defaultConfig", &spec.default_config),
    ];
    for (field, config) in configs {
        refuse_unless_mapping(&plugin, field, config.as_ref())?;
    }
    for (index, rule) in spec.match_rules.iter().enumerate() {
        refuse_unless_mapping(
            &plugin,
            &format!("spec.matchRules[{index}].config"),
            rule.config.as_ref(),
        )?;
        let matches_nothing = rule.ingress.is_empty() && rule.domain.is_empty() && rule.service.is_empty();
        if matches_nothing && !rule.config_disable {
            let message = "the rule needs at least one of `ingress`, `domain`, `service`";
            return Err(plugin.error(&format!("spec.matchRules[{index}]"), message));
        }
    }
    Ok(plugin)
}

fn refuse_unless_mapping(plugin: &WasmPlugin, field: &str, config: Option<&Value>) -> Result<(), Diagnostic> {
    match config {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(plugin.error(field, "expected a mapping")),
    }
}
