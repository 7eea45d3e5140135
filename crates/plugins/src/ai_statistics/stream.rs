//! Attributes taken from the events of a stream, one event at a time and in bounded memory (plugins spec §1.4).

use std::ops::Range;

use serde_json::Value;
use tollgate_body::path::{Path, PathValue};

use super::attribute::{Attribute, BuiltIn, Rule, ValueSource, is_nothing, typed};
use super::config::Config;
use super::text::Growing;
use super::tool_calls::ToolCalls;
use crate::answer_watch::Shape;

/// What the events so far make of the config's attributes.
#[derive(Debug, Default)]
pub(super) struct StreamValues {
    slots: Vec<Slot>,
    tool_calls: Option<ToolCalls>,
    /// The last event that was read held a piece of a call.
    in_calls: bool,
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
    /// What the last event that was read says of those of the same shape.
    again: Again,
}

/// What an event gives that differs from the last one in its text alone.
#[derive(Debug, Default)]
enum Again {
    /// Nothing.
    Nothing,
    /// Its text.
    Text,
    /// What the last one gave, to be appended once more.
    Constant(String),
    /// It must be read.
    #[default]
    Unknown,
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
            in_calls: false,
            limit,
        }
    }

    /// Takes one event's data in.
    pub(super) fn event(&mut self, config: &Config, data: &[u8], shape: &Shape<'_>) {
        for slot in &mut self.slots {
            let Some(attribute) = config.attributes.get(slot.attribute) else {
                continue;
            };
            if let Some(own) = &mut slot.own {
                own.event(data, shape, attribute.places.own.as_slice());
            }
            if let Some(gathering) = &mut slot.built_in {
                gathering.event(data, shape, &attribute.places.of_event);
            }
        }
        if let Some(calls) = &mut self.tool_calls
            && (self.in_calls || matches!(shape, Shape::Fresh(_)))
        {
            self.in_calls = calls.event(data, self.limit);
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
        let own = attribute
            .places
            .own
            .is_some()
            .then(|| Gathering::new(attribute.rule, limit));
        let rule = match attribute.built_in {
            // Higress needs the rule here too and so gives nothing where its own page leaves it out.
            Some(BuiltIn::Answer) => Some(attribute.rule.unwrap_or(Rule::Append)),
            Some(BuiltIn::Reasoning) => Some(Rule::Append),
            _ => None,
        };
        Self {
            attribute: position,
            own,
            built_in: rule
                .filter(|_| !attribute.places.of_event.is_empty())
                .map(|rule| Gathering::new(Some(rule), limit)),
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
            again: Again::Unknown,
        }
    }

    fn event(&mut self, data: &[u8], shape: &Shape<'_>, paths: &[Path]) {
        match (shape, &self.again) {
            (Shape::Fresh(place), _) => self.fresh(data, place.as_ref(), paths),
            (Shape::Same(_), Again::Unknown) => self.fresh(data, None, paths),
            (Shape::Same(_), Again::Nothing) => {}
            (Shape::Same(text), Again::Text) => self.again_text(text),
            (Shape::Same(_), Again::Constant(constant)) => {
                if let Some(text) = &mut self.text {
                    text.push(constant.as_bytes());
                }
            }
        }
    }

    fn fresh(&mut self, data: &[u8], text: Option<&Range<usize>>, paths: &[Path]) {
        self.again = Again::Nothing;
        if self.is_settled() {
            return;
        }
        let Some(found) = paths.iter().find_map(|at| at.get(data)) else {
            self.again = without(text, paths, Again::Nothing);
            return;
        };
        self.again = match found.place_in(data) {
            Some(place) if text.is_some_and(|text| place == (text.start - 1..text.end + 1)) => Again::Text,
            Some(place) if text.is_some_and(|text| place.end < text.start || place.start > text.end) => {
                match &self.text {
                    Some(_) => Again::Constant(found.text().into_owned()),
                    None => Again::Nothing,
                }
            }
            _ => Again::Unknown,
        };
        self.again = without(text, paths, std::mem::take(&mut self.again));
        self.take(&found);
    }

    /// Takes a string in, given with its quotes.
    fn again_text(&mut self, quoted: &[u8]) {
        let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        if let Some(text) = &mut self.text
            && memchr::memchr(b'\\', inside).is_none()
        {
            text.push(inside);
            self.value = Value::Bool(true);
            return;
        }
        self.take(&PathValue::string(quoted));
    }

    /// Nothing that follows can change the value.
    fn is_settled(&self) -> bool {
        self.rule.is_none() || (self.rule == Some(Rule::First) && !self.value.is_null())
    }

    fn take(&mut self, found: &PathValue<'_>) {
        if self.is_settled() {
            return;
        }
        match &mut self.text {
            Some(text) => {
                text.push(found.text().as_bytes());
                self.value = Value::Bool(true);
            }
            None => {
                let value = typed(found);
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

/// `again`, if every path leads to the same place in all events of a shape, whatever their text is.
fn without(text: Option<&Range<usize>>, paths: &[Path], again: Again) -> Again {
    if text.is_some() && paths.iter().all(Path::is_simple) {
        again
    } else {
        Again::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these events make of a path, with and without remembering their shape.
    fn gathered(rule: Rule, path: &str, events: &[String]) -> [Value; 2] {
        use crate::answer_watch::tests::shapes;
        let mut remembering = Gathering::new(Some(rule), 1000);
        let mut reading = Gathering::new(Some(rule), 1000);
        let paths = [Path::new(path)];
        let texts: Vec<&[u8]> = events.iter().map(String::as_bytes).collect();
        for (data, shape) in texts.iter().zip(shapes(&texts)) {
            remembering.event(data, &shape, &paths);
            reading.event(data, &Shape::Fresh(None), &paths);
        }
        [remembering.finish(), reading.finish()]
    }

    #[test]
    fn remembering_gives_what_reading_gives() {
        let event = |delta: &str, end: &str| {
            format!(
                r#"{{"id":"c1","n":[1,2.5],"choices":[{{"delta":{delta},"finish_reason":{end},"index":0}}],"tail":"t","none":null}}"#
            )
        };
        let mut events = vec![event(r#"{"role":"assistant","content":""}"#, "null")];
        for text in ["a", "", r#"b\"c\\"#, "你好", r"\u4f60\n", "}]{[", "null", "1"] {
            events.push(event(&format!(r#"{{"content":"{text}"}}"#), "null"));
        }
        for text in ["x", "y", r"\t"] {
            let delta = format!(r#"{{"reasoning_content":"{text}","content":null}}"#);
            events.push(event(&delta, "null"));
        }
        events.push(event(r#"{"content":"z"}"#, r#""stop""#));
        events.push(event("{}", r#""stop""#));
        let paths = [
            "choices.0.delta.content",
            "choices.0.delta.reasoning_content",
            "choices.0.delta",
            "choices.0.finish_reason",
            "choices.-1.index",
            "choices.#.delta.content",
            r#"choices.#(delta.content=="a").index"#,
            "choices.#",
            "id",
            "tail",
            "n",
            "n.1",
            "none",
            "missing",
            "choices.0.delta.@this",
            "choices.0.delta.con*",
        ];
        for rule in [Rule::First, Rule::Replace, Rule::Append] {
            for path in paths {
                let [remembered, read] = gathered(rule, path, &events);
                assert_eq!(remembered, read, "{rule:?} {path}");
            }
        }
    }
}
