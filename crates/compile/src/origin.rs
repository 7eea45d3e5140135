//! Where something was written, in the form that the snapshot and `explain` carry.

use tollgate_kinds::Resource;
use tollgate_plugin::Origin;

/// The origin of a field of an object: `namespace/name` and `file:line`.
pub(crate) fn of_field<T>(object: &Resource<T>, field: &str) -> Origin {
    let metadata = &object.metadata;
    let line = object.position(field).line;
    let source = &object.origin.source;
    let place = match line {
        0 => source.to_string(),
        line => format!("{source}:{line}"),
    };
    Origin {
        object: format!("{}/{}", metadata.namespace, metadata.name).into(),
        place: place.into(),
    }
}
