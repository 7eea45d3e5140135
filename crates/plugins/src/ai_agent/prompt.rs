//! The ReAct prompt (plugins spec §3.3): tools, rules, format, history and question in one message.
//!
//! The labels and keys are what `step` reads; the words around them are ours.

use serde_json::Value;
use tollgate_llm::lenient::Fields;

use super::config::Config;

/// The four texts of the format that a config may change.
pub(super) struct Words {
    is_chinese: bool,
    question: String,
    thought1: String,
    observation: String,
    thought2: String,
}

impl Words {
    pub(super) fn parse(fields: Fields<'_>) -> Self {
        let is_chinese = fields.text("language") == "CH";
        let (template, defaults) = match is_chinese {
            true => (
                "chTemplate",
                [
                    "输入要回答的问题",
                    "考虑之前和之后的步骤",
                    "行动结果",
                    "我知道该回应什么",
                ],
            ),
            false => (
                "enTemplate",
                [
                    "input question to answer",
                    "consider previous and subsequent steps",
                    "action result",
                    "I know what to respond",
                ],
            ),
        };
        let null = Value::Null;
        let own = Fields::of(fields.get(template).unwrap_or(&null));
        let word = |name: &str, default: &str| {
            let text = own.text(name);
            if text.is_empty() { default.to_owned() } else { text }
        };
        let [question, thought1, observation, thought2] = defaults;
        Self {
            is_chinese,
            question: word("question", question),
            thought1: word("thought1", thought1),
            observation: word("observation", observation),
            thought2: word("thought2", thought2),
        }
    }
}

/// The prompt for one question.
pub(super) fn react(config: &Config, history: &str, question: &str) -> String {
    let words = &config.words;
    let (mut tools, mut names) = (String::new(), Vec::new());
    for tool in config.apis.iter().flat_map(|api| &api.tools) {
        let parameters = if words.is_chinese { "参数" } else { "parameters" };
        tools.push_str(&format!(
            "- {}: {} ({parameters}: {})\n",
            tool.name, tool.description, tool.shown
        ));
        names.push(tool.name.as_str());
    }
    let names = names.join(", ");
    let intro = match words.is_chinese {
        true => format!(
            "请回答最后的问题，需要时使用下列工具：\n{tools}\n每一步输出一个放在三个反引号之间的 JSON 对象，含 action（工具名）和 \
             action_input（该工具参数的 JSON 对象，写成字符串）两个键。action 只能是 \"Final Answer\" 或以下之一：{names}。\
             输出 action 之后请停下，等待 Observation，不要自己编造。\n\n请严格使用以下格式："
        ),
        false => format!(
            "Answer the question at the end. Where you need them, use these tools:\n{tools}\nEach step is one JSON object between \
             three backticks with two keys: action, the name of a tool, and action_input, a string that holds the tool's \
             arguments as a JSON object. action is \"Final Answer\" or one of: {names}. After an action stop and wait for the \
             Observation; never invent one.\n\nKeep strictly to this format:"
        ),
    };
    let (repeat, answer) = match words.is_chinese {
        true => ("（Thought/Action/Observation 可以重复多次）", "最终回答"),
        false => ("(Thought/Action/Observation may repeat)", "the answer"),
    };
    format!(
        "{intro}\n\nQuestion: {}\nThought: {}\nAction:\n```\n{{\"action\": $TOOL_NAME, \"action_input\": $ACTION_INPUT}}\n```\n\
         Observation: {}\n{repeat}\nThought: {}\nAction:\n```\n{{\"action\": \"Final Answer\", \"action_input\": \"{answer}\"}}\n\
         ```\n\n{history}\nQuestion: {question}",
        words.question, words.thought1, words.observation, words.thought2
    )
}

/// What has the model turn an answer into JSON.
pub(super) fn to_json(schema: &Value, answer: &str) -> String {
    let wanted = match schema {
        Value::Null => "as one JSON object".to_owned(),
        schema => format!("as one JSON object that is valid against this JSON Schema:\n{schema}"),
    };
    format!("Write the following text {wanted}\nAnswer with the JSON object alone.\n\n{answer}")
}
