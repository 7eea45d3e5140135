//! Turns the parser's events into values and positions.
//!
//! Follows yaml.v2 where YAML leaves a choice: the last of two equal keys wins, `<<` merges where it stands, a tag
//! that nobody knows is ignored. Aliases are copied, against a budget of values and bytes, so that a small text
//! cannot become a large document.

use std::collections::HashMap;

use base64::Engine as _;
use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::{Fault, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_NODES, Parsed, scalar};
use crate::position::{Position, Positions};

/// Reads every document of `text`, up to the first fault.
pub(crate) fn parse(text: &str, first_line: u32) -> Vec<Result<Parsed, Fault>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    // As in Go, a block scalar that the file ends in has no line break at its end.
    options.block_scalar_eof_without_line_feed = true;
    let mut composer = Composer {
        parser: Parser::new_from_str_with_options(text, options),
        first_line,
        anchors: HashMap::new(),
        nodes_left: MAX_DOCUMENT_NODES,
        bytes_left: MAX_DOCUMENT_BYTES,
    };
    let mut documents = Vec::new();
    loop {
        match composer.document() {
            Ok(Some(document)) => documents.push(Ok(document)),
            Ok(None) => return documents,
            Err(fault) => {
                documents.push(Err(fault));
                return documents;
            }
        }
    }
}

struct Composer<'t> {
    parser: Parser<'t, StrInput<'t>>,
    first_line: u32,
    anchors: HashMap<usize, Anchored>,
    nodes_left: usize,
    bytes_left: usize,
}

#[derive(Clone)]
struct Node {
    value: Value,
    positions: Positions,
}

struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

struct Key {
    text: String,
    is_merge: bool,
}

impl<'t> Composer<'t> {
    fn document(&mut self) -> Result<Option<Parsed>, Fault> {
        loop {
            let Some((event, span)) = self.next()? else {
                return Ok(None);
            };
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(..) => {
                    self.anchors.clear();
                    self.nodes_left = MAX_DOCUMENT_NODES;
                    self.bytes_left = MAX_DOCUMENT_BYTES;
                    let (event, span) = self.expect_next()?;
                    let node = self.node(event, span, 0)?;
                    if !node.value.is_null() {
                        return Ok(Some(Parsed {
                            value: node.value,
                            positions: node.positions,
                        }));
                    }
                }
                _ => return Err(self.fault(span.start, "content outside of a document")),
            }
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Fault> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(pair)) => Ok(Some(pair)),
            Some(Err(error)) => Err(self.fault(*error.marker(), &format!("invalid YAML: {}", error.info()))),
        }
    }

    fn expect_next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        let end = Position {
            line: self.first_line,
            column: 1,
        };
        self.next()?
            .ok_or_else(|| Fault::new(end, "invalid YAML: the document ends too early"))
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DOCUMENT_DEPTH {
            return Err(self.fault(
                span.start,
                &format!("nested deeper than {MAX_DOCUMENT_DEPTH} levels"),
            ));
        }
        let before = (self.nodes_left, self.bytes_left);
        let (node, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span.start),
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, text.len(), span.start)?;
                let value = self.scalar(&text, style, tag.as_deref(), span.start)?;
                (
                    Node {
                        value,
                        positions: Positions::scalar(self.place(span.start)),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(span.start, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(span.start, depth)?, anchor),
            _ => return Err(self.fault(span.start, "invalid YAML: a value is missing")),
        };
        if anchor != 0 {
            let (nodes, bytes) = (before.0 - self.nodes_left, before.1 - self.bytes_left);
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    nodes,
                    bytes,
                },
            );
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, marker: Marker) -> Result<Node, Fault> {
        // An alias inside its own anchor is known to the parser but not complete yet.
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(self.fault(marker, "an anchor contains itself"));
        };
        let (nodes, bytes, node) = (anchored.nodes, anchored.bytes, anchored.node.clone());
        self.spend(nodes, bytes, marker)?;
        let positions = node.positions.moved(self.place(marker));
        Ok(Node {
            value: node.value,
            positions,
        })
    }

    fn sequence(&mut self, marker: Marker, depth: usize) -> Result<Node, Fault> {
        self.spend(1, 0, marker)?;
        let mut values = Vec::new();
        let mut places = Vec::new();
        loop {
            let (event, span) = self.expect_next()?;
            if matches!(event, Event::SequenceEnd) {
                let positions = Positions::sequence(self.place(marker), places);
                return Ok(Node {
                    value: Value::Array(values),
                    positions,
                });
            }
            let item = self.node(event, span, depth + 1)?;
            values.push(item.value);
            places.push(item.positions);
        }
    }

    fn mapping(&mut self, marker: Marker, depth: usize) -> Result<Node, Fault> {
        self.spend(1, 0, marker)?;
        let mut fields = Map::new();
        let mut places: Vec<(Box<str>, Positions)> = Vec::new();
        loop {
            let (event, key_span) = self.expect_next()?;
            if matches!(event, Event::MappingEnd) {
                let positions = Positions::mapping(self.place(marker), places);
                return Ok(Node {
                    value: Value::Object(fields),
                    positions,
                });
            }
            let key = self.key(event, key_span)?;
            let (event, span) = self.expect_next()?;
            let child = self.node(event, span, depth + 1)?;
            if key.is_merge {
                self.merge(&mut fields, &mut places, child, key_span.start)?;
                continue;
            }
            places.push((
                key.text.as_str().into(),
                child.positions.moved(self.place(key_span.start)),
            ));
            fields.insert(key.text, child.value);
        }
    }

    /// A key is text in JSON: numbers are printed as Go prints them, everything else stays as written.
    fn key(&mut self, event: Event<'t>, span: Span) -> Result<Key, Fault> {
        let (text, style) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, text.len(), span.start)?;
                if anchor != 0 {
                    let value = self.scalar(&text, style, tag.as_deref(), span.start)?;
                    let node = Node {
                        value,
                        positions: Positions::scalar(self.place(span.start)),
                    };
                    self.anchors.insert(
                        anchor,
                        Anchored {
                            node,
                            nodes: 1,
                            bytes: text.len(),
                        },
                    );
                }
                (text, style)
            }
            Event::Alias(id) => {
                let node = self.alias(id, span.start)?;
                let text = match node.value {
                    Value::String(text) => text,
                    Value::Number(number) => scalar::number_as_go_prints(&number),
                    Value::Bool(truth) => truth.to_string(),
                    _ => return Err(self.fault(span.start, "a key must be a scalar")),
                };
                return Ok(Key {
                    text,
                    is_merge: false,
                });
            }
            _ => return Err(self.fault(span.start, "a key must be a scalar")),
        };
        if style != ScalarStyle::Plain {
            return Ok(Key {
                text: text.into_owned(),
                is_merge: false,
            });
        }
        match scalar::resolve(&text) {
            Ok(Value::Null) => Err(self.fault(span.start, "a key must not be empty")),
            Ok(Value::Number(number)) => Ok(Key {
                text: scalar::number_as_go_prints(&number),
                is_merge: false,
            }),
            _ => Ok(Key {
                is_merge: text == "<<",
                text: text.into_owned(),
            }),
        }
    }

    /// `<<`: the fields of a mapping, or of each mapping of a list, the first of which wins.
    fn merge(
        &mut self,
        fields: &mut Map<String, Value>,
        places: &mut Vec<(Box<str>, Positions)>,
        merged: Node,
        marker: Marker,
    ) -> Result<(), Fault> {
        let here = self.place(marker);
        let mappings = match merged.value {
            Value::Object(mapping) => vec![mapping],
            Value::Array(items) => {
                let mappings: Option<Vec<_>> = items
                    .into_iter()
                    .rev()
                    .map(|item| match item {
                        Value::Object(mapping) => Some(mapping),
                        _ => None,
                    })
                    .collect();
                mappings.ok_or_else(|| self.fault(marker, "`<<` needs a mapping or a list of mappings"))?
            }
            _ => return Err(self.fault(marker, "`<<` needs a mapping or a list of mappings")),
        };
        for (key, value) in mappings.into_iter().flatten() {
            let positions = merged
                .positions
                .subtree(&format!("[{key}]"))
                .cloned()
                .unwrap_or_default()
                .moved(here);
            places.push((key.as_str().into(), positions));
            fields.insert(key, value);
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        marker: Marker,
    ) -> Result<Value, Fault> {
        let resolved = |text: &str| scalar::resolve(text).map_err(|message| self.fault(marker, message));
        let Some(tag) = tag else {
            return match style {
                ScalarStyle::Plain => resolved(text),
                _ => Ok(Value::String(text.to_owned())),
            };
        };
        if tag.parts() == ("tag:yaml.org,2002:", "binary") {
            let compact: String = text.split_ascii_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(compact).ok();
            return match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(decoded) => Ok(Value::String(decoded)),
                None => Err(self.fault(marker, "`!!binary` does not hold base64 of UTF-8 text")),
            };
        }
        let value = match tag.core_suffix() {
            Some("int" | "float" | "bool" | "null") => resolved(text)?,
            _ => return Ok(Value::String(text.to_owned())),
        };
        let fits = match tag.core_suffix() {
            Some("int") => value.is_i64() || value.is_u64(),
            Some("float") => value.is_number(),
            Some("bool") => value.is_boolean(),
            _ => value.is_null(),
        };
        match fits {
            true => Ok(value),
            false => Err(self.fault(
                marker,
                &format!("the value does not fit its tag `{}`", tag.original()),
            )),
        }
    }

    fn spend(&mut self, nodes: usize, bytes: usize, marker: Marker) -> Result<(), Fault> {
        match (
            self.nodes_left.checked_sub(nodes),
            self.bytes_left.checked_sub(bytes),
        ) {
            (None, _) => Err(self.fault(
                marker,
                &format!("more than {MAX_DOCUMENT_NODES} values in one document"),
            )),
            (_, None) => Err(self.fault(
                marker,
                &format!("more than {MAX_DOCUMENT_BYTES} bytes in one document"),
            )),
            (Some(nodes), Some(bytes)) => {
                (self.nodes_left, self.bytes_left) = (nodes, bytes);
                Ok(())
            }
        }
    }

    fn place(&self, marker: Marker) -> Position {
        let line = u32::try_from(marker.line()).unwrap_or(u32::MAX);
        let column = u32::try_from(marker.col() + 1).unwrap_or(u32::MAX);
        Position {
            line: self.first_line.saturating_add(line.saturating_sub(1)),
            column,
        }
    }

    fn fault(&self, marker: Marker, message: &str) -> Fault {
        Fault::new(self.place(marker), message)
    }
}
