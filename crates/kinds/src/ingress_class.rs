//! IngressClass (networking.k8s.io/v1): only its name and controller are looked at.

use serde::Deserialize;

use crate::resource::Resource;

/// An IngressClass.
pub type IngressClass = Resource<IngressClassSpec>;

/// `spec` of an IngressClass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    /// Controller that serves the class.
    pub controller: String,
}
