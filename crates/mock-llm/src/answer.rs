//! The question and the answer without a dialect: what a wire format reads into and writes from.
//!
//! `reply` is the mock's model: a scripted dialogue if one fits, else a text, a JSON document or tool calls made
//! from the question alone, so that the same question always gets the same answer, streamed or not.

use serde_json::{Map, Value, json};

use crate::hash::{Fnv, mix, short_id, uuid};
use crate::plan::AnswerWishes;
use crate::{script, tokens};

/// The moment of every unscripted answer, in seconds: the first document's.
const CREATED: u64 = 1_726_192_573;

/// Who speaks in a message of the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of the prompt.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) text: String,
    pub(crate) images: usize,
}

/// A tool on offer.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) parameters: Value,
}

/// Whether the answer must, may or must not call a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    #[default]
    Auto,
    Never,
    Required,
    Named(String),
}

/// A question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) reasoning: bool,
    /// The schema of a wanted JSON answer; `{}` when any JSON will do.
    pub(crate) json_schema: Option<Value>,
    pub(crate) choices: usize,
}

impl Ask {
    /// The last message that a person wrote.
    pub(crate) fn question(&self) -> &str {
        let asked = self.turns.iter().rev().find(|turn| turn.role == Role::User);
        asked.map_or("", |turn| turn.text.as_str())
    }

    fn hash(&self) -> u64 {
        let mut hash = Fnv::default();
        hash.write(self.model.as_bytes());
        for turn in &self.turns {
            hash.write(&[0, turn.role as u8]);
            hash.write(turn.text.as_bytes());
        }
        hash.value()
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        let turns: usize = self
            .turns
            .iter()
            .map(|turn| tokens::count(&turn.text) + tokens::PER_MESSAGE + turn.images * tokens::PER_IMAGE)
            .sum();
        let tools: usize = self
            .tools
            .iter()
            .map(|tool| tokens::count(&tool.name) + tokens::count(&tool.parameters.to_string()))
            .sum();
        turns + tools + tokens::PER_PROMPT
    }
}

/// Why the answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    #[default]
    Stop,
    Length,
    ToolCalls,
}

/// A call of a tool; the arguments are JSON text.
#[derive(Clone, Debug)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// Token counts as a vendor reports them; the reasoning is part of the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
    pub(crate) reasoning: usize,
    pub(crate) cached: usize,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) hash: u64,
    /// The id that a script fixes; dialects make their own from `hash` otherwise.
    pub(crate) scripted_id: Option<&'static str>,
    pub(crate) model: String,
    pub(crate) created: u64,
    pub(crate) choices: usize,
    pub(crate) reasoning: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

impl Answer {
    /// DashScope answers under a UUID, the others under their prefix and 24 characters.
    pub(crate) fn id(&self, prefix: &str) -> String {
        match self.scripted_id {
            Some(id) => id.to_owned(),
            None if self.model.starts_with("qwen") => uuid(self.hash),
            None => format!("{prefix}{}", short_id(self.hash)),
        }
    }
}

/// Answers a question. `default_length` is the length in tokens of a text that nothing else determines.
pub(crate) fn reply(ask: &Ask, default_length: usize, wishes: &AnswerWishes) -> Answer {
    let hash = ask.hash();
    let mut answer = Answer {
        hash,
        scripted_id: None,
        model: ask.model.clone(),
        created: CREATED,
        choices: ask.choices.clamp(1, 16),
        reasoning: String::new(),
        text: String::new(),
        calls: Vec::new(),
        finish: Finish::Stop,
        usage: Usage {
            prompt: ask.prompt_tokens(),
            cached: wishes.cached,
            ..Usage::default()
        },
    };
    if let Some(dialogue) = script::find(ask) {
        answer.text = dialogue.text;
        answer.scripted_id = dialogue.id;
        answer.created = dialogue.created.unwrap_or(CREATED);
        limit(&mut answer, ask.max_tokens);
        if let (Some((prompt, completion)), Finish::Stop) = (dialogue.usage, answer.finish) {
            answer.usage.prompt = prompt;
            answer.usage.completion = completion;
        }
        return answer;
    }
    if ask.reasoning || wishes.reasoning {
        answer.reasoning = reasoning(ask);
    }
    answer.calls = calls(ask, hash, wishes.call_tools);
    if answer.calls.is_empty() {
        answer.text = text(ask, hash, wishes, default_length);
    } else {
        answer.finish = Finish::ToolCalls;
    }
    limit(&mut answer, ask.max_tokens);
    answer
}

/// Cuts the text to the allowed length and counts what is left.
fn limit(answer: &mut Answer, max_tokens: Option<usize>) {
    if let Some(limit) = max_tokens
        && answer.calls.is_empty()
        && tokens::count(&answer.text) > limit
    {
        answer.text.truncate(tokens::truncate(&answer.text, limit).len());
        answer.finish = Finish::Length;
    }
    let calls: usize = answer
        .calls
        .iter()
        .map(|call| tokens::count(&call.name) + tokens::count(&call.arguments))
        .sum();
    answer.usage.reasoning = tokens::count(&answer.reasoning);
    answer.usage.completion = (tokens::count(&answer.text) + calls) * answer.choices + answer.usage.reasoning;
}

fn is_chinese(text: &str) -> bool {
    text.chars()
        .any(|character| ('\u{4e00}'..='\u{9fff}').contains(&character))
}

fn reasoning(ask: &Ask) -> String {
    if is_chinese(ask.question()) {
        "先看问题，再想答案。".to_owned()
    } else {
        "First the question, then the answer.".to_owned()
    }
}

const CHINESE: [&str; 6] = [
    "网关把每个请求送到合适的模型。",
    "流式回答一个词一个词地到来。",
    "每个令牌都被如实计数。",
    "春江潮水连海平，海上明月共潮生。",
    "配置更新时，正在进行的对话不会中断。",
    "这是模拟模型的回答，每次都一样。",
];
const ENGLISH: [&str; 6] = [
    "The gateway sends every request to a fitting model. ",
    "A streamed answer arrives one word at a time. ",
    "Every token is counted truthfully. ",
    "A quiet river carries the moon to the sea. ",
    "Open conversations survive a change of configuration. ",
    "This is the mock model's answer, the same each time. ",
];

/// How much of the question an answer quotes, in characters.
const QUOTED: usize = 60;

fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn text(ask: &Ask, hash: u64, wishes: &AnswerWishes, default_length: usize) -> String {
    let chinese = wishes.chinese || is_chinese(ask.question());
    let wanted = wishes.length;
    if let Some(last) = ask.turns.last().filter(|turn| turn.role == Role::Tool) {
        return if chinese {
            format!("工具返回：{}", last.text)
        } else {
            format!("The tool answered: {}", last.text)
        };
    }
    if let Some(schema) = &ask.json_schema {
        return instance(schema, ask.question(), "answer").to_string();
    }
    let images: usize = ask.turns.iter().map(|turn| turn.images).sum();
    let mut text = match (chinese, images) {
        (true, 0) => format!("收到：“{}”。", quoted(ask.question())),
        (true, _) => format!("我看到{images}张图片。收到：“{}”。", quoted(ask.question())),
        (false, 0) => format!("You said: \"{}\". ", quoted(ask.question())),
        (false, 1) => format!("I see 1 image. You said: \"{}\". ", quoted(ask.question())),
        (false, _) => format!(
            "I see {images} images. You said: \"{}\". ",
            quoted(ask.question())
        ),
    };
    let sentences = if chinese { &CHINESE } else { &ENGLISH };
    let length = wanted.unwrap_or(default_length);
    let mut state = hash;
    loop {
        // White space at a seam belongs to the next token: joined sentences may count less than they do apart.
        let whole = if wanted.is_some() {
            text.as_str()
        } else {
            text.trim_end()
        };
        let mut missing = length.saturating_sub(tokens::count(whole));
        if missing == 0 {
            break;
        }
        while missing > 0 {
            state = mix(state);
            let sentence = sentences[usize::try_from(state % sentences.len() as u64).unwrap_or(0)];
            missing = missing.saturating_sub(tokens::count(sentence));
            text.push_str(sentence);
        }
    }
    if let Some(length) = wanted {
        text.truncate(tokens::truncate(&text, length).len());
        return text;
    }
    text.truncate(text.trim_end().len());
    text
}

/// The calls that the rule asks for: all tools that the question names, or the demanded one; none after a tool's answer.
fn calls(ask: &Ask, hash: u64, forced: bool) -> Vec<ToolCall> {
    if ask.choice == Choice::Never || ask.turns.last().is_some_and(|turn| turn.role == Role::Tool) {
        return Vec::new();
    }
    let question = ask.question();
    let mut chosen: Vec<&Tool> = match &ask.choice {
        Choice::Named(name) => ask.tools.iter().filter(|tool| tool.name == *name).collect(),
        _ => ask
            .tools
            .iter()
            .filter(|tool| !tool.name.is_empty() && question.contains(&tool.name))
            .collect(),
    };
    if chosen.is_empty() && (forced || ask.choice == Choice::Required) {
        chosen.extend(ask.tools.first());
    }
    let call = |(place, tool): (usize, &Tool)| ToolCall {
        id: format!("call_{}", short_id(hash.wrapping_add(place as u64))),
        name: tool.name.clone(),
        arguments: instance(&tool.parameters, question, "value").to_string(),
    };
    chosen.into_iter().enumerate().map(call).collect()
}

/// A value that fits a JSON Schema, taken from the question where it can be.
fn instance(schema: &Value, question: &str, name: &str) -> Value {
    for given in ["const", "default", "example"] {
        if let Some(value) = schema.get(given) {
            return value.clone();
        }
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let kind = schema
        .get("type")
        .and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match (kind, properties) {
        (_, Some(properties)) => {
            let fields = properties
                .iter()
                .map(|(key, value)| (key.clone(), instance(value, question, key)));
            Value::Object(fields.collect())
        }
        (Some("object"), None) => Value::Object(Map::new()),
        (Some("array"), _) => {
            json!([instance(
                schema.get("items").unwrap_or(&Value::Null),
                question,
                name
            )])
        }
        (Some("integer" | "number"), _) => json!(first_number(question).unwrap_or(1)),
        (Some("boolean"), _) => json!(true),
        (Some("null"), _) => Value::Null,
        (Some("string"), _) => json!(first_quote(question).unwrap_or(name)),
        // A schema that demands nothing: the mock's own form of a JSON answer.
        (_, None) if name == "answer" => json!({ "answer": quoted(question) }),
        (_, None) => json!(first_quote(question).unwrap_or(name)),
    }
}

fn first_number(text: &str) -> Option<u64> {
    let start = text.find(|character: char| character.is_ascii_digit())?;
    let digits: &str = &text[start..];
    let end = digits
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

fn first_quote(text: &str) -> Option<&str> {
    [('"', '"'), ('“', '”'), ('「', '」'), ('\'', '\'')]
        .into_iter()
        .find_map(|(open, close)| {
            let (_, after) = text.split_once(open)?;
            let (inside, _) = after.split_once(close)?;
            (!inside.is_empty()).then_some(inside)
        })
}
