//! What one row of the vendor table says. Data only: a vendor that speaks OpenAI's dialect needs nothing else.

use tollgate_base::ConfigError;

use crate::Api;
use crate::lenient::Fields;

use super::Provider;

/// One vendor.
#[derive(Debug)]
pub struct Row {
    /// Value of `type` in the configuration.
    pub name: &'static str,
    /// Host of the vendor; `None` keeps the client's (or the configuration names it).
    pub host: Option<&'static str>,
    /// How the token is sent.
    pub auth: Auth,
    /// Whether `apiTokens` must not be empty.
    pub token_required: bool,
    /// APIs the vendor serves itself, and its path for each.
    pub capabilities: Capabilities,
    /// How the upstream path is found.
    pub path: PathRule,
    /// What becomes of a JSON body for an API the vendor does not serve.
    pub unsupported: Unsupported,
    /// What is changed in a request body that stays in OpenAI's dialect.
    pub body: BodyRule,
    /// APIs whose body is edited at all; empty means every API the vendor serves.
    pub edited_apis: &'static [Api],
    /// Substrings of a decoded path that name an API under `protocol: original`; empty means the general table.
    pub original_paths: PathSubstrings,
    /// The `developer` role stays as it is; all other vendors get `system` for it.
    pub keeps_developer: bool,
    /// Reads the vendor's own fields; returns what is wrong with them.
    pub set_up: SetUp,
    /// A small edit of the body that this vendor needs.
    pub edit: Option<super::edits::Edit>,
    /// A small edit of each streamed chunk that this vendor needs.
    pub chunk_edit: Option<super::edits::ChunkEdit>,
    /// Whether this build speaks the vendor's wire format; a config that names one it does not is refused.
    pub built: bool,
}

/// API → upstream path.
pub type Capabilities = &'static [(Api, &'static str)];

/// Substring of a path → API, the first that fits.
pub type PathSubstrings = &'static [(&'static str, Api)];

/// Reads a vendor's own fields into the provider under construction.
pub type SetUp = fn(Fields<'_>, &mut Provider) -> Result<(), ConfigError>;

/// How the token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// `Authorization: <token>`.
    Plain,
    /// The token in this header.
    Header(&'static str),
    /// Not at all.
    None,
    /// As bearer; without a configured token the client's own is used (`x-api-key`, `x-authorization`, `Authorization`).
    BearerOrClients,
    /// As bearer; without a configured token the client's `Authorization` stays as it is.
    BearerOrUntouched,
}

/// How the upstream path is found (ai-proxy spec §1.7 step 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRule {
    /// The capability's path; the client's for other APIs.
    Capability,
    /// Like `Capability`, but the client's under `protocol: original`.
    CapabilityUnlessOriginal,
    /// The client's.
    Keep,
    /// The capability's path, with this query (without `?`) behind the client's; the client's path for other APIs
    /// and under `protocol: original`.
    CapabilityWithQuery(Box<str>),
    /// Always this one, for every API; the client's query is dropped.
    Fixed(Box<str>),
    /// Like `Fixed`, but the client's under `protocol: original`.
    FixedUnlessOriginal(Box<str>),
}

/// What becomes of a JSON body for an API outside the capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// 500 `unsupported API name`.
    Reject,
    /// It is sent as it is.
    Pass,
}

/// What is changed in a request body that stays in OpenAI's dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// `model` is mapped; an absent one is mapped too and may become `""`.
    Model,
    /// `model` is mapped where there is one.
    ModelIfPresent,
    /// `model` is left alone.
    KeepModel,
    /// `model` is left alone and `stream_options` is not added.
    SettingsOnly,
    /// The body is never read.
    NeverRead,
}
