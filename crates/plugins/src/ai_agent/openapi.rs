//! Tools from an OpenAPI document: what a model may call, and what it may say in the call (plugins spec §3.2).
//!
//! What the model gets to see of a tool is made here, once. References are written out first (`references.rs`).

use http::{HeaderName, Method};
use serde_json::{Map, Value, json};
use tollgate_base::ConfigError;
use tollgate_kinds::yaml;
use tollgate_llm::lenient::Fields;

use super::references::References;

/// Headers that no model may set.
const RESERVED_HEADERS: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The tools of one document and where they are.
pub(super) struct Document {
    /// Host of the first server, where its URL has one.
    pub(super) authority: Option<String>,
    /// Path of the first server, without a slash at its end.
    pub(super) base: String,
    pub(super) tools: Vec<Tool>,
    /// What is not used.
    pub(super) warnings: Vec<ConfigError>,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) description: String,
    /// `None`: it can be named and not called.
    pub(super) method: Option<Method>,
    pub(super) path: String,
    pub(super) parameters: Vec<Parameter>,
    /// Names that the body may have; `None`: any.
    pub(super) body: Option<Vec<String>>,
    /// The parameters as the prompt shows them.
    pub(super) shown: String,
    /// The parameters as a JSON Schema, for function calling.
    pub(super) schema: Value,
}

/// Where an argument goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header(HeaderName),
}

/// One parameter of an operation.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: Place,
    /// What a required argument is when the model leaves it out.
    pub(super) default: Option<Value>,
    /// All that it may be; empty: anything.
    pub(super) allowed: Vec<Value>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let parsed = yaml::parse(text, 1).into_iter().next();
        let root = match parsed {
            Some(Ok(parsed)) => parsed.value,
            Some(Err(fault)) => {
                let message = format!("line {}: {}", fault.position.line, fault.message);
                return Err(ConfigError::new("", message));
            }
            None => return Err(ConfigError::new("", "api is required")),
        };
        let url = root.pointer("/servers/0/url").and_then(Value::as_str);
        let url = url.ok_or_else(|| ConfigError::new("servers", "servers[0].url is required"))?;
        let (authority, base) = server(url)?;
        let mut document = Self {
            authority,
            base,
            tools: Vec::new(),
            warnings: Vec::new(),
        };
        let references = References::of(&root);
        let paths = root.get("paths").and_then(Value::as_object);
        for (path, operations) in paths.into_iter().flatten() {
            for (method, operation) in operations.as_object().into_iter().flatten() {
                if operation.is_object() {
                    document.add(references, path, method, operation);
                }
            }
        }
        Ok(document)
    }

    fn add<'d>(&mut self, references: References<'d>, path: &str, method: &str, operation: &'d Value) {
        let fields = Fields::of(operation);
        let place = format!("paths.{path}.{method}");
        let mut tool = Tool {
            name: fields.text("operationId"),
            description: String::new(),
            method: None,
            path: path.to_owned(),
            parameters: Vec::new(),
            body: Some(Vec::new()),
            shown: String::new(),
            schema: Value::Null,
        };
        if tool.name.is_empty() {
            self.warn(&place, "an operation without an operationId cannot be called");
            return;
        }
        let mut shown = Vec::new();
        for (index, parameter) in fields.values("parameters").into_iter().enumerate() {
            let parsed = references.resolved(parameter).and_then(|whole| {
                shown.push(described(&whole));
                Parameter::parse(&whole)
            });
            match parsed {
                Ok(parsed) => tool.parameters.push(parsed),
                Err(fault) => self.warn(&format!("{place}.parameters[{index}]"), &fault),
            }
        }
        match method {
            "get" => {
                tool.method = Some(Method::GET);
                tool.description = fields.text("description");
                tool.schema = schema(&shown, None);
                tool.shown = Value::Array(shown).to_string();
            }
            "post" => {
                let body = operation.get("requestBody").unwrap_or(&Value::Null);
                let body = match references.resolved(body) {
                    Ok(body) => body,
                    Err(fault) => {
                        let message = format!("{fault}: the operation is left out");
                        self.warn(&format!("{place}.requestBody"), &message);
                        return;
                    }
                };
                tool.method = Some(Method::POST);
                tool.description = first(&[fields.text("summary"), fields.text("description")]);
                tool.post(body.pointer("/content/application~1json/schema"), &shown);
            }
            _ => self.warn(&place, "only get and post can be called"),
        }
        self.tools.push(tool);
    }

    fn warn(&mut self, place: &str, message: &str) {
        self.warnings.push(ConfigError::new(place, message));
    }
}

impl Tool {
    fn post(&mut self, body: Option<&Value>, described: &[Value]) {
        let properties = body.and_then(|schema| schema.get("properties"));
        self.body = properties
            .and_then(Value::as_object)
            .map(|members| members.keys().cloned().collect());
        // What the body requires may stand in the path too, as in Higress.
        let required = body
            .and_then(|schema| schema.get("required"))
            .and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let is_known = self.parameters.iter().any(|parameter| parameter.name == name);
            let is_in_path = self.path.split('/').any(|part| part == format!("{{{name}}}"));
            if !is_known && is_in_path {
                self.parameters.push(Parameter {
                    name: name.to_owned(),
                    place: Place::Path,
                    default: None,
                    allowed: Vec::new(),
                });
            }
        }
        let shown = properties.cloned().unwrap_or_else(|| json!({}));
        self.shown = match described {
            [] => shown.to_string(),
            _ => json!({"parameters": described, "body": shown}).to_string(),
        };
        self.schema = schema(described, body);
    }
}

impl Parameter {
    fn parse(written: &Value) -> Result<Self, String> {
        let fields = Fields::of(written);
        let name = fields.text("name");
        if name.is_empty() {
            return Err("a parameter needs a name".to_owned());
        }
        let place = match fields.text("in").as_str() {
            "path" => Place::Path,
            "header" => {
                let lower = name.to_ascii_lowercase();
                let header = HeaderName::try_from(lower).map_err(|_| format!("{name:?} is no header"))?;
                let is_reserved = RESERVED_HEADERS.contains(&header.as_str())
                    || header.as_str().starts_with("x-forwarded-")
                    || header.as_str().starts_with("x-envoy-");
                if is_reserved {
                    return Err(format!("{name:?} is not a model's to set"));
                }
                Place::Header(header)
            }
            "cookie" => return Err("cookies are not sent to tools".to_owned()),
            _ => Place::Query,
        };
        let schema = fields.get("schema");
        let default = schema.and_then(|schema| schema.get("default")).cloned();
        let allowed = schema
            .and_then(|schema| schema.get("enum"))
            .and_then(Value::as_array);
        Ok(Self {
            name,
            place,
            default: default.filter(|_| fields.flag("required", false)),
            allowed: allowed.cloned().unwrap_or_default(),
        })
    }
}

/// A parameter as the model gets to see it.
fn described(written: &Value) -> Value {
    let mut shown = Map::new();
    for name in ["name", "in", "description", "required"] {
        if let Some(value) = written.get(name) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    let mut schema = Map::new();
    for name in ["type", "default", "enum"] {
        if let Some(value) = written.get("schema").and_then(|schema| schema.get(name)) {
            schema.insert(name.to_owned(), value.clone());
        }
    }
    shown.insert("schema".to_owned(), Value::Object(schema));
    Value::Object(shown)
}

/// All arguments as one JSON Schema.
fn schema(described: &[Value], body: Option<&Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for parameter in described {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut schema = parameter.get("schema").cloned().unwrap_or_else(|| json!({}));
        if let (Some(members), Some(text)) = (schema.as_object_mut(), parameter.get("description")) {
            members.insert("description".to_owned(), text.clone());
        }
        if parameter.get("required") == Some(&Value::Bool(true)) {
            required.push(Value::from(name));
        }
        properties.insert(name.to_owned(), schema);
    }
    let member = |name: &str| body.and_then(|schema| schema.get(name));
    for (name, schema) in member("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        properties.insert(name.clone(), schema.clone());
    }
    required.extend(
        member("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .cloned(),
    );
    json!({"type": "object", "properties": properties, "required": required})
}

fn first(texts: &[String]) -> String {
    texts
        .iter()
        .find(|text| !text.is_empty())
        .cloned()
        .unwrap_or_default()
}

/// Host and path of a server's URL. Whether it speaks TLS is the cluster's business.
fn server(url: &str) -> Result<(Option<String>, String), ConfigError> {
    let fault = |message: &str| ConfigError::new("servers[0].url", message);
    if url.contains(['?', '#', '\\']) || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(fault("a server's URL has no query, fragment or blank"));
    }
    let absolute = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = absolute else {
        if url.contains("://") {
            return Err(fault("only http and https can be called"));
        }
        return Ok((None, url.trim_end_matches('/').to_owned()));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() || host.contains('@') {
        return Err(fault("a server's URL needs a host and no user"));
    }
    Ok((Some(host.to_owned()), path.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_references_is_what_it_stands_for() {
        let document = Document::parse(
            r##"
servers: [{ url: https://a.example }]
paths:
  /trees/{kind}:
    get:
      operationId: find
      parameters:
      - $ref: "#/components/parameters/Kind"
      - $ref: "#/components/parameters/Absent"
    post:
      operationId: plant
      parameters:
      - $ref: "#/components/parameters/Kind"
      requestBody: { $ref: "#/components/requestBodies/Tree" }
  /graphs:
    post:
      operationId: draw
      requestBody:
        content: { application/json: { schema: { $ref: "#/components/schemas/Node" } } }
components:
  parameters:
    Kind: { name: kind, in: path, required: true, schema: { $ref: "#/components/schemas/Kind" } }
  requestBodies:
    Tree:
      content:
        application/json:
          schema: { properties: { height: { $ref: "#/components/schemas/Height" } }, required: [height] }
  schemas:
    Kind: { type: string, enum: [oak, elm] }
    Height: { type: integer }
    Node: { properties: { next: { $ref: "#/components/schemas/Node" } } }
"##,
        )
        .unwrap();
        let warnings: Vec<String> = document.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "paths./trees/{kind}.get.parameters[1]: the reference \"#/components/parameters/Absent\" leads nowhere",
                "paths./graphs.post.requestBody: the reference \"#/components/schemas/Node\" leads back to itself: the \
                 operation is left out",
            ]
        );
        let names: Vec<&str> = document.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["find", "plant"]);
        let plant = &document.tools[1];
        assert_eq!(plant.parameters[0].place, Place::Path);
        assert_eq!(plant.parameters[0].allowed, ["oak", "elm"]);
        assert_eq!(plant.body.as_deref(), Some(&["height".to_owned()][..]));
        let kind = json!({"type": "string", "enum": ["oak", "elm"]});
        let properties = json!({"kind": kind, "height": {"type": "integer"}});
        let schema = json!({"type": "object", "properties": properties, "required": ["kind", "height"]});
        assert_eq!(plant.schema, schema);
    }
}
