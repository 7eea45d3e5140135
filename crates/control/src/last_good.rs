//! Which version of each object is in force: the newest that could be used.
//!
//! Two ways to fall back: a file that no longer parses keeps the objects it held, and an object that the compiler
//! refuses keeps its last accepted version.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tollgate_kinds::{Diagnostic, Object, ObjectKey, Objects};

/// Objects as they were last in force, and the files they came from.
#[derive(Debug, Default)]
pub(crate) struct LastGood {
    accepted: HashMap<ObjectKey, Object>,
}

impl LastGood {
    /// Objects that `file` held when it was last readable, and that `present` no longer holds.
    pub(crate) fn missing_from(&self, file: &Arc<str>, present: &HashSet<ObjectKey>) -> Vec<Object> {
        let of_file = self
            .accepted
            .values()
            .filter(|object| object.common().0.source == *file);
        of_file
            .filter(|object| !present.contains(&object.key()))
            .cloned()
            .collect()
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

    /// Remembers what is now in force. An object with an error that had no earlier version is remembered too once it
    /// compiles without one.
    pub(crate) fn accept(&mut self, objects: &Objects, diagnostics: &[Diagnostic]) {
        let bad: HashSet<ObjectKey> = refused(objects, diagnostics).into_iter().collect();
        let good = objects.iter().filter(|object| !bad.contains(&object.key()));
        self.accepted = good.map(|object| (object.key(), object.clone())).collect();
    }
}

fn refused(objects: &Objects, diagnostics: &[Diagnostic]) -> Vec<ObjectKey> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let named = |object: &&Object, diagnostic: &Diagnostic| {
        let key = object.key();
        *key.kind == *diagnostic.kind
            && *key.namespace == *diagnostic.namespace
            && *key.name == *diagnostic.name
    };
    errors
        .filter_map(|diagnostic| {
            objects
                .iter()
                .find(|object| named(object, diagnostic))
                .map(Object::key)
        })
        .collect()
}
