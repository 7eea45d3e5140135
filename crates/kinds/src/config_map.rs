//! ConfigMap (v1).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::resource::Resource;

/// A ConfigMap.
pub type ConfigMap = Resource<ConfigMapData>;

/// Data of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMapData {
    /// Text by key.
    pub data: BTreeMap<String, String>,
}
