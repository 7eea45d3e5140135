//! `$ref` in an OpenAPI document: written out before anything else reads the value, so that nothing else knows of them.
//!
//! Only references to elsewhere in the document are followed. How deep they go and how much they become is bounded: a
//! few lines can stand for a document without end.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Deepest nesting below a value.
const DEPTH: usize = 64;
/// Most values that the references below one value may become.
const VALUES: usize = 10_000;

/// The document that references are looked up in.
#[derive(Clone, Copy)]
pub(super) struct References<'d> {
    root: &'d Value,
}

impl<'d> References<'d> {
    pub(super) fn of(root: &'d Value) -> Self {
        Self { root }
    }

    /// The value with its references written out.
    pub(super) fn resolved(self, value: &'d Value) -> Result<Value, String> {
        let mut walk = Walk {
            root: self.root,
            open: Vec::new(),
            left: VALUES,
        };
        walk.value(value, DEPTH)
    }
}

struct Walk<'d> {
    root: &'d Value,
    /// The references that are being followed.
    open: Vec<&'d str>,
    left: usize,
}

impl<'d> Walk<'d> {
    fn value(&mut self, value: &'d Value, depth: usize) -> Result<Value, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("is nested more than {DEPTH} deep"));
        };
        if !self.open.is_empty() {
            let left = self.left.checked_sub(1);
            self.left = left.ok_or_else(|| format!("its references become more than {VALUES} values"))?;
        }
        match value {
            Value::Object(members) => match members.get("$ref").and_then(Value::as_str) {
                Some(reference) => self.reference(reference, members, depth),
                None => self.members(members.iter(), depth).map(Value::Object),
            },
            Value::Array(entries) => entries.iter().map(|entry| self.value(entry, depth)).collect(),
            other => Ok(other.clone()),
        }
    }

    fn members(
        &mut self,
        members: impl Iterator<Item = (&'d String, &'d Value)>,
        depth: usize,
    ) -> Result<Map<String, Value>, String> {
        members
            .map(|(name, value)| Ok((name.clone(), self.value(value, depth)?)))
            .collect()
    }

    /// What a reference stands for; what is written beside it counts more.
    fn reference(
        &mut self,
        reference: &'d str,
        members: &'d Map<String, Value>,
        depth: usize,
    ) -> Result<Value, String> {
        if self.open.contains(&reference) {
            return Err(format!("the reference {reference:?} leads back to itself"));
        }
        let pointer = reference
            .strip_prefix('#')
            .ok_or_else(|| format!("the reference {reference:?} leads out of the document"))?;
        let pointer = percent_decode_str(pointer).decode_utf8_lossy();
        let target = self
            .root
            .pointer(&pointer)
            .ok_or_else(|| format!("the reference {reference:?} leads nowhere"))?;
        self.open.push(reference);
        let mut found = self.value(target, depth)?;
        self.open.pop();
        let beside = members.iter().filter(|(name, _)| *name != "$ref");
        let beside = self.members(beside, depth)?;
        if let Value::Object(found) = &mut found {
            found.extend(beside);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(root: &Value, pointer: &str) -> Result<Value, String> {
        References::of(root).resolved(root.pointer(pointer).unwrap())
    }

    #[test]
    fn references_are_written_out_wherever_they_stand() {
        let root = json!({
            "use": {"a": [{"$ref": "#/parts/outer"}], "$ref": {"type": "string"}},
            "parts": {
                "outer": {"in": {"$ref": "#/parts/a~1b"}, "again": {"$ref": "#/parts/a~1%62", "x": 2}},
                "a/b": {"x": 1, "y": 1},
            },
        });
        let wanted =
            json!({"a": [{"in": {"x": 1, "y": 1}, "again": {"x": 2, "y": 1}}], "$ref": {"type": "string"}});
        assert_eq!(resolved(&root, "/use"), Ok(wanted));
    }

    #[test]
    fn references_that_cannot_be_followed_say_why() {
        let root = json!({
            "circle": {"$ref": "#/circle"},
            "tree": {"children": {"items": {"$ref": "#/tree"}}},
            "out": {"$ref": "other.yaml#/parts"},
            "nowhere": {"$ref": "#/parts"},
        });
        for (pointer, wanted) in [
            ("/circle", "the reference \"#/circle\" leads back to itself"),
            ("/tree", "the reference \"#/tree\" leads back to itself"),
            (
                "/out",
                "the reference \"other.yaml#/parts\" leads out of the document",
            ),
            ("/nowhere", "the reference \"#/parts\" leads nowhere"),
        ] {
            assert_eq!(resolved(&root, pointer), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn few_lines_do_not_become_many() {
        let mut parts = Map::new();
        parts.insert("0".to_owned(), json!({"type": "string"}));
        for number in 1..26 {
            let below = json!({"$ref": format!("#/{}", number - 1)});
            parts.insert(number.to_string(), json!({"a": below, "b": below}));
        }
        let root = Value::Object(parts);
        let told = resolved(&root, "/25").unwrap_err();
        assert_eq!(told, "its references become more than 10000 values");
        assert!(resolved(&root, "/8").is_ok());
        let chain = (0..DEPTH).fold(json!({}), |inner, _| json!({ "in": inner }));
        let told = References::of(&root).resolved(&chain).unwrap_err();
        assert_eq!(told, "is nested more than 64 deep");
    }
}
