//! `Text`: one JSON value as written, with the edits made to it so far.
//!
//! Edits are splices on the members of the outermost object or array; deeper ones make a text of the member they go
//! through. Joining copies what is left between the splices, white space and spelling included.
//!
//! A key that stands twice counts as its last, which is what nearly every reader of JSON takes; changing it leaves
//! one of it, so that a gateway and an upstream can never see two.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::scan::{self, Index, Kind, Limits, Span};
use super::setter::Step;
use super::string::{find_special, has_escape, unescape};
use super::{JsonError, PathError};

/// An index this far behind an array's end is refused rather than padded with `null`.
const PADDING_LIMIT: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) struct Text {
    original: Bytes,
    kind: Kind,
    /// The outermost value.
    value: Range<usize>,
    members: Vec<Member>,
    edited: bool,
}

#[derive(Debug, Clone)]
struct Member {
    span: Span,
    edit: Edit,
}

#[derive(Debug, Clone)]
enum Edit {
    Kept,
    Removed,
    Replaced(Bytes),
    /// Not in the original; the key is written with its quotes, empty in an array.
    Added {
        key: String,
        value: Bytes,
    },
}

impl Text {
    pub(super) fn parse(original: Bytes, limits: Limits) -> Result<Self, JsonError> {
        if let Err(error) = simdutf8::compat::from_utf8(&original) {
            return Err(JsonError::new(error.valid_up_to(), "invalid UTF-8"));
        }
        let Index { kind, value, spans } = scan::index(&original, limits)?;
        let members = spans.into_iter().map(|span| Member {
            span,
            edit: Edit::Kept,
        });
        Ok(Self {
            kind,
            value,
            members: members.collect(),
            original,
            edited: false,
        })
    }

    pub(super) fn null() -> Self {
        let original = Bytes::from_static(b"null");
        Self {
            original,
            kind: Kind::Scalar,
            value: 0..4,
            members: Vec::new(),
            edited: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The text without edits.
    pub(super) fn unedited(&self) -> Option<&Bytes> {
        (!self.edited).then_some(&self.original)
    }

    /// Keys that are there, as written between their quotes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let present = self.members.iter().filter(|member| member.is_present());
        present.filter(|_| self.kind == Kind::Object).map(|member| {
            let written = self.key_of(member);
            as_str(&written[1..written.len() - 1])
        })
    }

    /// Members that are there: each key without its escapes, and its value as written now.
    pub(super) fn members(&self) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
        let present = self.members.iter().filter(|member| member.is_present());
        present.filter(|_| self.kind == Kind::Object).map(|member| {
            let written = self.key_of(member);
            let inner = &written[1..written.len() - 1];
            let key = match member.span.is_escaped {
                false => Cow::Borrowed(inner),
                true => Cow::Owned(unescape(as_str(inner)).into_owned().into_bytes()),
            };
            (key, self.value_of(member))
        })
    }

    /// The value of a member as written now.
    pub(super) fn raw(&self, key: &str) -> Option<&str> {
        self.raw_bytes(key).map(as_str)
    }

    /// The same as bytes.
    pub(super) fn raw_bytes(&self, key: &str) -> Option<&[u8]> {
        if self.kind != Kind::Object {
            return None;
        }
        let found = self.find_key(key)?;
        Some(self.value_of(&self.members[found]))
    }

    /// Whether a member is there.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.kind == Kind::Object && self.find_key(key).is_some()
    }

    #[inline]
    fn find_key(&self, key: &str) -> Option<usize> {
        self.members
            .iter()
            .rposition(|member| member.is_present() && self.has_key(member, key))
    }

    #[inline]
    fn has_key(&self, member: &Member, key: &str) -> bool {
        let written = self.key_of(member);
        let inner = &written[1..written.len() - 1];
        if !member.span.is_escaped {
            return inner == key.as_bytes();
        }
        unescape(as_str(inner)) == key
    }

    #[inline]
    fn key_of<'a>(&'a self, member: &'a Member) -> &'a [u8] {
        match &member.edit {
            Edit::Added { key, .. } => key.as_bytes(),
            _ => &self.original[member.span.key.clone()],
        }
    }

    #[inline]
    fn value_of<'a>(&'a self, member: &'a Member) -> &'a [u8] {
        match &member.edit {
            Edit::Replaced(value) | Edit::Added { value, .. } => value,
            Edit::Kept | Edit::Removed => &self.original[member.span.value.clone()],
        }
    }

    /// Shares memory with the text.
    fn value_bytes(&self, position: usize) -> Bytes {
        let member = &self.members[position];
        match &member.edit {
            Edit::Replaced(value) | Edit::Added { value, .. } => value.clone(),
            Edit::Kept | Edit::Removed => self.original.slice(member.span.value.clone()),
        }
    }

    /// Writes `json`, which is valid, at the end of `steps`; what is missing on the way is made.
    pub(super) fn set(&mut self, steps: &[Step<'_>], json: Bytes) -> Result<(), PathError> {
        let Some((step, below)) = steps.split_first() else {
            return Err(PathError::new("path cannot be empty"));
        };
        let Some(position) = self.find(step, false) else {
            return self.add(step, build(below, json)?);
        };
        let value = if below.is_empty() {
            json
        } else {
            let mut inner = self.inner_text(position)?;
            inner.set(below, json)?;
            inner.to_bytes()
        };
        self.write(position, value);
        Ok(())
    }

    /// Removes what `steps` lead to; false when it is not there.
    pub(super) fn remove(&mut self, steps: &[Step<'_>]) -> Result<bool, PathError> {
        let Some((step, below)) = steps.split_first() else {
            return Err(PathError::new("path cannot be empty"));
        };
        let Some(position) = self.find(step, true) else {
            return Ok(false);
        };
        if !below.is_empty() {
            let mut inner = self.inner_text(position)?;
            if !inner.remove(below)? {
                return Ok(false);
            }
            self.write(position, inner.to_bytes());
            return Ok(true);
        }
        self.drop_twins(position);
        self.drop_member(position);
        Ok(true)
    }

    fn find(&self, step: &Step<'_>, removing: bool) -> Option<usize> {
        match self.kind {
            Kind::Scalar => None,
            Kind::Object => self.find_key(&step.name),
            Kind::Array => {
                let mut present =
                    (0..self.members.len()).filter(|position| self.members[*position].is_present());
                if step.is_last() {
                    return present.last().filter(|_| removing);
                }
                // sjson looks a forced index up as an index all the same.
                present.nth(step.name.parse().ok()?)
            }
        }
    }

    fn inner_text(&self, position: usize) -> Result<Self, PathError> {
        Self::parse(self.value_bytes(position), Limits::NONE)
            .map_err(|error| PathError::new(error.to_string()))
    }

    fn write(&mut self, position: usize, value: Bytes) {
        self.drop_twins(position);
        let edit = &mut self.members[position].edit;
        *edit = match std::mem::replace(edit, Edit::Kept) {
            Edit::Added { key, .. } => Edit::Added { key, value },
            _ => Edit::Replaced(value),
        };
        self.edited = true;
    }

    fn drop_member(&mut self, position: usize) {
        if matches!(self.members[position].edit, Edit::Added { .. }) {
            self.members.remove(position);
        } else {
            self.members[position].edit = Edit::Removed;
        }
        self.edited = true;
    }

    /// Removes earlier members of the same key, so that no reader can take another one.
    fn drop_twins(&mut self, position: usize) {
        if self.kind != Kind::Object || position == 0 {
            return;
        }
        let written = self.key_of(&self.members[position]).to_owned();
        let key = unescape(as_str(&written[1..written.len() - 1])).into_owned();
        // An added member has no twin: its key was looked for first.
        for earlier in 0..position {
            if self.members[earlier].is_present() && self.has_key(&self.members[earlier], &key) {
                self.members[earlier].edit = Edit::Removed;
            }
        }
    }

    /// A member that was not there; a scalar makes way for an object, or for an array when the step is an index.
    fn add(&mut self, step: &Step<'_>, value: Bytes) -> Result<(), PathError> {
        let as_array = match self.kind {
            Kind::Array => true,
            Kind::Object => false,
            Kind::Scalar => step.index().is_some(),
        };
        let mut padding = 0;
        if as_array && !step.is_last() {
            let Some(index) = step.index() else {
                let message = format!("cannot set array element for non-numeric key '{}'", step.name);
                return Err(PathError::new(message));
            };
            let present = self.members.iter().filter(|member| member.is_present()).count();
            padding = padded(index, present)?.saturating_sub(present);
        }
        if self.kind == Kind::Scalar {
            self.kind = if as_array { Kind::Array } else { Kind::Object };
            self.original = Bytes::from_static(if as_array { b"[]" } else { b"{}" });
            self.value = 0..2;
        }
        for _ in 0..padding {
            self.push(String::new(), Bytes::from_static(b"null"));
        }
        self.push(
            if as_array {
                String::new()
            } else {
                quoted(&step.name)
            },
            value,
        );
        Ok(())
    }

    fn push(&mut self, key: String, value: Bytes) {
        self.members.push(Member {
            span: Span {
                key: 0..0,
                is_escaped: has_escape(key.as_bytes()),
                value: 0..0,
            },
            edit: Edit::Added { key, value },
        });
        self.edited = true;
    }

    /// The text with its edits; the original's own memory when there are none.
    pub(super) fn to_bytes(&self) -> Bytes {
        if self.edited {
            self.joined()
        } else {
            self.original.clone()
        }
    }

    fn joined(&self) -> Bytes {
        let longer: usize = self.members.iter().map(Member::added_length).sum();
        let mut out = BytesMut::with_capacity(self.original.len() + longer);
        let open = self.value.start + usize::from(self.kind != Kind::Scalar);
        let close = self.value.end - usize::from(self.kind != Kind::Scalar);
        out.extend_from_slice(&self.original[..open]);
        let (mut is_first, mut behind_last) = (true, open);
        let mut before_first = None;
        for member in self.members.iter().filter(|member| member.is_original()) {
            let start = member.span.start();
            let lead = behind_last..start;
            let before = before_first.get_or_insert_with(|| lead.clone()).clone();
            behind_last = member.span.value.end;
            if !member.is_present() {
                continue;
            }
            // Whatever member comes first now stands where the first one stood.
            out.extend_from_slice(&self.original[if is_first { before } else { lead }]);
            out.extend_from_slice(&self.original[start..member.span.value.start]);
            out.extend_from_slice(self.value_of(member));
            is_first = false;
        }
        out.extend_from_slice(&self.original[behind_last..close]);
        for member in &self.members {
            if let Edit::Added { key, value } = &member.edit {
                out.extend_from_slice(if is_first { b"" } else { b"," });
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(if key.is_empty() { b"" } else { b":" });
                out.extend_from_slice(value);
                is_first = false;
            }
        }
        out.extend_from_slice(&self.original[close..]);
        out.freeze()
    }
}

/// Writes `json` into a text, see [`Text::set`]; a text of nothing but white space counts as missing.
pub(crate) fn set_in_text(text: &str, steps: &[Step<'_>], json: &str) -> Result<String, PathError> {
    if let Err(error) = scan::index(json.as_bytes(), Limits::NONE) {
        return Err(PathError::new(format!("value: {error}")));
    }
    let mut edited = parse_or_missing(text)?;
    edited.set(steps, Bytes::copy_from_slice(json.as_bytes()))?;
    Ok(as_str(&edited.to_bytes()).to_owned())
}

/// Removes from a text, see [`Text::remove`]; `None` when nothing was there.
pub(crate) fn remove_in_text(text: &str, steps: &[Step<'_>]) -> Result<Option<String>, PathError> {
    let mut edited = parse_or_missing(text)?;
    let was_there = edited.remove(steps)?;
    Ok(was_there.then(|| as_str(&edited.to_bytes()).to_owned()))
}

fn parse_or_missing(text: &str) -> Result<Text, PathError> {
    if text.bytes().all(|byte| byte <= b' ') {
        return Ok(Text::null());
    }
    Text::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::NONE)
        .map_err(|error| PathError::new(format!("not JSON: {error}")))
}

impl Member {
    #[inline]
    fn is_present(&self) -> bool {
        !matches!(self.edit, Edit::Removed)
    }

    fn is_original(&self) -> bool {
        !matches!(self.edit, Edit::Added { .. })
    }

    /// At most how many bytes the edit adds to the text.
    fn added_length(&self) -> usize {
        match &self.edit {
            Edit::Kept | Edit::Removed => 0,
            Edit::Replaced(value) => value.len(),
            Edit::Added { key, value } => key.len() + value.len() + 2,
        }
    }
}

impl Span {
    fn start(&self) -> usize {
        // In an array the key is empty and lies where the value begins.
        self.key.start
    }
}

/// The value of a new member: `json` below whatever objects and arrays the steps ask for.
fn build(steps: &[Step<'_>], json: Bytes) -> Result<Bytes, PathError> {
    let mut value = json;
    for step in steps.iter().rev() {
        let mut out = BytesMut::with_capacity(value.len() + step.name.len() + 8);
        let index = if step.is_last() { Some(0) } else { step.index() };
        match index {
            Some(padding) => {
                out.extend_from_slice(b"[");
                for _ in 0..padded(padding, 0)? {
                    out.extend_from_slice(b"null,");
                }
            }
            None => {
                out.extend_from_slice(b"{");
                out.extend_from_slice(quoted(&step.name).as_bytes());
                out.extend_from_slice(b":");
            }
        }
        out.extend_from_slice(&value);
        out.extend_from_slice(if index.is_some() { b"]" } else { b"}" });
        value = out.freeze();
    }
    Ok(value)
}

fn padded(index: usize, present: usize) -> Result<usize, PathError> {
    if index.saturating_sub(present) > PADDING_LIMIT {
        return Err(PathError::new(format!(
            "array index {index} is too far behind the end"
        )));
    }
    Ok(index)
}

pub(super) fn quoted(text: &str) -> String {
    if find_special(text.as_bytes()).is_none() {
        return ["\"", text, "\""].concat();
    }
    serde_json::Value::from(text).to_string()
}

/// Texts are checked to be UTF-8 when they are taken in, and cut only next to ASCII.
#[inline]
fn as_str(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).unwrap_or_default()
}
