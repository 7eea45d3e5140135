//! `context`: a text from another service that every conversation begins with (ai-proxy spec §1.2, §10.1).
//!
//! Here is what the configuration says and where the text goes; whoever owns the connections fetches it. It is put
//! into the conversation in OpenAI's shape, before any translation, so that every vendor gets it.

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use serde_json::{Value, json};
use tollgate_base::ConfigError;

use crate::lenient::Fields;
use crate::openai;

/// Where the text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextFile {
    /// Host that the request names.
    pub authority: Authority,
    /// What is asked for, query included.
    pub path: PathAndQuery,
    /// `serviceName`, with the registry's suffix.
    pub service: String,
    /// `servicePort`.
    pub port: u16,
}

impl ContextFile {
    /// Reads the `context` of a provider; `None` when there is none.
    ///
    /// # Errors
    /// The first fault, in Higress's words.
    pub(super) fn parse(fields: Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(context) = fields.object("context") else {
            return Ok(None);
        };
        let fault = |name: &str, text: &str| ConfigError::new(format!("context.{name}"), text);
        let url = context.text("fileUrl");
        if url.is_empty() {
            return Err(fault("fileUrl", "missing fileUrl in context config"));
        }
        let invalid = |cause: &str| fault("fileUrl", &format!("invalid fileUrl in context config: {cause}"));
        let target: Uri = url
            .parse()
            .map_err(|cause: http::uri::InvalidUri| invalid(&cause.to_string()))?;
        let authority = target
            .authority()
            .cloned()
            .ok_or_else(|| invalid("it names no host"))?;
        let service = context.text("serviceName");
        if service.is_empty() {
            return Err(fault("serviceName", "missing serviceName in context config"));
        }
        let port = match context.count("servicePort") {
            0 => return Err(fault("servicePort", "missing servicePort in context config")),
            port => u16::try_from(port).map_err(|_| fault("servicePort", "no port is larger than 65535"))?,
        };
        for name in ["qwenFileIds", "moonshotFileId"] {
            if fields.get(name).is_some() {
                let text = format!("{name} and context cannot be configured at the same time");
                return Err(ConfigError::new(name, text));
            }
        }
        let path = target.path_and_query().cloned();
        Ok(Some(Self {
            authority,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            service,
            port,
        }))
    }
}

/// Puts `text` into the conversation as a system message behind those that lead it.
pub(super) fn insert(messages: &mut Vec<Value>, text: &str) {
    let leading = messages.iter().take_while(|message| openai::is_system(message));
    messages.insert(leading.count(), json!({"role": "system", "content": text}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stands_behind_the_leading_system_messages() {
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let (system, user) = (message("system", "s"), message("user", "u"));
        let file = message("system", "file");
        let mut led = vec![system.clone(), user.clone(), system.clone()];
        insert(&mut led, "file");
        assert_eq!(led, [system.clone(), file.clone(), user.clone(), system]);
        let mut bare = vec![user.clone()];
        insert(&mut bare, "file");
        assert_eq!(bare, [file.clone(), user]);
        let mut empty = Vec::new();
        insert(&mut empty, "file");
        assert_eq!(empty, [file]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let parse = |context: Value| {
            let config = json!({"context": context});
            ContextFile::parse(Fields::of(&config)).map_err(|fault| fault.to_string())
        };
        let whole = json!({"fileUrl": "https://files.example/a.txt?v=2", "serviceName": "files.dns", "servicePort": 443});
        let parsed = parse(whole).unwrap().unwrap();
        assert_eq!((parsed.path.as_str(), parsed.port), ("/a.txt?v=2", 443));
        for (context, expected) in [
            (json!({"serviceName": "s", "servicePort": 1}), "missing fileUrl"),
            (
                json!({"fileUrl": "/a", "serviceName": "s", "servicePort": 1}),
                "names no host",
            ),
            (
                json!({"fileUrl": "http://h/ a", "serviceName": "s"}),
                "invalid fileUrl",
            ),
            (
                json!({"fileUrl": "http://h/a", "servicePort": 1}),
                "missing serviceName",
            ),
            (
                json!({"fileUrl": "http://h/a", "serviceName": "s"}),
                "missing servicePort",
            ),
            (
                json!({"fileUrl": "http://h/a", "serviceName": "s", "servicePort": 70_000}),
                "65535",
            ),
        ] {
            let fault = parse(context.clone()).unwrap_err();
            assert!(fault.contains(expected), "{context}: {fault}");
        }
    }
}
