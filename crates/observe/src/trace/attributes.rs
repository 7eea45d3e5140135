//! Attributes of a span: bounded in number and length, so that a span stays small whatever a client sends.

use std::borrow::Cow;

/// Attributes that one span keeps.
pub const MAX_ATTRIBUTES: usize = 64;
/// Bytes of a value that are kept; what ai-statistics allows a value fits.
pub const MAX_VALUE: usize = 4096;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl Value {
    /// At most as much of it as is kept, cut at a character.
    fn cut(mut self) -> Self {
        if let Value::Text(text) = &mut self
            && text.len() > MAX_VALUE
        {
            let end = text.floor_char_boundary(MAX_VALUE);
            text.to_mut().truncate(end);
        }
        self
    }

    /// As text, for formats that know nothing else.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Number(number) => number.to_string().into(),
            Value::Flag(flag) => if *flag { "true" } else { "false" }.into(),
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

/// Attributes in the order of their setting; a name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    list: Vec<(Cow<'static, str>, Value)>,
    /// Those that found no place.
    pub dropped: u32,
}

impl Attributes {
    /// None yet, with room for so many.
    #[must_use]
    pub(crate) fn with_room(count: usize) -> Self {
        Self {
            list: Vec::with_capacity(count),
            dropped: 0,
        }
    }

    /// Adds one of a name that is not there yet, without a look at all that are.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        debug_assert!(self.get(name).is_none(), "{name} is there already");
        self.push(name.into(), value.into().cut());
    }

    fn push(&mut self, name: Cow<'static, str>, value: Value) {
        if self.list.len() < MAX_ATTRIBUTES {
            self.list.push((name, value));
        } else {
            self.dropped += 1;
        }
    }

    /// Sets one, replacing an earlier one of the same name; too long a value is cut at a character.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into().cut());
        let known = self.list.iter_mut().find(|entry| entry.0 == name);
        match known {
            Some(entry) => entry.1 = value,
            None => self.push(name, value),
        }
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let found = self.list.iter().find(|entry| entry.0 == name);
        found.map(|entry| &entry.1)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.list.iter().map(|(name, value)| (&**name, value))
    }

    /// Bytes that they take, about.
    pub(crate) fn size(&self) -> usize {
        let texts = self.list.iter().map(|(name, value)| match value {
            Value::Text(text) => name.len() + text.len(),
            Value::Number(_) | Value::Flag(_) => name.len(),
        });
        texts.sum::<usize>() + self.list.len() * 48
    }
}
