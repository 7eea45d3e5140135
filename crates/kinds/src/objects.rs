//! The set of all objects that are in force, as the compiler gets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::kind_table::Object;
use crate::resource::ObjectKey;
use crate::{ConfigMap, EndpointSlice, Ingress, IngressClass, McpBridge, Secret, Service, WasmPlugin};

/// Objects by kind, namespace and name. Cheap to clone: the objects are shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    by_key: BTreeMap<ObjectKey, Object>,
}

impl Objects {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object, unless another of the same kind, namespace and name is there already. The first stays; the
    /// error names both places.
    pub fn insert(&mut self, object: Object) -> Result<(), Diagnostic> {
        let key = object.key();
        if let Some(first) = self.by_key.get(&key) {
            let (origin, _) = first.common();
            let place = match origin.positions.here().line {
                0 => origin.source.to_string(),
                line => format!("{}:{line}", origin.source),
            };
            let message = format!("defined twice; {place} defines it first and stays in force");
            return Err(object.diagnostic(Severity::Error, "", message));
        }
        self.by_key.insert(key, object);
        Ok(())
    }

    /// Adds an object or puts it in the place of the one with its key.
    pub fn replace(&mut self, object: Object) -> Option<Object> {
        self.by_key.insert(object.key(), object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Object> {
        self.by_key.remove(key)
    }

    /// One object of any kind.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.by_key.get(key)
    }

    /// All objects by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.by_key.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn look_up(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Object> {
        self.by_key.get(&ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

macro_rules! typed_access {
    ($($type:ident, $one:ident, $all:ident;)+) => {
        impl Objects {
            $(
                /// The object of this kind with that namespace and name.
                pub fn $one(&self, namespace: &str, name: &str) -> Option<&Arc<$type>> {
                    match self.look_up(stringify!($type), namespace, name) {
                        Some(Object::$type(object)) => Some(object),
                        _ => None,
                    }
                }

                /// Every object of this kind in Higress's order: creation time, then name, then namespace.
                pub fn $all(&self) -> Vec<&Arc<$type>> {
                    let mut all: Vec<_> = self
                        .iter()
                        .filter_map(|object| match object {
                            Object::$type(object) => Some(object),
                            _ => None,
                        })
                        .collect();
                    all.sort_by(|left, right| left.creation_order().cmp(&right.creation_order()));
                    all
                }
            )+
        }
    };
}

typed_access! {
    Ingress, ingress, ingresses;
    IngressClass, ingress_class, ingress_classes;
    McpBridge, mcp_bridge, mcp_bridges;
    WasmPlugin, wasm_plugin, wasm_plugins;
    ConfigMap, config_map, config_maps;
    Secret, secret, secrets;
    Service, service, services;
    EndpointSlice, endpoint_slice, endpoint_slices;
}
