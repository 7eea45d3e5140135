//! Reads a JSON value into a kind's struct the way Go and protobuf JSON would, wherever serde is stricter.
//!
//! A `null` field is an absent field; a boolean or number where the kind wants text is printed as Go prints it; a
//! number may come as decimal text. Unknown fields are ignored. Raw values (`serde_json::Value`, as for a plugin's
//! `config`) pass through untouched. Error messages say what was expected and what kind of value was found, never
//! the value, since it may be a secret.

use std::fmt::{self, Display};

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

use crate::yaml::number_as_go_prints;

/// A value that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LenientError(String);

impl Display for LenientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for LenientError {}

impl de::Error for LenientError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!(
            "expected {}, found {}",
            in_words(expected),
            sort_of(found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!(
            "expected {}, found another {}",
            in_words(expected),
            sort_of(found).trim_start_matches("a ")
        ))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("expected one of {}", expected.join(", ")))
    }
}

/// serde calls a number by its Rust type.
fn in_words(expected: &dyn de::Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" => "a whole number, not negative".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ => expected,
    }
}

fn sort_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a mapping",
        _ => "something else",
    }
}

fn found(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(truth) => Unexpected::Bool(*truth),
        Value::Number(_) => Unexpected::Signed(0),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// A deserializer over a borrowed value.
#[derive(Clone, Copy)]
pub(crate) struct Lenient<'v>(pub(crate) &'v Value);

impl<'v> Lenient<'v> {
    fn text<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::Bool(truth) => visitor.visit_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => visitor.visit_string(number_as_go_prints(number)),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) | Value::Object(_) => Err(de::Error::invalid_type(found(self.0), &visitor)),
        }
    }

    fn number<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => match text.parse::<Number>() {
                Ok(number) => visit_number(&number, visitor),
                Err(_) => Err(de::Error::invalid_type(found(self.0), &visitor)),
            },
            other => Err(de::Error::invalid_type(found(other), &visitor)),
        }
    }
}

fn visit_number<'v, V: Visitor<'v>>(number: &Number, visitor: V) -> Result<V::Value, LenientError> {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(unsigned), _, _) => visitor.visit_u64(unsigned),
        (_, Some(signed), _) => visitor.visit_i64(signed),
        (_, _, Some(float)) => visitor.visit_f64(float),
        _ => Err(de::Error::invalid_type(Unexpected::Signed(0), &visitor)),
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
            self.number(visitor)
        })*
    };
}

impl<'v> Deserializer<'v> for Lenient<'v> {
    type Error = LenientError;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(*truth),
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(fields) => visitor.visit_map(Fields::new(fields, Nulls::Keep)),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'v>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, LenientError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'v>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields::new(fields, Nulls::Skip)),
            other => Err(de::Error::invalid_type(found(other), &"a mapping")),
        }
    }

    fn deserialize_enum<V: Visitor<'v>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            other => Err(de::Error::invalid_type(found(other), &"a name")),
        }
    }

    fn deserialize_map<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Object(fields) => visitor.visit_map(Fields::new(fields, Nulls::Keep)),
            other => Err(de::Error::invalid_type(found(other), &"a mapping")),
        }
    }

    fn deserialize_seq<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, LenientError> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            other => Err(de::Error::invalid_type(found(other), &"a list")),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'v>>
        bool char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    /// A field of a struct: `null` means "not set".
    Skip,
    /// An entry of a map of data: `null` is a value.
    Keep,
}

struct Fields<'v> {
    entries: serde_json::map::Iter<'v>,
    nulls: Nulls,
    next: Option<&'v Value>,
}

impl<'v> Fields<'v> {
    fn new(fields: &'v Map<String, Value>, nulls: Nulls) -> Self {
        Self {
            entries: fields.iter(),
            nulls,
            next: None,
        }
    }
}

impl<'v> MapAccess<'v> for Fields<'v> {
    type Error = LenientError;

    fn next_key_seed<K: DeserializeSeed<'v>>(&mut self, seed: K) -> Result<Option<K::Value>, LenientError> {
        for (key, value) in self.entries.by_ref() {
            if value.is_null() && self.nulls == Nulls::Skip {
                continue;
            }
            self.next = Some(value);
            return seed.deserialize(key.as_str().into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'v>>(&mut self, seed: S) -> Result<S::Value, LenientError> {
        match self.next.take() {
            Some(value) => seed.deserialize(Lenient(value)),
            None => Err(de::Error::custom("a value is missing")),
        }
    }
}

struct Items<'v>(std::slice::Iter<'v, Value>);

impl<'v> SeqAccess<'v> for Items<'v> {
    type Error = LenientError;

    fn next_element_seed<S: DeserializeSeed<'v>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, LenientError> {
        self.0
            .next()
            .map(|item| seed.deserialize(Lenient(item)))
            .transpose()
    }
}

/// The fields of `value` that `T` does not know, as paths. For types that list every field there is.
pub(crate) fn unknown_fields<'v, T: Deserialize<'v>>(value: &'v Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let result: Result<T, LenientError> =
        serde_ignored::deserialize(Lenient(value), |path| unknown.push(written(&path)));
    match result {
        Ok(_) => unknown,
        // Whoever reads the value in earnest reports the error.
        Err(_) => Vec::new(),
    }
}

/// A path as everybody writes it: `registries[0].name`.
fn written(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            written(parent)
        }
    }
}

/// Reads an enum that may be written as a name or as its number, against a table of `(name, number, value)`.
pub(crate) fn named<'de, D, T>(
    deserializer: D,
    table: &'static [(&'static str, u64, T)],
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Copy + 'static,
{
    deserializer.deserialize_any(Named(table))
}

struct Named<T: 'static>(&'static [(&'static str, u64, T)]);

impl<T: Copy> Named<T> {
    fn pick<E: de::Error>(&self, matches: impl Fn(&str, u64) -> bool) -> Result<T, E> {
        let row = self.0.iter().find(|(name, number, _)| matches(name, *number));
        row.map(|(_, _, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|(name, _, _)| *name).collect();
            E::custom(format!("expected one of {}", names.join(", ")))
        })
    }
}

impl<T: Copy> Visitor<'_> for Named<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|(name, _, _)| *name).collect();
        write!(formatter, "one of {}", names.join(", "))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.pick(|name, _| name == text)
    }

    fn visit_u64<E: de::Error>(self, wanted: u64) -> Result<T, E> {
        self.pick(|_, number| number == wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug, Default, PartialEq)]
    #[serde(default, rename_all = "camelCase")]
    struct Sample {
        host_name: String,
        port: u32,
        priority: Option<i32>,
        enabled: bool,
        list: Vec<String>,
        map: BTreeMap<String, String>,
        raw: Option<Value>,
        #[serde(deserialize_with = "phase")]
        phase: u8,
    }

    fn phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
        named(deserializer, &[("NONE", 0, 10), ("AUTHN", 1, 11)])
    }

    fn read(value: &Value) -> Result<Sample, String> {
        serde_path_to_error::deserialize(Lenient(value)).map_err(|error| {
            let path = error.path().to_string();
            format!("{path}: {}", error.into_inner())
        })
    }

    #[test]
    fn reads_what_go_reads() {
        let value = json!({
            "hostName": true, "port": "443", "priority": -1, "list": [1, "a", 1.5], "unknown": {"x": []},
            "map": {"a": 10, "b": false, "c": null}, "raw": {"keep": [null, 1.0, {"n": null}]}, "phase": "AUTHN"
        });
        let sample = read(&value).unwrap();
        assert_eq!(sample.host_name, "true");
        assert_eq!((sample.port, sample.priority, sample.phase), (443, Some(-1), 11));
        assert_eq!(sample.list, ["1", "a", "1.5"]);
        let map: Vec<(&str, &str)> = sample.map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(map, [("a", "10"), ("b", "false"), ("c", "")]);
        assert_eq!(sample.raw, Some(json!({"keep": [null, 1.0, {"n": null}]})));
    }

    #[test]
    fn null_is_absent() {
        let value =
            json!({"hostName": null, "port": null, "list": null, "map": null, "raw": null, "phase": null});
        assert_eq!(read(&value), Ok(Sample::default()));
    }

    #[test]
    fn errors_name_the_path_and_never_the_value() {
        let cases = [
            (
                json!({"port": "top-secret"}),
                "port: expected a whole number from 0 to 4294967295, found a string",
            ),
            (
                json!({"port": -1}),
                "port: expected a whole number from 0 to 4294967295, found another number",
            ),
            (
                json!({"port": 5_000_000_000_u64}),
                "port: expected a whole number from 0 to 4294967295, found another number",
            ),
            (
                json!({"hostName": ["top-secret"]}),
                "hostName: expected a string, found a list",
            ),
            (
                json!({"enabled": "top-secret"}),
                "enabled: expected a boolean, found a string",
            ),
            (
                json!({"list": "top-secret"}),
                "list: expected a list, found a string",
            ),
            (
                json!({"list": ["a", {"top-secret": 1}]}),
                "list[1]: expected a string, found a mapping",
            ),
            (
                json!({"map": {"a/b": {"top-secret": 1}}}),
                "map.a/b: expected a string, found a mapping",
            ),
            (
                json!({"phase": "top-secret"}),
                "phase: expected one of NONE, AUTHN",
            ),
            (json!({"phase": 7}), "phase: expected one of NONE, AUTHN"),
        ];
        for (value, message) in cases {
            assert_eq!(read(&value).unwrap_err(), message);
        }
    }
}
