//! `use-regex`, `full-path-regex`, `ignore-path-case`: how an Ingress's paths are meant.

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("use-regex", Under::Both),
        ("full-path-regex", Under::Higress),
        ("ignore-path-case", Under::Both),
    ],
    read,
};

/// How the paths of one Ingress are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PathStyle {
    /// Every path is a regular expression, `pathType` ignored.
    pub(crate) use_regex: bool,
    /// A regular expression must match to the end.
    pub(crate) full_path_regex: bool,
    /// Exact paths and prefixes are compared without case.
    pub(crate) ignore_case: bool,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    features.path = PathStyle {
        use_regex: reader.flag("use-regex").unwrap_or(false),
        full_path_regex: reader.higress_flag("full-path-regex").unwrap_or(false),
        ignore_case: reader.flag("ignore-path-case").unwrap_or(false),
    };
}
