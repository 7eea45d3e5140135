//! The upstream request's body (ai-proxy spec §3.2): settings, stream options, Claude conversion, clean-up, then the
//! vendor's wire format or its small edits.
//!
//! A body in OpenAI's dialect is scanned once and spliced where a field changes; one that nothing changes keeps its
//! bytes. Only another dialect is parsed into a tree and written anew.

use std::sync::LazyLock;

use http::HeaderValue;
use http::header::ACCEPT;
use memchr::memmem::Finder;
use tollgate_body::{JsonDocument, JsonError, PathError};

use crate::Api;
use crate::anthropic::{Thinking, request_from_client};
use crate::cleanup;
use crate::openai::{self, RequestFault};

use super::Provider;
use super::config::Protocol;
use super::context_file;
use super::edits::EditContext;
use super::row::{BodyRule, Unsupported};
use super::wire::{Outgoing, Wire};

/// A role that most vendors do not know.
static DEVELOPER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"developer\""));

/// What was found in a body on its way to the vendor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// The model the client asked for; empty if it named none.
    pub requested_model: String,
    /// The vendor's name of the model; empty where the body is not understood.
    pub model: String,
    /// The client wants a stream.
    pub stream: bool,
    /// The request offers tools.
    pub with_tools: bool,
}

/// What a body needs besides itself.
#[derive(Debug, Clone, Copy)]
pub struct BodyContext<'a> {
    /// The API as the vendor sees it.
    pub api: Api,
    /// The client speaks Anthropic and the vendor does not.
    pub claude_client: bool,
    /// Text of the provider's context file, for a conversation that begins with it.
    pub context_file: Option<&'a str>,
}

impl Provider {
    /// Whether the body of such a request has to be read at all.
    #[must_use]
    pub fn reads_body(&self, api: Api) -> bool {
        if self.row.body == BodyRule::NeverRead || !self.edits(api) {
            return false;
        }
        self.protocol == Protocol::OpenAi
            || !self.custom_settings.is_empty()
            || (self.first_byte_timeout.is_some() && api.streams())
    }

    /// Whether a JSON body for this API is refused because the vendor does not serve it.
    #[must_use]
    pub fn refuses(&self, api: Api) -> bool {
        self.row.unsupported == Unsupported::Reject && !self.serves(api)
    }

    fn edits(&self, api: Api) -> bool {
        if self.row.body == BodyRule::SettingsOnly {
            return true;
        }
        self.serves(api) && (self.row.edited_apis.is_empty() || self.row.edited_apis.contains(&api))
    }

    /// Makes the vendor's body out of the client's, in place; headers and path may change with it.
    ///
    /// # Errors
    /// What is wrong with the body, in Higress's words where it has some.
    pub fn edit_body(
        &self,
        context: BodyContext<'_>,
        document: &mut JsonDocument,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<BodyFacts, RequestFault> {
        if !document.is_object() {
            return Err(self.no_object(context, document));
        }
        let mut facts = BodyFacts {
            requested_model: text_member(document, "model"),
            model: String::new(),
            stream: document.get_bool("stream") == Some(true),
            with_tools: document
                .raw("tools")
                .is_some_and(|tools| !matches!(tools, "null" | "[]")),
        };
        self.apply_settings(document)?;
        if self.protocol == Protocol::Original {
            facts.model.clone_from(&facts.requested_model);
            return Ok(facts);
        }
        let mut thinking = None;
        if context.claude_client {
            thinking = Some(convert_claude(document)?);
        } else if facts.stream && matches!(context.api, Api::Chat | Api::Completions) {
            self.ask_for_usage(document)?;
        }
        if context.api == Api::Chat {
            self.clean_up(document)?;
            insert_context_file(context.context_file, document)?;
        }
        facts.model = match self.wire_for(context.api) {
            Some(wire) => self.translate(wire, context.api, document, outgoing)?,
            None => self.edit_in_place(context.api, thinking.as_ref(), document, facts.stream, outgoing)?,
        };
        Ok(facts)
    }

    fn wire_for(&self, api: Api) -> Option<&dyn Wire> {
        let wire = self.wire.as_deref();
        wire.filter(|wire| self.protocol == Protocol::OpenAi && wire.translates(api))
    }

    /// What a body that is no JSON gets: Higress's text where it parses bodies, a 400 where it would have sent
    /// `{"model":""}` in its place.
    #[must_use]
    pub fn not_json(&self, context: BodyContext<'_>, cause: &dyn std::fmt::Display) -> RequestFault {
        match self.parse_refusal(context) {
            Some(what) => RequestFault::Refused(format!("{what}: {cause}")),
            None => RequestFault::BadRequest(format!("the request body is not valid JSON: {cause}")),
        }
    }

    fn no_object(&self, context: BodyContext<'_>, document: &JsonDocument) -> RequestFault {
        if let Some(what) = self.parse_refusal(context) {
            return RequestFault::Refused(format!("{what}: not an object"));
        }
        if document.to_bytes().trim_ascii_start().starts_with(b"[") {
            let text = "cannot set array element for non-numeric key 'model'";
            return RequestFault::Refused(text.into());
        }
        RequestFault::BadRequest("the request body is not a JSON object".into())
    }

    fn parse_refusal(&self, context: BodyContext<'_>) -> Option<&'static str> {
        if context.claude_client {
            return Some("failed to convert claude request to openai: unable to unmarshal claude request");
        }
        self.wire_for(context.api).map(|_| "unable to unmarshal request")
    }

    fn apply_settings(&self, document: &mut JsonDocument) -> Result<(), RequestFault> {
        for setting in &self.custom_settings {
            if !setting.overwrite && path_exists(document, &setting.path)? {
                continue;
            }
            document
                .set_raw(&setting.path, setting.value.to_string())
                .map_err(refused_path)?;
        }
        Ok(())
    }

    /// Without it no vendor says what a stream cost; a client's explicit `false` is respected.
    fn ask_for_usage(&self, document: &mut JsonDocument) -> Result<(), RequestFault> {
        if self.row.body == BodyRule::SettingsOnly {
            return Ok(());
        }
        if document
            .raw("stream_options")
            .is_some_and(|options| options != "null")
            && path_exists(document, "stream_options.include_usage")?
        {
            return Ok(());
        }
        if document
            .raw("stream_options")
            .is_some_and(|options| !options.starts_with('{'))
        {
            document.remove("stream_options").map_err(refused_path)?;
        }
        document
            .set("stream_options.include_usage", true)
            .map_err(refused_path)
    }

    fn clean_up(&self, document: &mut JsonDocument) -> Result<(), RequestFault> {
        let Some(raw) = document.raw_bytes("messages") else {
            return Ok(());
        };
        let has_developer = !self.row.keeps_developer && DEVELOPER.find(raw).is_some();
        if !has_developer && self.cleanup_commands.is_empty() && !self.merge_messages {
            return Ok(());
        }
        let Ok(mut messages) = serde_json::from_slice::<Vec<serde_json::Value>>(raw) else {
            return Ok(());
        };
        let forgot =
            !self.cleanup_commands.is_empty() && cleanup::forget(&mut messages, &self.cleanup_commands);
        let merged = self.merge_messages && cleanup::merge(&mut messages);
        if forgot || merged {
            if has_developer {
                let developers: Vec<usize> = cleanup::developer_positions(&messages).collect();
                for position in developers {
                    messages[position]["role"] = "system".into();
                }
            }
            return document.set("messages", messages).map_err(refused_path);
        }
        if !has_developer {
            return Ok(());
        }
        for position in cleanup::developer_positions(&messages) {
            let path = format!("messages.{position}.role");
            document.set_str(&path, "system").map_err(refused_path)?;
        }
        Ok(())
    }

    fn translate(
        &self,
        wire: &dyn Wire,
        api: Api,
        document: &mut JsonDocument,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<String, RequestFault> {
        let request = document.value_mut().map_err(|cause| no_tree(&cause))?;
        openai::check_request(request)?;
        if api == Api::Chat {
            openai::messages(request)?;
        }
        let asked = request["model"].as_str().unwrap_or_default();
        let model = self.model_mapping.map(asked).unwrap_or_else(|| asked.to_owned());
        if model.is_empty() {
            return Err(RequestFault::Refused("missing model in request".into()));
        }
        request["model"] = model.as_str().into();
        let translated = wire.request(api, request, outgoing)?;
        *document = JsonDocument::from_value(translated);
        Ok(model)
    }

    fn edit_in_place(
        &self,
        api: Api,
        thinking: Option<&Thinking>,
        document: &mut JsonDocument,
        stream: bool,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<String, RequestFault> {
        let model = self.map_model(document)?;
        if let Some(edit) = self.row.edit {
            let context = EditContext {
                provider: self,
                api,
                thinking,
            };
            edit(context, document).map_err(refused_path)?;
        }
        let announces_stream = matches!(api, Api::Chat | Api::Videos | Api::VideoRemix);
        if stream && announces_stream && self.row.body == BodyRule::Model {
            let events = HeaderValue::from_static("text/event-stream");
            outgoing.headers.insert(ACCEPT, events);
        }
        Ok(model)
    }

    fn map_model(&self, document: &mut JsonDocument) -> Result<String, RequestFault> {
        let asked = text_member(document, "model");
        match self.row.body {
            BodyRule::KeepModel | BodyRule::SettingsOnly | BodyRule::NeverRead => return Ok(asked),
            BodyRule::ModelIfPresent if !document.contains("model") => return Ok(asked),
            BodyRule::Model | BodyRule::ModelIfPresent => {}
        }
        let model = self.model_mapping.map(&asked).unwrap_or(asked);
        if document.get_str("model").is_none_or(|current| current != model) {
            document.set_str("model", &model).map_err(refused_path)?;
        }
        Ok(model)
    }
}

fn insert_context_file(text: Option<&str>, document: &mut JsonDocument) -> Result<(), RequestFault> {
    let Some(text) = text else { return Ok(()) };
    let parsed = document
        .raw("messages")
        .map(serde_json::from_str::<Vec<serde_json::Value>>);
    let Some(Ok(mut messages)) = parsed else {
        return Err(RequestFault::BadRequest(
            "messages is not a list: no context can be put into it".into(),
        ));
    };
    context_file::insert(&mut messages, text);
    document.set("messages", messages).map_err(refused_path)
}

fn convert_claude(document: &mut JsonDocument) -> Result<Thinking, RequestFault> {
    let request = document.value().map_err(|cause| no_tree(&cause))?;
    let converted = request_from_client(request).map_err(|text| {
        RequestFault::Refused(format!("failed to convert claude request to openai: {text}"))
    })?;
    *document = JsonDocument::from_value(converted.body);
    Ok(converted.thinking)
}

/// Valid JSON that has no tree: a number no double can hold, half a surrogate pair.
fn no_tree(cause: &JsonError) -> RequestFault {
    RequestFault::BadRequest(format!("the request body cannot be read: {cause}"))
}

/// A member's text: a string itself, `null` or nothing as empty, another scalar as it is written.
fn text_member(document: &JsonDocument, name: &str) -> String {
    match document.get_str(name) {
        Some(text) => text.into_owned(),
        None => document
            .raw(name)
            .filter(|raw| *raw != "null")
            .unwrap_or_default()
            .to_owned(),
    }
}

fn path_exists(document: &JsonDocument, path: &str) -> Result<bool, RequestFault> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(raw) = document.raw(first).filter(|_| !rest.is_empty()) else {
        return Ok(document.contains(first));
    };
    // The member alone is read, not what may be megabytes of texts beside it.
    let Ok(tree) = serde_json::from_str::<serde_json::Value>(raw) else {
        return document.value().map(|_| false).map_err(|cause| no_tree(&cause));
    };
    let mut place = &tree;
    for key in rest.split('.') {
        let inner = match key.parse::<usize>() {
            Ok(index) if place.is_array() => place.get(index),
            _ => place.get(key),
        };
        match inner {
            Some(value) => place = value,
            None => return Ok(false),
        }
    }
    Ok(true)
}

fn refused_path(cause: PathError) -> RequestFault {
    RequestFault::Refused(cause.to_string())
}
