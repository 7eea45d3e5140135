//! Attributes taken from the events of a stream, one event at a time and in bounded memory (plugins spec §1.4).

use serde_json::Value;
use tollgate_body::path;

use super::attribute::{Attribute, BuiltIn, Rule, ValueSource, is_nothing, typed};
use super::config::Config;
use super::text::Growing;
use super::tool_calls::ToolCalls;

/// What the events so far make of the config's attributes.
#[derive(Debug, Default)]
pub(super) struct StreamValues {
    slots: Vec<Slot>,
    tool_calls: Option<ToolCalls>,
    limit: usize,
}

#[derive(Debug)]
struct Slot {
    /// Position of the attribute in the config.
    attribute: usize,
    /// By the config's own path.
    own: Option<Gathering>,
    /// By the built-in's paths.
    built_in: Option<Gathering>,
    is_tool_calls: bool,
}

#[derive(Debug)]
struct Gathering {
    rule: Option<Rule>,
    value: Value,
    text: Option<Growing>,
}

impl StreamValues {
    pub(super) fn new(config: &Config) -> Self {
        let source = ValueSource::ResponseStreamingBody;
        let numbered = config.attributes.iter().enumerate();
        let wanted = numbered.filter(|(_, attribute)| attribute.reads(source));
        let limit = config.value_limit;
        let slots: Vec<_> = wanted
            .map(|(position, attribute)| Slot::new(position, attribute, limit))
            .collect();
        let with_calls = config
            .attributes_of(source)
            .any(|attribute| attribute.built_in == Some(BuiltIn::ToolCalls));
        Self {
            slots,
            tool_calls: with_calls.then(ToolCalls::default),
            limit,
        }
    }

    /// Takes one event's data in.
    pub(super) fn event(&mut self, config: &Config, data: &[u8]) {
        for slot in &mut self.slots {
            let Some(attribute) = config.attributes.get(slot.attribute) else {
                continue;
            };
            if let Some(own) = &mut slot.own {
                own.take(data, &[attribute.value.as_str()]);
            }
            if let (Some(gathering), Some(built_in)) = (&mut slot.built_in, attribute.built_in) {
                gathering.take(data, built_in.event_paths());
            }
        }
        if let Some(calls) = &mut self.tool_calls {
            calls.event(data, self.limit);
        }
    }

    /// The values, each with its attribute's position.
    pub(super) fn finish(self) -> impl Iterator<Item = (usize, Value)> {
        let mut calls = self.tool_calls.map_or(Value::Null, ToolCalls::finish);
        self.slots.into_iter().map(move |slot| {
            let own = slot.own.map_or(Value::Null, Gathering::finish);
            let value = match slot.built_in {
                _ if !is_nothing(&own) => own,
                Some(gathering) => gathering.finish(),
                None => own,
            };
            if is_nothing(&value) && slot.is_tool_calls {
                return (slot.attribute, calls.take());
            }
            (slot.attribute, value)
        })
    }
}

impl Slot {
    fn new(position: usize, attribute: &Attribute, limit: usize) -> Self {
        let own = (!attribute.value.is_empty()).then(|| Gathering::new(attribute.rule, limit));
        let rule = match attribute.built_in {
            // Higress needs the rule here too and so gives nothing where its own page leaves it out.
            Some(BuiltIn::Answer) => Some(attribute.rule.unwrap_or(Rule::Append)),
            Some(BuiltIn::Reasoning) => Some(Rule::Append),
            _ => None,
        };
        Self {
            attribute: position,
            own,
            built_in: rule.map(|rule| Gathering::new(Some(rule), limit)),
            is_tool_calls: attribute.built_in == Some(BuiltIn::ToolCalls),
        }
    }
}

impl Gathering {
    fn new(rule: Option<Rule>, limit: usize) -> Self {
        Self {
            rule,
            value: Value::Null,
            text: (rule == Some(Rule::Append)).then(|| Growing::new(limit)),
        }
    }

    fn take(&mut self, data: &[u8], paths: &[&str]) {
        if self.rule.is_none() || (self.rule == Some(Rule::First) && !self.value.is_null()) {
            return;
        }
        let Some(found) = paths.iter().find_map(|at| path::get(data, at)) else {
            return;
        };
        match &mut self.text {
            Some(text) => {
                text.push(&found.text());
                self.value = Value::Bool(true);
            }
            None => {
                let value = typed(&found);
                if !value.is_null() {
                    self.value = value;
                }
            }
        }
    }

    fn finish(self) -> Value {
        match self.text {
            Some(_) if self.value.is_null() => Value::Null,
            Some(text) => text.finish().into(),
            None => self.value,
        }
    }
}
