//! Which version of each object is in force: the newest that could be used.
//!
//! Two ways to fall back: a file that no longer parses keeps the objects it held, and an object that the compiler
//! refuses keeps its last accepted version.

use std::collections::{HashMap, HashSet};

use tollgate_kinds::{Diagnostic, Object, ObjectKey, Objects};

/// Objects as they were last in force, and the files they came from.
#[derive(Debug, Default)]
pub(crate) struct LastGood {
    accepted: HashMap<ObjectKey, Object>,
}

impl LastGood {
    /// Objects that `file` (or a file below it, when it is a directory) held when it was last readable, as far as its
    /// errors hide them: those that an error names, and all of them once an error cannot tell whose it is.
    pub(crate) fn hidden_by(&self, file: &str, diagnostics: &[Diagnostic]) -> Vec<Object> {
        let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|found| found.is_error()).collect();
        let all = errors.iter().any(|error| error.name.is_empty());
        let hidden = |object: &&Object| {
            is_from(&object.common().0.source, file)
                && (all || errors.iter().any(|error| is_about(error, &object.key())))
        };
        self.accepted.values().filter(hidden).cloned().collect()
    }

    /// Puts the accepted version in the place of each object that an error names; true if any was replaced.
    pub(crate) fn fall_back(&self, objects: &mut Objects, diagnostics: &[Diagnostic]) -> bool {
        let mut replaced = false;
        for key in refused(objects, diagnostics) {
            match (self.accepted.get(&key), objects.get(&key)) {
                (Some(good), Some(bad)) if good != bad => {
                    replaced = true;
                    objects.replace(good.clone());
                }
                _ => {}
            }
        }
        replaced
    }

    /// Remembers what is now in force. An object that an error names keeps the version it was accepted with, if it
    /// ever was: the fault may lie elsewhere, as with a Secret that is gone for a moment.
    pub(crate) fn accept(&mut self, objects: &Objects, diagnostics: &[Diagnostic]) {
        let bad: HashSet<ObjectKey> = refused(objects, diagnostics).into_iter().collect();
        let mut earlier = std::mem::take(&mut self.accepted);
        self.accepted = objects
            .iter()
            .filter_map(|object| {
                let key = object.key();
                let version = match bad.contains(&key) {
                    true => earlier.remove(&key)?,
                    false => object.clone(),
                };
                Some((key, version))
            })
            .collect();
    }
}

fn is_from(source: &str, place: &str) -> bool {
    source
        .strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_about(diagnostic: &Diagnostic, key: &ObjectKey) -> bool {
    *key.kind == *diagnostic.kind && *key.namespace == *diagnostic.namespace && *key.name == *diagnostic.name
}

fn refused(objects: &Objects, diagnostics: &[Diagnostic]) -> Vec<ObjectKey> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    errors
        .filter_map(|error| objects.iter().map(Object::key).find(|key| is_about(error, key)))
        .collect()
}
