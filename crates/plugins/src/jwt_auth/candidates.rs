//! Which consumers a request's tokens may be of, so that a request does not cost more the more consumers there are: who
//! wants another issuer than any of the tokens names is not looked at.

use std::collections::HashMap;

use serde_json::Value;

use crate::jwt::{Fault, Token};

/// Numbers of consumers, in the order of the document.
#[derive(Default)]
pub(super) struct Candidates {
    by_issuer: HashMap<String, Vec<usize>>,
    /// Those that take tokens of any issuer.
    others: Vec<usize>,
}

impl Candidates {
    pub(super) fn add(&mut self, number: usize, issuer: Option<&str>) {
        match issuer {
            Some(issuer) => self.by_issuer.entry(issuer.to_owned()).or_default().push(number),
            None => self.others.push(number),
        }
    }

    /// Who is looked at, in order. The first consumer always is: what it finds wrong is what a refusal says.
    pub(super) fn of(&self, tokens: &[Option<Result<Token<'_>, Fault>>]) -> Vec<usize> {
        let mut numbers = vec![0];
        numbers.extend(&self.others);
        for token in tokens.iter().flatten().flatten() {
            let issuer = token.claim("iss").and_then(Value::as_str);
            numbers.extend(
                issuer
                    .and_then(|issuer| self.by_issuer.get(issuer))
                    .into_iter()
                    .flatten(),
            );
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
