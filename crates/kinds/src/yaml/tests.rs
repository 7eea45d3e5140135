use super::*;

fn source() -> Arc<str> {
    "a.yaml".into()
}

#[test]
fn many_small_aliases_do_not_become_a_large_document() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let documents = documents(&text, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "more than 500000 values in one document");
    assert!(diagnostic.line > 3);
}

#[test]
fn an_alias_to_a_long_text_is_paid_each_time() {
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1_000_000),
        vec!["*a"; 100].join(", ")
    );
    let documents = documents(&text, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "more than 67108864 bytes in one document");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for text in [
        format!("a: {}{}", "[".repeat(200), "]".repeat(200)),
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
    ] {
        let documents = documents(&text, &source());
        assert!(matches!(documents.as_slice(), [Err(_)]), "one error expected");
    }
    let json = format!("{}1{}", "{\"a\":".repeat(110), "}".repeat(110));
    let documents = documents(&json, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "nested deeper than 100 levels");
}
