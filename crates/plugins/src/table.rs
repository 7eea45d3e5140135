//! The table of built-in plugins: name, default place in the chain, parser and documented fields.
//!
//! `tollgate plugins`, the schema, the docs page and the console's form are made of these rows.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Map, Value};
use tollgate_base::ConfigError;
use tollgate_plugin::{Phase, Plugin};
use tollgate_store::Stores;

use crate::{
    ai_agent, ai_budget, ai_json_resp, ai_prompt_decorator, ai_prompt_template, ai_proxy, ai_quota,
    ai_statistics, ai_token_ratelimit, basic_auth, bot_detect, chatgpt_proxy, cluster_key_rate_limit, cors,
    ext_auth, hmac_auth, hmac_auth_apisix, ip_restriction, jwt_auth, key_auth, key_rate_limit, model_list,
    request_block, simple_jwt_auth,
};

/// One built-in plugin.
#[derive(Debug)]
pub struct Row {
    /// Higress's name, the last part of the image's path.
    pub name: &'static str,
    /// Phase by Higress's documentation; a WasmPlugin's own phase counts.
    pub phase: Phase,
    /// Priority by Higress's documentation; a WasmPlugin's own priority counts.
    pub priority: i32,
    /// Compiles one config.
    pub parse: Parse,
    /// Whether a rule starts from the global config; otherwise it stands alone.
    pub rules_inherit: bool,
    /// Top-level fields of the config.
    pub fields: &'static [Field],
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// Compiles one config of a plugin: `(global, None)` is the global config itself, `(global, Some(rule))` one rule on
/// top of it (`global` is `None` when there is none or it is to be ignored). Whether the rule inherits is the
/// parser's business; [`overlay`] helps.
///
/// # Errors
/// The first fault, with the field that holds it.
pub type Parse = fn(Option<&Value>, Option<&Value>, &ParseContext) -> Result<Arc<dyn Plugin>, ConfigError>;

/// What a parser is told besides the config, and what it tells besides the result.
#[derive(Debug, Default)]
pub struct ParseContext {
    warnings: RefCell<Vec<ConfigError>>,
    annotations: BTreeMap<String, String>,
    has_rules: bool,
    shared: Shared,
    stores: Stores,
}

impl ParseContext {
    /// For one config of a plugin: whether it has rules besides the global config, and what its configs share.
    #[must_use]
    pub fn new(has_rules: bool, shared: Shared) -> Self {
        Self {
            warnings: RefCell::default(),
            annotations: BTreeMap::new(),
            has_rules,
            shared,
            stores: Stores::default(),
        }
    }

    /// The same for an object with these annotations.
    #[must_use]
    pub fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }

    /// An extension of ours (`tollgate.dev/…`) that the object asks for in its annotations.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Whether the plugin has rules. Authentication asks: with rules, requests outside them may pass.
    pub fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// What `make` makes of the plugin's global config: made once for all rules that build on it, and kept over
    /// reloads as long as somebody uses it.
    ///
    /// # Errors
    /// What `make` returned; a failure is not kept.
    pub fn shared<T: Any + Send + Sync>(
        &self,
        make: impl FnOnce() -> Result<T, ConfigError>,
    ) -> Result<Arc<T>, ConfigError> {
        let mut slot = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = slot.as_ref().and_then(Weak::upgrade);
        if let Some(made) = kept.and_then(|any| any.downcast::<T>().ok()) {
            return Ok(made);
        }
        let made = Arc::new(make()?);
        let any: Arc<dyn Any + Send + Sync> = made.clone();
        *slot = Some(Arc::downgrade(&any));
        Ok(made)
    }

    /// The same with the process's stores; without them nothing is connected and memory counts.
    #[must_use]
    pub fn with_stores(mut self, stores: Stores) -> Self {
        self.stores = stores;
        self
    }

    /// Where plugins count.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// A field that is accepted and does nothing.
    pub fn warn(&self, warning: ConfigError) {
        self.warnings.borrow_mut().push(warning);
    }

    /// The warnings so far, taken out.
    pub fn take_warnings(&self) -> Vec<ConfigError> {
        self.warnings.take()
    }
}

/// What the configs of one plugin share; see [`ParseContext::shared`]. Clones are one.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Option<Weak<dyn Any + Send + Sync>>>>);

impl Shared {
    /// Whether anything in it is still used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().is_some_and(|kept| kept.strong_count() > 0)
    }
}

/// It may hold secrets: nothing of it is shown.
impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shared")
    }
}

/// One documented field of a config.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Path in the config; `[]` for the entries of a list.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `object`, `list of …`, `map of …`.
    pub kind: &'static str,
    /// Meaning, unit and default.
    pub doc: &'static str,
}

/// A field as the plugins list theirs.
pub(crate) const fn field(name: &'static str, kind: &'static str, doc: &'static str) -> Field {
    Field { name, kind, doc }
}

impl Row {
    /// Whether the plugin decides who gets in. Where such a config cannot be used, nobody gets in.
    #[must_use]
    pub fn guards(&self) -> bool {
        matches!(self.phase, Phase::Authn | Phase::Authz)
    }
}

/// Fields of several lists in one; `N` is how many there are.
pub(crate) const fn joined<const N: usize>(lists: &[&[Field]]) -> [Field; N] {
    const NONE: Field = Field {
        name: "",
        kind: "",
        doc: "",
    };
    let mut all = [NONE; N];
    let (mut list, mut at) = (0, 0);
    while list < lists.len() {
        let mut position = 0;
        while position < lists[list].len() {
            all[at] = lists[list][position];
            at += 1;
            position += 1;
        }
        list += 1;
    }
    all
}

/// The row of a plugin name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// A rule's config on top of the global one: the rule's members replace members of the same name.
#[must_use]
pub fn overlay(global: Option<&Value>, rule: Option<&Value>) -> Map<String, Value> {
    let mut merged = Map::new();
    for members in [global, rule].into_iter().flatten().filter_map(Value::as_object) {
        merged.extend(members.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    merged
}

/// Every built-in plugin, by name.
pub static ROWS: &[Row] = &[
    Row {
        name: "ai-agent",
        phase: Phase::Unspecified,
        priority: 200,
        parse: ai_agent::parse,
        rules_inherit: false,
        fields: ai_agent::FIELDS,
        doc: "Lets a model use the APIs that OpenAPI documents describe, and answers with what it found.",
    },
    Row {
        name: "ai-budget",
        phase: Phase::Unspecified,
        priority: 740,
        parse: ai_budget::parse,
        rules_inherit: false,
        fields: ai_budget::FIELDS,
        doc: "Gives each consumer so much money a day and a month, by the price table.",
    },
    Row {
        name: "ai-json-resp",
        phase: Phase::Unspecified,
        priority: 150,
        parse: ai_json_resp::parse,
        rules_inherit: false,
        fields: ai_json_resp::FIELDS,
        doc: "Makes a model's answer JSON of a wanted shape: takes it out of the text, checks it, and has it repaired.",
    },
    Row {
        name: "ai-prompt-decorator",
        phase: Phase::Unspecified,
        priority: 450,
        parse: ai_prompt_decorator::parse,
        rules_inherit: false,
        fields: ai_prompt_decorator::FIELDS,
        doc: "Puts messages in front of and behind a conversation, and replaces texts in it.",
    },
    Row {
        name: "ai-prompt-template",
        phase: Phase::Unspecified,
        priority: 500,
        parse: ai_prompt_template::parse,
        rules_inherit: false,
        fields: ai_prompt_template::FIELDS,
        doc: "Makes requests of templates that the config holds, filled with the client's values.",
    },
    Row {
        name: "ai-proxy",
        phase: Phase::Unspecified,
        priority: 100,
        parse: ai_proxy::parse,
        rules_inherit: true,
        fields: ai_proxy::FIELDS,
        doc: "Lets clients of OpenAI's and Anthropic's APIs talk to any vendor: credentials, host, path, model and wire format.",
    },
    Row {
        name: "ai-quota",
        phase: Phase::Unspecified,
        priority: 750,
        parse: ai_quota::parse,
        rules_inherit: false,
        fields: &ai_quota::FIELDS,
        doc: "Gives each consumer so many tokens until an administrator gives more.",
    },
    Row {
        name: "ai-statistics",
        phase: Phase::Unspecified,
        priority: 200,
        parse: ai_statistics::parse,
        rules_inherit: false,
        fields: ai_statistics::FIELDS,
        doc: "Counts tokens and durations of AI requests, and puts chosen values into log and span.",
    },
    Row {
        name: "ai-token-ratelimit",
        phase: Phase::Unspecified,
        priority: 600,
        parse: ai_token_ratelimit::parse,
        rules_inherit: false,
        fields: &ai_token_ratelimit::FIELDS,
        doc: "Limits tokens a second, minute, hour or day by header, parameter, cookie, consumer or address.",
    },
    Row {
        name: "basic-auth",
        phase: Phase::Authn,
        priority: 320,
        parse: basic_auth::parse,
        rules_inherit: true,
        fields: basic_auth::FIELDS,
        doc: "Lets in who presents a known name and password, and says which consumer it is.",
    },
    Row {
        name: "bot-detect",
        phase: Phase::Authz,
        priority: 310,
        parse: bot_detect::parse,
        rules_inherit: false,
        fields: bot_detect::FIELDS,
        doc: "Keeps crawlers out by what they call themselves.",
    },
    Row {
        name: "chatgpt-proxy",
        phase: Phase::Authz,
        priority: 1,
        parse: chatgpt_proxy::parse,
        rules_inherit: false,
        fields: chatgpt_proxy::FIELDS,
        doc: "Asks a completion model what a parameter of the URL says, and answers with what it says.",
    },
    Row {
        name: "cluster-key-rate-limit",
        phase: Phase::Unspecified,
        priority: 20,
        parse: cluster_key_rate_limit::parse,
        rules_inherit: false,
        fields: &cluster_key_rate_limit::FIELDS,
        doc: "Limits requests by header, parameter, cookie, consumer or address, over all gateways that share a Redis.",
    },
    Row {
        name: "cors",
        phase: Phase::Authz,
        priority: 340,
        parse: cors::parse,
        rules_inherit: false,
        fields: cors::FIELDS,
        doc: "Says which pages of other origins may ask, and answers browsers' preflights.",
    },
    Row {
        name: "ext-auth",
        phase: Phase::Authn,
        priority: 360,
        parse: ext_auth::parse,
        rules_inherit: false,
        fields: ext_auth::FIELDS,
        doc: "Asks a service of yours whether a request may come.",
    },
    Row {
        name: "hmac-auth",
        phase: Phase::Authn,
        priority: 330,
        parse: hmac_auth::parse,
        rules_inherit: true,
        fields: hmac_auth::FIELDS,
        doc: "Lets in who signs a request with a known secret, and says which consumer it is.",
    },
    Row {
        name: "hmac-auth-apisix",
        phase: Phase::Authn,
        priority: 330,
        parse: hmac_auth_apisix::parse,
        rules_inherit: true,
        fields: hmac_auth_apisix::FIELDS,
        doc: "Lets in who signs a request as Apache APISIX's clients do, and says which consumer it is.",
    },
    Row {
        name: "ip-restriction",
        phase: Phase::Authn,
        priority: 210,
        parse: ip_restriction::parse,
        rules_inherit: false,
        fields: ip_restriction::FIELDS,
        doc: "Lets in, or keeps out, by the client's address.",
    },
    Row {
        name: "jwt-auth",
        phase: Phase::Authn,
        priority: 340,
        parse: jwt_auth::parse,
        rules_inherit: true,
        fields: jwt_auth::FIELDS,
        doc: "Lets in who carries a JSON Web Token that a consumer's keys have signed, and says which consumer it is.",
    },
    Row {
        name: "key-auth",
        phase: Phase::Authn,
        priority: 310,
        parse: key_auth::parse,
        rules_inherit: true,
        fields: key_auth::FIELDS,
        doc: "Lets in who presents a key, in a header or a parameter, and says which consumer it is.",
    },
    Row {
        name: "key-rate-limit",
        phase: Phase::Unspecified,
        priority: 10,
        parse: key_rate_limit::parse,
        rules_inherit: false,
        fields: key_rate_limit::FIELDS,
        doc: "Limits requests a second, minute, hour or day for listed keys, in this gateway.",
    },
    Row {
        name: "model-list",
        phase: Phase::Unspecified,
        priority: 730,
        parse: model_list::parse,
        rules_inherit: false,
        fields: model_list::FIELDS,
        doc: "Answers GET /v1/models with the models of all routes that the caller may use.",
    },
    Row {
        name: "request-block",
        phase: Phase::Authz,
        priority: 320,
        parse: request_block::parse,
        rules_inherit: false,
        fields: request_block::FIELDS,
        doc: "Refuses requests by texts and patterns in their URL, headers and body.",
    },
    Row {
        name: "simple-jwt-auth",
        phase: Phase::Authn,
        priority: 200,
        parse: simple_jwt_auth::parse,
        rules_inherit: false,
        fields: simple_jwt_auth::FIELDS,
        doc: "Lets in who carries a JSON Web Token that one shared secret has signed.",
    },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Folders of what several plugins share.
    const SHARED: &[&str] = &["answer-watch", "coding", "jwt", "limits"];

    #[test]
    fn every_folder_has_a_row_and_every_row_a_folder() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders: Vec<String> = fs::read_dir(source)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().replace('_', "-"))
            .filter(|folder| !SHARED.contains(&folder.as_str()))
            .collect();
        folders.sort();
        let names: Vec<_> = ROWS.iter().map(|row| row.name.to_owned()).collect();
        assert_eq!(folders, names, "rows are in alphabetical order, one per folder");
    }

    #[test]
    fn fields_are_documented_once() {
        for row in ROWS {
            for (index, field) in row.fields.iter().enumerate() {
                assert!(
                    !field.doc.is_empty() && !field.kind.is_empty(),
                    "{} {}",
                    row.name,
                    field.name
                );
                let again = row.fields[index + 1..]
                    .iter()
                    .any(|other| other.name == field.name);
                assert!(!again, "{} {}", row.name, field.name);
            }
        }
    }

    #[test]
    fn a_rule_overlays_the_global_config() {
        let merged = overlay(
            Some(&json!({"a": 1, "b": {"x": 1}})),
            Some(&json!({"b": {"y": 2}, "c": 3})),
        );
        assert_eq!(Value::Object(merged), json!({"a": 1, "b": {"y": 2}, "c": 3}));
        assert!(overlay(None, Some(&json!("text"))).is_empty());
    }
}
