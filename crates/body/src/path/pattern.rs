//! Wildcards: `*` is any text, `?` any one character, `\` takes the next one as it is.

/// Whether the whole text matches. Linear in the text for each `*`, so no text can make it slow.
pub(super) fn matches(text: &str, pattern: &str) -> bool {
    let mut text_rest = text.chars();
    let mut pattern_rest = pattern.chars();
    // Where to go on when a try fails: behind the last star, with one character more under it.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = pattern_rest.clone();
        let wanted = ahead.next();
        if wanted == Some('*') {
            retry = Some((text_rest.clone(), ahead.clone()));
            pattern_rest = ahead;
            continue;
        }
        let literal = if wanted == Some('\\') {
            ahead.next()
        } else {
            wanted
        };
        let mut text_ahead = text_rest.clone();
        let is_match = match (text_ahead.next(), wanted, literal) {
            (None, None, _) => return true,
            (Some(_), Some('?'), _) => true,
            (Some(found), Some(_), Some(expected)) => found == expected,
            _ => false,
        };
        if is_match {
            (text_rest, pattern_rest) = (text_ahead, ahead);
            continue;
        }
        let Some((mut under_star, behind_star)) = retry else {
            return false;
        };
        if under_star.next().is_none() {
            return false;
        }
        text_rest = under_star.clone();
        pattern_rest = behind_star.clone();
        retry = Some((under_star, behind_star));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "*", true),
            ("a", "", false),
            ("abc", "a*", true),
            ("abc", "*c", true),
            ("abc", "*b*", true),
            ("abc", "a?c", true),
            ("ac", "a?c", false),
            ("aéc", "a?c", true),
            ("abcbc", "a*bc", true),
            ("abcb", "a*bc", false),
            ("a*c", r"a\*c", true),
            ("abc", r"a\*c", false),
            ("ab", r"a\", false),
            ("aaaa", "*a*a*", true),
            ("mississippi", "m*iss*ip*", true),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text} ~ {pattern}");
        }
        let long = "a".repeat(5_000);
        assert!(!matches(&long, "a*a*a*a*a*a*a*b"));
    }
}
