//! The requests that both sides get: the same list for the same config, made of common ones and of the config's words.

/// Most requests for one config.
const MOST: usize = 300;
/// Most words of a config that are tried.
const WORDS: usize = 24;

const CHAT: &str = "/v1/chat/completions";

/// One request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    /// How a report names it.
    pub(super) fn title(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        format!(
            "{} {} [{}] {:?}",
            self.method,
            self.path,
            fields.join(", "),
            self.body
        )
    }
}

/// The list for a config's text.
pub(super) fn generate(config: &str) -> Vec<Request> {
    let mut all = common();
    let words = words(config);
    for word in &words {
        let is_plain = word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        if is_plain {
            all.push(get(&format!("/{}", word.trim_start_matches('/')), &[]));
            all.push(get(&format!("/a?apikey={word}"), &[]));
        }
        all.push(get("/", &[("authorization", &format!("Bearer {word}"))]));
        all.push(get("/", &[("authorization", word)]));
        all.push(get("/", &[("x-api-key", word)]));
        all.push(chat(&format!(
            r#""messages":[{{"role":"user","content":"about {} today"}}]"#,
            escaped(word)
        )));
        all.push(chat(&format!(r#""model":"{}","messages":[]"#, escaped(word))));
    }
    // A word that can be a field's name or a parameter, with each of the others as its value.
    for name in words.iter().filter(|word| is_name(word)) {
        for value in words.iter().filter(|value| *value != name) {
            all.push(get("/", &[(name, value)]));
            if is_name(value) {
                all.push(get(&format!("/?{name}={value}"), &[]));
            }
        }
    }
    all.truncate(MOST);
    all
}

fn common() -> Vec<Request> {
    let user = r#""messages":[{"role":"user","content":"Who are you?"}]"#;
    let mut all = vec![
        get("/", &[]),
        get("/v1/models", &[]),
        get("/a/b?c=d&c=e", &[("cookie", "a=b")]),
        get("/", &[("authorization", "Bearer nobody")]),
        get("/", &[("authorization", "Basic !")]),
        chat(&format!(r#""model":"gpt-4o",{user}"#)),
        chat(&format!(r#""model":"gpt-4o","stream":true,{user}"#)),
        chat(&format!(
            r#""model":"gpt-4o","stream":true,"stream_options":{{"include_usage":true}},{user}"#
        )),
        chat(&format!(
            r#""model":"gpt-4o","temperature":0.5,"max_tokens":5,"unknown":[1,{{}}],{user}"#
        )),
        chat(
            r#""messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"}]}]"#,
        ),
        chat(r#""model":1,"messages":"none""#),
        chat(""),
    ];
    for (path, body) in [
        (CHAT, "not json"),
        (CHAT, ""),
        ("/v1/embeddings", r#"{"model":"e","input":"text"}"#),
        ("/other", r#"{"a":{"b":[1,2.50,"\u00e9"]}}"#),
    ] {
        all.push(post(path, body));
    }
    all
}

fn get(path: &str, fields: &[(&str, &str)]) -> Request {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request {
        method: "GET",
        path: path.to_owned(),
        fields: fields.collect(),
        body: String::new(),
    }
}

fn post(path: &str, body: &str) -> Request {
    Request {
        method: "POST",
        path: path.to_owned(),
        fields: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_owned(),
    }
}

fn chat(inner: &str) -> Request {
    post(CHAT, &format!("{{{inner}}}"))
}

/// What stands between the punctuation of YAML and JSON, each once, in order.
fn words(config: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let is_edge =
        |letter: char| letter.is_whitespace() || "{}[],\"'#|>".contains(letter) || letter.is_control();
    for word in config.split(is_edge) {
        let word = word.trim_end_matches(':').trim_start_matches("- ");
        if word.len() > 1 && word.is_ascii() && !found.iter().any(|known| known == word) {
            found.push(word.to_owned());
        }
    }
    // Values are at the end of lines, and worth more than the names of fields.
    found.reverse();
    found.truncate(WORDS);
    found
}

fn is_name(word: &str) -> bool {
    word.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn escaped(word: &str) -> String {
    word.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_config_reach_every_place_and_the_list_is_bounded() {
        let config = "keys: [apikey]\nconsumers:\n- { name: c1, credential: \"s3cret\" }\n";
        let all = generate(config);
        assert_eq!(all, generate(config));
        let has = |wanted: Request| assert!(all.contains(&wanted), "{wanted:?}");
        has(get("/", &[("apikey", "s3cret")]));
        has(get("/?apikey=s3cret", &[]));
        has(get("/", &[("authorization", "Bearer s3cret")]));
        let many: String = (0..100).map(|number| format!("word{number} ")).collect();
        assert_eq!(generate(&many).len(), MOST);
    }
}
