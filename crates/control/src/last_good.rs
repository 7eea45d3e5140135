//! Which version of each object is in force: the newest that could be used.
//!
//! Two ways to fall back: a file that no longer parses keeps the objects it held, and an object that the compiler
//! refuses keeps its last accepted version, a plugin of its faulty rules only.

use std::collections::{HashMap, HashSet};

use tollgate_kinds::{Diagnostic, Object, ObjectKey, Objects};

use crate::mend::{Mend, mend};

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

    /// Puts the accepted version, or as little of it as helps, in the place of each object that an error names; true if
    /// anything was replaced.
    pub(crate) fn fall_back(
        &self,
        objects: &mut Objects,
        diagnostics: &[Diagnostic],
        extent: Extent,
    ) -> bool {
        let mut replaced = false;
        for key in refused(objects, diagnostics) {
            let (Some(good), Some(bad)) = (self.accepted.get(&key), objects.get(&key)) else {
                continue;
            };
            if good == bad {
                continue;
            }
            let version = match mend(good, bad, &errors_about(&key, diagnostics)) {
                Mend::Outside => continue,
                Mend::Rules(mended) if extent == Extent::Least => mended,
                Mend::Rules(_) | Mend::Whole => good.clone(),
            };
            replaced = true;
            objects.replace(version);
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

/// How much of the accepted version is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the errors name.
    Least,
    /// All of it: the least did not help.
    Whole,
}

/// Puts back each object as it was written where falling back has not made it any better; true if any was.
pub(crate) fn undo(
    objects: &mut Objects,
    written: &Objects,
    before: &[Diagnostic],
    after: &[Diagnostic],
) -> bool {
    let mut undone = false;
    for key in refused(objects, after) {
        let is_no_better = errors_about(&key, after).len() >= errors_about(&key, before).len();
        match (written.get(&key), objects.get(&key)) {
            (Some(original), Some(used)) if original != used && is_no_better => {
                undone = true;
                objects.replace(original.clone());
            }
            _ => {}
        }
    }
    undone
}

fn errors_about<'d>(key: &ObjectKey, diagnostics: &'d [Diagnostic]) -> Vec<&'d Diagnostic> {
    let errors = diagnostics.iter().filter(|found| found.is_error());
    errors.filter(|error| is_about(error, key)).collect()
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
