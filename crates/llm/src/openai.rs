//! Reading OpenAI's dialect: what the translations to other wire formats look at in a chat request.
//!
//! The request stays a JSON value, so that fields nobody reads survive wherever they can.

use serde_json::Value;

/// Why a request cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestFault {
    /// Higress's own refusal, answered with its status 500 and this text.
    Refused(String),
    /// Higress crashes on it; here it is a 400.
    BadRequest(String),
}

impl RequestFault {
    /// The text for the client.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text) | Self::BadRequest(text) => text,
        }
    }
}

/// Fields that every translation reads, and the JSON type that each must have.
const FIELD_TYPES: &[(&str, &str)] = &[
    ("model", "string"),
    ("messages", "list"),
    ("stream", "boolean"),
    ("max_tokens", "number"),
    ("max_completion_tokens", "number"),
    ("temperature", "number"),
    ("top_p", "number"),
    ("n", "number"),
    ("tools", "list"),
    ("reasoning_effort", "string"),
];

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Checks what every translation relies on: the fields it reads have their types.
///
/// # Errors
/// `unable to unmarshal request: …`.
pub fn check_request(request: &Value) -> Result<(), RequestFault> {
    let fault = |text: &str| {
        Err(RequestFault::Refused(format!(
            "unable to unmarshal request: {text}"
        )))
    };
    let Some(members) = request.as_object() else {
        return fault("not an object");
    };
    for (name, wanted) in FIELD_TYPES {
        if let Some(value) = members.get(*name)
            && !value.is_null()
            && type_name(value) != *wanted
        {
            return fault(&format!("{name} is not a {wanted}"));
        }
    }
    Ok(())
}

/// The messages; at least one.
///
/// # Errors
/// `no message found in the request body: …` with the body, or a message that is no object.
pub fn messages(request: &Value) -> Result<&[Value], RequestFault> {
    match request["messages"].as_array() {
        Some(list) if list.iter().any(|message| !message.is_object()) => Err(RequestFault::Refused(
            "unable to unmarshal request: a message is not an object".into(),
        )),
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(RequestFault::Refused(format!(
            "no message found in the request body: {request}"
        ))),
    }
}

/// `stop` as a list; a single string is a list of one.
///
/// # Errors
/// Another JSON type.
pub fn stop(request: &Value) -> Result<Vec<String>, RequestFault> {
    let fault =
        || RequestFault::Refused("unable to unmarshal request: stop is neither a string nor strings".into());
    match &request["stop"] {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(fault))
            .collect(),
        _ => Err(fault()),
    }
}

/// Whether it is an instruction (`system`, or its newer name `developer`).
#[must_use]
pub fn is_system(message: &Value) -> bool {
    message["role"] == "system" || message["role"] == "developer"
}

/// Text of a message: its string, or its text parts joined by line ends.
#[must_use]
pub fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// URL of an `image_url` part, which may be a string or an object.
///
/// # Errors
/// There is none.
pub fn image_url(part: &Value) -> Result<&str, RequestFault> {
    let url = part["image_url"]["url"]
        .as_str()
        .or_else(|| part["image_url"].as_str());
    url.ok_or_else(|| RequestFault::BadRequest("missing url in an image_url part".into()))
}

/// Media type and base64 data of a data URL.
#[must_use]
pub fn data_url(url: &str) -> Option<(&str, &str)> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = kind.strip_suffix(";base64")?;
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_that_are_none() {
        for bad in [
            json!([]),
            json!("x"),
            json!({"messages": {}}),
            json!({"model": 1}),
            json!({"stream": "yes"}),
        ] {
            let fault = check_request(&bad).unwrap_err();
            assert!(matches!(&fault, RequestFault::Refused(_)));
            assert!(fault.text().starts_with("unable to unmarshal request: "), "{bad}");
        }
        assert_eq!(
            check_request(&json!({"model": null, "stop": "x", "extra": {}})),
            Ok(())
        );
        let empty = messages(&json!({"messages": []})).unwrap_err();
        assert_eq!(
            empty.text(),
            "no message found in the request body: {\"messages\":[]}"
        );
        assert!(messages(&json!({"messages": [1]})).is_err());
        assert!(stop(&json!({"stop": 1})).is_err());
    }

    #[test]
    fn parts() {
        assert_eq!(
            data_url("data:image/png;base64,QQ=="),
            Some(("image/png", "QQ=="))
        );
        assert_eq!(
            data_url("data:text/plain;charset=utf-8;base64,QQ"),
            Some(("text/plain", "QQ"))
        );
        assert_eq!(data_url("https://x"), None);
        assert_eq!(image_url(&json!({"image_url": "u"})), Ok("u"));
        assert_eq!(stop(&json!({"stop": ["a"]})), Ok(vec!["a".to_owned()]));
    }
}
