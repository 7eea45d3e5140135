//! The examples of the source tree, in the program: what `tollgate demo --example NAME` serves and prints.
//!
//! A new directory under `examples/` is one; nothing is registered. Of its documents those whose names begin with a
//! digit count, all of them if there is none; the requests to paste are the `curl` commands of its `README.md`.

/// One directory.
#[derive(Debug)]
pub(crate) struct Example {
    /// The directory's name.
    pub(crate) name: &'static str,
    /// Names and texts of its files.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

include!(concat!(env!("OUT_DIR"), "/examples.rs"));

/// The example of a name.
pub(crate) fn find(name: &str) -> Option<&'static Example> {
    EXAMPLES.iter().find(|example| example.name == name)
}

/// All names, for a message.
pub(crate) fn names() -> String {
    let names: Vec<&str> = EXAMPLES.iter().map(|example| example.name).collect();
    names.join(", ")
}

impl Example {
    /// The documents that are served.
    pub(crate) fn documents(&self) -> Vec<(&'static str, &'static str)> {
        let is_document = |name: &str| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        let all = self.files.iter().copied().filter(|(name, _)| is_document(name));
        let (numbered, others): (Vec<_>, Vec<_>) =
            all.partition(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit()));
        if numbered.is_empty() { others } else { numbered }
    }

    /// The requests that the README tells, each a command of one or more lines.
    pub(crate) fn requests(&self) -> Vec<String> {
        let readme = self.files.iter().find(|(name, _)| *name == "README.md");
        let mut requests = Vec::new();
        let mut open: Option<String> = None;
        for line in readme.map_or("", |(_, text)| text).lines() {
            let request = match open.take() {
                Some(begun) => format!("{begun}\n{line}"),
                None if line.starts_with("curl ") => line.to_owned(),
                None => continue,
            };
            let quotes = request.matches('\'').count();
            if line.ends_with('\\') || quotes % 2 == 1 {
                open = Some(request);
            } else {
                requests.push(request);
            }
        }
        requests
    }

    /// Hosts that its McpBridges name, with `variables` filled in.
    pub(crate) fn hosts(&self, variables: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut hosts = Vec::new();
        for (_, text) in self.documents() {
            let domains = text.lines().filter_map(|line| {
                let field = line
                    .trim_start()
                    .trim_start_matches("- ")
                    .strip_prefix("domain:")?;
                Some(field.trim().trim_matches(['"', '\'']))
            });
            for domain in domains {
                let name = domain.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
                let host = name.map_or_else(|| Some(domain.to_owned()), &variables);
                hosts.extend(host.filter(|host| is_name(host)));
            }
        }
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

/// A host name, not an address.
fn is_name(host: &str) -> bool {
    host.contains('.')
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        && !host.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_has_documents_and_a_readme() {
        assert!(!EXAMPLES.is_empty());
        for example in EXAMPLES {
            assert!(!example.documents().is_empty(), "{}", example.name);
            assert!(
                example.files.iter().any(|(name, _)| *name == "README.md"),
                "{}",
                example.name
            );
        }
        assert!(names().contains("ai-proxy"), "{}", names());
    }

    #[test]
    fn requests_of_several_lines_are_one() {
        let example = Example {
            name: "x",
            files: &[
                (
                    "README.md",
                    "text\n```bash\ncurl a \\\n  -d '{\n}'\ncurl b\n```\n",
                ),
                ("b.yaml", ""),
                (
                    "01-a.yaml",
                    "  - domain: ${HOST}\n    domain: \"api.x.org\"\n  - domain: 127.0.0.1:80\n",
                ),
            ],
        };
        assert_eq!(example.requests(), ["curl a \\\n  -d '{\n}'", "curl b"]);
        assert_eq!(example.documents().len(), 1);
        assert_eq!(
            example.hosts(|name| Some(format!("{name}.org").to_lowercase())),
            ["api.x.org", "host.org"]
        );
    }
}
