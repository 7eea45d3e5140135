//! The model's name inside a `multipart/form-data` body (image edits and variations, ai-proxy spec §9.16).
//!
//! Every other part keeps its bytes; a form in which the model keeps its name is not touched at all.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::openai::RequestFault;

use super::Provider;
use super::config::Protocol;
use super::request::BodyFacts;
use super::row::BodyRule;

/// Longest boundary that RFC 2046 allows.
const LONGEST_BOUNDARY: usize = 70;

/// Whether a content type names a form.
#[must_use]
pub fn is_form(content_type: &str) -> bool {
    let prefix = content_type.get(.."multipart/form-data".len());
    prefix.is_some_and(|start| start.eq_ignore_ascii_case("multipart/form-data"))
}

impl Provider {
    /// The form with the vendor's model name.
    ///
    /// # Errors
    /// A form that cannot be read, in Higress's words.
    pub fn edit_form(&self, form: Bytes, content_type: &str) -> Result<(Bytes, BodyFacts), RequestFault> {
        if self.protocol == Protocol::Original || self.row.body != BodyRule::Model {
            return Ok((form, BodyFacts::default()));
        }
        let boundary = boundary(content_type)?;
        let layout = Layout::read(&form, &boundary)?;
        let asked = layout
            .model
            .as_ref()
            .map(|span| String::from_utf8_lossy(&form[span.clone()]).trim().to_owned())
            .unwrap_or_default();
        let model = self.model_mapping.map(&asked).unwrap_or_else(|| asked.clone());
        let facts = BodyFacts {
            requested_model: asked.clone(),
            model: model.clone(),
            stream: false,
            with_tools: false,
        };
        if model == asked {
            return Ok((form, facts));
        }
        let mut edited = BytesMut::with_capacity(form.len() + model.len() + boundary.len() + 64);
        if let Some(span) = layout.model {
            edited.extend_from_slice(&form[..span.start]);
            edited.extend_from_slice(model.as_bytes());
            edited.extend_from_slice(&form[span.end..]);
        } else {
            edited.extend_from_slice(&form[..layout.end]);
            let field =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n");
            edited.extend_from_slice(field.as_bytes());
            edited.extend_from_slice(&form[layout.end..]);
        }
        Ok((edited.freeze(), facts))
    }
}

fn boundary(content_type: &str) -> Result<String, RequestFault> {
    let named = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then_some(value.trim())
    });
    let text = named.unwrap_or_default().trim_matches('"');
    match text.len() {
        0 => Err(RequestFault::Refused("missing multipart boundary".into())),
        1..=LONGEST_BOUNDARY => Ok(text.to_owned()),
        _ => Err(RequestFault::Refused(
            "unable to set multipart boundary: too long".into(),
        )),
    }
}

/// Where things are in a form.
struct Layout {
    /// Value of the field `model`.
    model: Option<std::ops::Range<usize>>,
    /// The closing delimiter.
    end: usize,
}

impl Layout {
    fn read(form: &[u8], boundary: &str) -> Result<Self, RequestFault> {
        let unreadable = |what: &str| RequestFault::Refused(format!("unable to read multipart part: {what}"));
        let delimiter = format!("--{boundary}");
        let mut at =
            memmem::find(form, delimiter.as_bytes()).ok_or_else(|| unreadable("no boundary in the body"))?;
        let mut model = None;
        loop {
            let after = at + delimiter.len();
            if form[after..].starts_with(b"--") {
                return Ok(Self { model, end: at });
            }
            let head_length = memmem::find(&form[after..], b"\r\n\r\n")
                .ok_or_else(|| unreadable("unexpected end of a header"))?;
            let value_start = after + head_length + 4;
            let closing = format!("\r\n{delimiter}");
            let length = memmem::find(&form[value_start..], closing.as_bytes())
                .ok_or_else(|| unreadable("unexpected end of a part"))?;
            if is_model(&form[after..after + head_length]) {
                model = Some(value_start..value_start + length);
            }
            at = value_start + length + 2;
        }
    }
}

fn is_model(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.lines().any(|line| {
        let lower = line.to_ascii_lowercase();
        lower.starts_with("content-disposition:")
            && (lower.contains("; name=\"model\"") || lower.contains("; name=model"))
            && !lower.contains("filename")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    fn edit(form: &str, content_type: &str) -> Result<String, RequestFault> {
        let config = json!({"type": "openai", "modelMapping": {"a": "b", "": "d", "*": ""}});
        let provider = Provider::parse(&config).unwrap();
        let edited = provider.edit_form(Bytes::copy_from_slice(form.as_bytes()), content_type)?;
        Ok(String::from_utf8(edited.0.to_vec()).unwrap())
    }

    fn part(name: &str, value: &str) -> String {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    #[test]
    fn only_the_model_changes() {
        let form = |model: &str| {
            format!(
                "{}{}{}--XX--\r\n",
                part("image", "\u{1}PNG--XX"),
                part("model", model),
                part("n", "1")
            )
        };
        assert_eq!(edit(&form("a"), TYPE).unwrap(), form("b"));
        assert_eq!(edit(&form("c"), TYPE).unwrap(), form("c"));
        let without = format!("{}--XX--", part("n", "1"));
        assert_eq!(
            edit(&without, TYPE).unwrap(),
            format!("{}{}--XX--", part("n", "1"), part("model", "d"))
        );
    }

    #[test]
    fn what_is_no_form_is_named() {
        let text = |form: &str, content_type: &str| edit(form, content_type).unwrap_err().text().to_owned();
        assert_eq!(text("", "multipart/form-data"), "missing multipart boundary");
        let long = format!("multipart/form-data; boundary=\"{}\"", "x".repeat(71));
        assert!(text("", &long).starts_with("unable to set multipart boundary"));
        assert!(text("nothing", TYPE).starts_with("unable to read multipart part"));
        assert!(
            text("--XX\r\nContent-Disposition: x\r\n\r\ncut", TYPE)
                .starts_with("unable to read multipart part")
        );
    }

    #[test]
    fn content_types() {
        assert!(is_form("Multipart/Form-Data; boundary=x"));
        assert!(!is_form("application/json"));
    }
}
