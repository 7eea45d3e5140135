//! `${NAME}` in documents, replaced before YAML is parsed, as `envsubst < f.yaml | kubectl apply -f -` does.
//!
//! Only the braced form with a name of `[A-Za-z_][A-Za-z0-9_]*` counts; `$NAME`, `$1`, and Higress's own
//! `${secret.ns/name.key}` stay untouched. Unlike envsubst an unset name is not silently empty: it is reported with
//! its line. The lookup is a closure, so this file knows no environment, and no diagnostic repeats a value.

/// Answers the value of a name, or nothing when it has none.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text after substitution.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Substituted {
    /// The text with every known name replaced.
    pub text: String,
    /// Names that the lookup did not know, with their line from 1. They are still in the text as written.
    pub unset: Vec<Unset>,
    /// `(line of the result, lines added there)` for every value that brought line breaks along.
    shifts: Vec<(u32, u32)>,
}

/// A name without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// The name between the braces.
    pub name: String,
    /// Line of the original text from 1.
    pub line: u32,
    /// Whether the whole line is a YAML comment, where nobody misses the value.
    pub in_comment: bool,
}

impl Substituted {
    /// The line of the original text that a line of the result came from.
    pub fn original_line(&self, line: u32) -> u32 {
        let mut added_before = 0;
        for &(at, added) in &self.shifts {
            if line <= at {
                break;
            }
            added_before += added.min(line - at);
        }
        line - added_before
    }
}

/// Replaces every `${NAME}` by what `lookup` answers.
pub fn envsubst(text: &str, lookup: &Lookup<'_>) -> Substituted {
    let mut result = Substituted {
        text: String::with_capacity(text.len()),
        ..Substituted::default()
    };
    let mut result_line = 1;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let in_comment = line.trim_start().starts_with('#');
        let mut rest = line;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            result.text.push_str(before);
            let Some(name) = name_of(reference) else {
                result.text.push_str("${");
                rest = &reference[2..];
                continue;
            };
            let written = &reference[..name.len() + 3];
            match lookup(name) {
                Some(value) => {
                    let added = value.matches('\n').count();
                    if added > 0 {
                        let added = u32::try_from(added).unwrap_or(u32::MAX);
                        result.shifts.push((result_line, added));
                        result_line += added;
                    }
                    result.text.push_str(&value);
                }
                None => {
                    let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
                    result.unset.push(Unset {
                        name: name.to_owned(),
                        line,
                        in_comment,
                    });
                    result.text.push_str(written);
                }
            }
            rest = &reference[written.len()..];
        }
        result.text.push_str(rest);
        result_line += 1;
    }
    result
}

/// The name of a reference that starts with `${`, if it is one of ours.
pub(crate) fn name_of(reference: &str) -> Option<&str> {
    let (name, _) = reference.strip_prefix("${")?.split_once('}')?;
    let mut bytes = name.bytes();
    let first = bytes.next()?;
    let valid = (first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    valid.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "LLM" => Some("qwen".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${LLM}".to_owned()),
            "TWO" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    fn substituted(text: &str) -> String {
        envsubst(text, &lookup).text
    }

    #[test]
    fn replaces_braced_names_only() {
        assert_eq!(
            substituted("type: ${LLM}\nname: x-${LLM}.${LLM}\n"),
            "type: qwen\nname: x-qwen.qwen\n"
        );
        assert_eq!(substituted("a: ${EMPTY}b"), "a: b");
        for untouched in [
            "$LLM",
            "$1",
            "/$1/${secret.ns/name.key}",
            "${}",
            "${1A}",
            "${LLM",
            "${ LLM }",
            "$${",
            "$",
        ] {
            assert_eq!(substituted(untouched), untouched);
        }
        assert_eq!(substituted("${a.${LLM}"), "${a.qwen");
    }

    #[test]
    fn a_value_is_not_substituted_again() {
        assert_eq!(substituted("${NESTED}"), "${LLM}");
    }

    #[test]
    fn an_unset_name_is_reported_with_its_line_and_left_as_written() {
        let result = envsubst("a: ${LLM}\nb: ${MISSING}\n  # see ${OTHER}\n", &lookup);
        assert_eq!(result.text, "a: qwen\nb: ${MISSING}\n  # see ${OTHER}\n");
        assert_eq!(
            result.unset,
            [
                Unset {
                    name: "MISSING".to_owned(),
                    line: 2,
                    in_comment: false
                },
                Unset {
                    name: "OTHER".to_owned(),
                    line: 3,
                    in_comment: true
                }
            ]
        );
    }

    #[test]
    fn lines_are_counted_as_written_even_after_values_with_line_breaks() {
        let result = envsubst("1\n2 ${TWO}\n3\n4 ${TWO} ${TWO}\n5\n", &lookup);
        assert_eq!(result.text, "1\n2 a\nb\n3\n4 a\nb a\nb\n5\n");
        let original: Vec<u32> = (1..=8).map(|line| result.original_line(line)).collect();
        assert_eq!(original, [1, 2, 2, 3, 4, 4, 4, 5]);
    }
}
