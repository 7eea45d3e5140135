//! Which requests an authentication plugin asks for credentials (plugins spec §0.4): the global consumers, rules with
//! a list of them, rules with consumers of their own, and `global_auth`.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tollgate_base::ConfigError;

use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// `allow`, where an empty list lets nobody in.
pub(crate) const ALLOW_FIELD: Field = field(
    "allow",
    "list of string",
    "In a rule: the consumers of the global config that may come; empty: nobody.",
);

/// What one config asks of its requests.
#[derive(Debug)]
pub(crate) enum Ask<C> {
    /// Nothing; the consumers are kept for the rules.
    Nothing(#[expect(dead_code, reason = "keeps alive what the rules share")] Option<Arc<C>>),
    /// Credentials of any of the consumers.
    Anyone(Arc<C>),
    /// Credentials of one of these.
    Only(Arc<C>, Allow),
}

impl<C> Ask<C> {
    /// The consumers whose credentials are asked for; `None`: nothing is.
    pub(crate) fn consumers(&self) -> Option<&Arc<C>> {
        match self {
            Self::Nothing(_) => None,
            Self::Anyone(consumers) | Self::Only(consumers, _) => Some(consumers),
        }
    }

    /// Whether the rule lets in somebody whose credentials are good; `None` for credentials that belong to nobody in
    /// particular.
    pub(crate) fn lets_in(&self, consumer: Option<&str>, empty: EmptyList) -> bool {
        let Self::Only(_, allow) = self else {
            return true;
        };
        match consumer {
            None => allow.is_empty(),
            Some(_) if allow.is_empty() => empty == EmptyList::Everybody,
            Some(name) => allow.contains(name),
        }
    }

    /// Whether a request that is known to come from this consumer gets past; for lists of what a caller may use. Only a
    /// name shows that credentials were good.
    pub(crate) fn admits(&self, consumer: Option<&str>, empty: EmptyList) -> bool {
        self.consumers().is_none() || (consumer.is_some() && self.lets_in(consumer, empty))
    }
}

/// Whom a rule's list without names lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyList {
    /// None of those that have a name.
    Nobody,
    /// All whose credentials are good.
    Everybody,
}

/// Names of consumers that a rule lets in.
#[derive(Debug, Default)]
pub(crate) struct Allow(HashSet<Box<str>>);

impl Allow {
    pub(crate) fn contains(&self, consumer: &str) -> bool {
        self.0.contains(consumer)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a plugin's configs are read.
pub(crate) struct Reader<C> {
    /// Fields of which one makes a config self-contained.
    pub(crate) own: &'static [&'static str],
    /// Reads consumers and what belongs to them.
    pub(crate) parse: fn(Strict<'_>, &ParseContext) -> Result<C, ConfigError>,
    /// Whether there is a consumer of this name.
    pub(crate) knows: fn(&C, &str) -> bool,
}

impl<C: Send + Sync + 'static> Reader<C> {
    /// Reads the global config, or one rule on top of it.
    pub(crate) fn read(
        &self,
        global: Option<&Value>,
        rule: Option<&Value>,
        context: &ParseContext,
    ) -> Result<Ask<C>, ConfigError> {
        match rule {
            Some(rule) => self.rule(global, Strict::of(rule)?, context),
            None => self.global(Strict::of(global.unwrap_or(&Value::Null))?, context),
        }
    }

    fn is_self_contained(&self, fields: Strict<'_>) -> bool {
        self.own.iter().any(|name| fields.has(name))
    }

    fn global(&self, fields: Strict<'_>, context: &ParseContext) -> Result<Ask<C>, ConfigError> {
        let asks_all = fields.flag("global_auth")?.unwrap_or(!context.has_rules());
        if !asks_all && !self.is_self_contained(fields) && context.has_rules() {
            // Only rules with consumers of their own.
            return Ok(Ask::Nothing(None));
        }
        let consumers = context.shared(|| (self.parse)(fields, context))?;
        Ok(match asks_all {
            true => Ask::Anyone(consumers),
            false => Ask::Nothing(Some(consumers)),
        })
    }

    fn rule(
        &self,
        global: Option<&Value>,
        fields: Strict<'_>,
        context: &ParseContext,
    ) -> Result<Ask<C>, ConfigError> {
        if self.is_self_contained(fields) {
            if fields.has("allow") {
                let text = "does not count next to consumers of the rule's own";
                context.warn(ConfigError::new("allow", text));
            }
            return Ok(Ask::Anyone(Arc::new((self.parse)(fields, context)?)));
        }
        let names = fields.texts("allow")?;
        if !fields.has("allow") {
            context.warn(ConfigError::new("allow", "is missing: taken as an empty list"));
        }
        let Some(global) = global
            .map(Strict::of)
            .transpose()?
            .filter(|global| self.is_self_contained(*global))
        else {
            let text = "the rule has no consumers, and no global config gives it any";
            return Err(ConfigError::new("", text));
        };
        let consumers = context.shared(|| (self.parse)(global, context))?;
        for (index, name) in names.iter().enumerate() {
            if !(self.knows)(&consumers, name) {
                let text = format!("no consumer has the name {name:?}");
                context.warn(ConfigError::new(format!("allow[{index}]"), text));
            }
        }
        Ok(Ask::Only(
            consumers,
            Allow(names.into_iter().map(Into::into).collect()),
        ))
    }
}
