//! Cuts a file at `---` and `...`, before any YAML is parsed.
//!
//! Both markers end a document wherever they stand at the start of a line, even inside a quoted or block scalar, so
//! this needs no parser. The parser sees one chunk at a time and cannot carry an error from one into the next.

/// A piece of a file that holds one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The text, with its `---` line if it has one.
    pub text: &'a str,
    /// Line of the file, from 1, on which the text begins.
    pub first_line: u32,
}

/// The documents of a file, in order. Chunks without content (only blank lines, comments and markers) are left out.
pub fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut start = Start { offset: 0, line: 1 };
    let mut offset = 0;
    let mut content = Content::Nothing;
    for (line_number, line) in (1_u32..).zip(text.split_inclusive('\n')) {
        let next_offset = offset + line.len();
        if is_marker(line, "---") {
            // `%YAML` and `%TAG` lines belong to the document that the marker opens.
            if content != Content::Directives {
                push(&mut chunks, text, start, offset, content);
                start = Start {
                    offset,
                    line: line_number,
                };
            }
            content = if content_of(&line[3..]) == Content::Nothing {
                Content::Nothing
            } else {
                Content::Document
            };
        } else if is_marker(line, "...") {
            push(&mut chunks, text, start, offset, content);
            start = Start {
                offset: next_offset,
                line: line_number + 1,
            };
            content = Content::Nothing;
        } else {
            content = content.max(content_of(line));
        }
        offset = next_offset;
    }
    push(&mut chunks, text, start, text.len(), content);
    chunks
}

#[derive(Clone, Copy)]
struct Start {
    offset: usize,
    line: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Nothing,
    Directives,
    Document,
}

fn push<'a>(chunks: &mut Vec<Chunk<'a>>, text: &'a str, start: Start, end: usize, content: Content) {
    if content != Content::Nothing {
        chunks.push(Chunk {
            text: &text[start.offset..end],
            first_line: start.line,
        });
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn content_of(line: &str) -> Content {
    match line.trim_start().chars().next() {
        None | Some('#' | '\u{feff}') => Content::Nothing,
        Some('%') if line.starts_with('%') => Content::Directives,
        Some(_) => Content::Document,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, u32)> {
        chunks(text)
            .into_iter()
            .map(|chunk| (chunk.text, chunk.first_line))
            .collect()
    }

    #[test]
    fn keeps_the_line_each_document_begins_on() {
        assert_eq!(
            split("a: 1\n---\nb: 2\n--- # note\nc: 3\n"),
            [("a: 1\n", 1), ("---\nb: 2\n", 2), ("--- # note\nc: 3\n", 4)]
        );
        assert_eq!(
            split("--- {a: 1}\r\n---\r\nb: 2\r\n"),
            [("--- {a: 1}\r\n", 1), ("---\r\nb: 2\r\n", 2)]
        );
    }

    #[test]
    fn leaves_out_documents_without_content() {
        assert_eq!(
            split("---\n# nothing\n---\n\na: 1\n---\n"),
            [("---\n\na: 1\n", 3)]
        );
        assert_eq!(split(""), []);
        assert_eq!(split("\u{feff}# only a note"), []);
        assert_eq!(split("\u{feff}---\n---\n...\n"), []);
    }

    #[test]
    fn a_marker_counts_only_at_the_start_of_a_line_and_alone() {
        assert_eq!(split("a: |\n  ---\n  x\n ---\n----\n---x\n").len(), 1);
        assert_eq!(
            split("a: |\n  x\n---\nb: 1\n"),
            [("a: |\n  x\n", 1), ("---\nb: 1\n", 3)]
        );
    }

    #[test]
    fn directives_belong_to_the_document_they_introduce() {
        assert_eq!(split("%YAML 1.2\n---\na: 1\n"), [("%YAML 1.2\n---\na: 1\n", 1)]);
        assert_eq!(
            split("a: 1\n...\n%TAG ! x\n---\nb: 1\n"),
            [("a: 1\n", 1), ("%TAG ! x\n---\nb: 1\n", 3)]
        );
    }
}
