//! A tool's call from a model's arguments (plugins spec §3.5, step 6).
//!
//! Arguments are hostile: they fill the places that the document names and nothing else. They reach no other host,
//! leave no path, add no query and no header.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Map, Value};
use tollgate_body::{Body, Request};

use super::config::{Api, Key};
use super::openapi::{Parameter, Place, Tool};

/// Arguments that are not sent; the text is for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

/// The request for one call.
pub(super) fn request(api: &Api, tool: &Tool, arguments: Map<String, Value>) -> Result<Request, Refused> {
    let mut arguments = Arguments(arguments);
    let (mut queries, mut headers) = (Vec::new(), HeaderMap::new());
    let path = arguments.path(api, tool)?;
    let used = |name: &str| tool.path.split('/').any(|part| part == format!("{{{name}}}"));
    for parameter in tool.parameters.iter().filter(|parameter| !used(&parameter.name)) {
        let Some(text) = arguments.take(parameter)? else {
            continue;
        };
        match &parameter.place {
            // The document names it and has no place for it: it goes where Higress sends it.
            Place::Path | Place::Query => {
                queries.push(format!("{}={}", escape(&parameter.name), escape(&text)));
            }
            Place::Header(name) => {
                let value = HeaderValue::from_str(&text)
                    .map_err(|_| Refused(format!("argument {} cannot stand in a header", parameter.name)))?;
                headers.insert(name.clone(), value);
            }
        }
    }
    let body = match tool.method {
        Some(Method::POST) => Body::bytes(arguments.body(tool).to_string()),
        _ => Body::empty(),
    };
    match &api.key {
        Some(Key::Query(pair)) => queries.push(pair.expose().to_owned()),
        Some(Key::Header(value)) => {
            headers.insert(AUTHORIZATION, value.clone());
        }
        None => {}
    }
    let target = if queries.is_empty() {
        path
    } else {
        format!("{path}?{}", queries.join("&"))
    };
    let uri = Uri::try_from(target).map_err(|_| Refused("the arguments make no address".to_owned()))?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HOST, api.authority.clone());
    let mut request = Request::new(body);
    *request.method_mut() = tool.method.clone().unwrap_or(Method::GET);
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// What the model gave and nobody has used yet.
struct Arguments(Map<String, Value>);

impl Arguments {
    /// The path with its places filled.
    fn path(&mut self, api: &Api, tool: &Tool) -> Result<String, Refused> {
        let mut path = api.base.clone();
        for part in tool.path.split('/').skip_while(|part| part.is_empty()) {
            path.push('/');
            let name = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let known = name.and_then(|name| tool.parameters.iter().find(|known| known.name == name));
            let Some(parameter) = known else {
                path.push_str(part);
                continue;
            };
            let text = self
                .take(parameter)?
                .ok_or_else(|| Refused(format!("argument {} is missing", parameter.name)))?;
            if leads_elsewhere(&text) {
                return Err(Refused(format!(
                    "argument {} cannot stand in a path",
                    parameter.name
                )));
            }
            path.push_str(&escape(&text));
        }
        if path.is_empty() {
            path.push('/');
        }
        Ok(path)
    }

    /// An argument as text; what it must be when it is missing.
    fn take(&mut self, parameter: &Parameter) -> Result<Option<String>, Refused> {
        let given = self
            .0
            .shift_remove(&parameter.name)
            .filter(|value| !value.is_null());
        if let Some(value) = &given
            && !parameter.allowed.is_empty()
            && !parameter
                .allowed
                .iter()
                .any(|allowed| text(allowed) == text(value))
        {
            let all: Vec<String> = parameter.allowed.iter().map(text).collect();
            let message = format!("argument {} must be one of {}", parameter.name, all.join(", "));
            return Err(Refused(message));
        }
        Ok(given
            .or_else(|| parameter.default.clone())
            .map(|value| text(&value)))
    }

    /// What is left, as far as the document knows it.
    fn body(self, tool: &Tool) -> Value {
        let all = self.0.into_iter();
        let known = all.filter(|(name, _)| tool.body.as_ref().is_none_or(|names| names.contains(name)));
        Value::Object(known.collect())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a server that decodes and normalises paths could be led out of this one.
fn leads_elsewhere(text: &str) -> bool {
    text.is_empty()
        || text.chars().any(char::is_control)
        || text.split(['/', '\\']).any(|part| matches!(part, "." | ".."))
}

/// A text in a query, as Go escapes it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
