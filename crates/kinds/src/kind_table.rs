//! The kinds we know, one row each.
//!
//! A new kind is one file, one row here and one variant of [`Object`]. Documents of other kinds are not an error:
//! files often hold Deployments and Namespaces next to what concerns a gateway.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::document::Document;
use crate::mcp_bridge::McpBridgeSpec;
use crate::resource::{self, Body, ObjectKey, ObjectMeta, Origin};
use crate::wasm_plugin::WasmPluginSpec;
use crate::{
    ConfigMap, EndpointSlice, Ingress, IngressClass, McpBridge, Secret, Service, WasmPlugin, endpoint_slice,
    ingress, mcp_bridge, secret, wasm_plugin,
};

/// How a kind is called and read.
pub struct KindRow {
    /// Kind as in documents.
    pub kind: &'static str,
    /// Plural as in API paths and standalone directories.
    pub plural: &'static str,
    /// Every `apiVersion` that is accepted, the preferred one first.
    pub api_versions: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    parse: fn(&Document, Option<&str>) -> Result<Object, Diagnostic>,
    /// Names the fields that the kind does not have. Kubernetes's own kinds have many fields that we do not read, so
    /// only Higress's kinds do this.
    unknown_fields: Option<fn(&Document) -> Vec<Diagnostic>>,
}

/// Every kind that is read.
pub static KINDS: &[KindRow] = &[
    KindRow {
        kind: "Ingress",
        plural: "ingresses",
        api_versions: &[
            "networking.k8s.io/v1",
            "networking.k8s.io/v1beta1",
            "extensions/v1beta1",
        ],
        namespaced: true,
        parse: |document, namespace| Ok(Object::Ingress(Arc::new(ingress::parse(document, namespace)?))),
        unknown_fields: None,
    },
    KindRow {
        kind: "IngressClass",
        plural: "ingressclasses",
        api_versions: &["networking.k8s.io/v1", "networking.k8s.io/v1beta1"],
        namespaced: false,
        parse: |document, namespace| {
            let class = resource::read(document, "IngressClass", namespace, Body::Spec)?;
            Ok(Object::IngressClass(Arc::new(class)))
        },
        unknown_fields: None,
    },
    KindRow {
        kind: "McpBridge",
        plural: "mcpbridges",
        api_versions: &["networking.higress.io/v1"],
        namespaced: true,
        parse: |document, namespace| {
            Ok(Object::McpBridge(Arc::new(mcp_bridge::parse(
                document, namespace,
            )?)))
        },
        unknown_fields: Some(resource::unknown_fields::<McpBridgeSpec>),
    },
    KindRow {
        kind: "WasmPlugin",
        plural: "wasmplugins",
        api_versions: &["extensions.higress.io/v1alpha1"],
        namespaced: true,
        parse: |document, namespace| {
            Ok(Object::WasmPlugin(Arc::new(wasm_plugin::parse(
                document, namespace,
            )?)))
        },
        unknown_fields: Some(resource::unknown_fields::<WasmPluginSpec>),
    },
    KindRow {
        kind: "ConfigMap",
        plural: "configmaps",
        api_versions: &["v1"],
        namespaced: true,
        parse: |document, namespace| {
            let config_map = resource::read(document, "ConfigMap", namespace, Body::TopLevel)?;
            Ok(Object::ConfigMap(Arc::new(config_map)))
        },
        unknown_fields: None,
    },
    KindRow {
        kind: "Secret",
        plural: "secrets",
        api_versions: &["v1"],
        namespaced: true,
        parse: |document, namespace| Ok(Object::Secret(Arc::new(secret::parse(document, namespace)?))),
        unknown_fields: None,
    },
    KindRow {
        kind: "Service",
        plural: "services",
        api_versions: &["v1"],
        namespaced: true,
        parse: |document, namespace| {
            let service = resource::read(document, "Service", namespace, Body::Spec)?;
            Ok(Object::Service(Arc::new(service)))
        },
        unknown_fields: None,
    },
    KindRow {
        kind: "EndpointSlice",
        plural: "endpointslices",
        api_versions: &["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"],
        namespaced: true,
        parse: |document, namespace| {
            Ok(Object::EndpointSlice(Arc::new(endpoint_slice::parse_slice(
                document, namespace,
            )?)))
        },
        unknown_fields: None,
    },
    KindRow {
        kind: "Endpoints",
        plural: "endpoints",
        api_versions: &["v1"],
        namespaced: true,
        parse: |document, namespace| {
            Ok(Object::EndpointSlice(Arc::new(endpoint_slice::parse_endpoints(
                document, namespace,
            )?)))
        },
        unknown_fields: None,
    },
];

/// A typed object of any kind; cheap to clone.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Object {
    Ingress(Arc<Ingress>),
    IngressClass(Arc<IngressClass>),
    McpBridge(Arc<McpBridge>),
    WasmPlugin(Arc<WasmPlugin>),
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
}

impl Object {
    /// Where it came from, and its metadata.
    pub fn common(&self) -> (&Origin, &ObjectMeta) {
        match self {
            Self::Ingress(object) => (&object.origin, &object.metadata),
            Self::IngressClass(object) => (&object.origin, &object.metadata),
            Self::McpBridge(object) => (&object.origin, &object.metadata),
            Self::WasmPlugin(object) => (&object.origin, &object.metadata),
            Self::ConfigMap(object) => (&object.origin, &object.metadata),
            Self::Secret(object) => (&object.origin, &object.metadata),
            Self::Service(object) => (&object.origin, &object.metadata),
            Self::EndpointSlice(object) => (&object.origin, &object.metadata),
        }
    }

    /// The unique key.
    pub fn key(&self) -> ObjectKey {
        let (origin, metadata) = self.common();
        ObjectKey {
            kind: origin.kind,
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }

    /// A finding about the object (`field` empty) or one of its fields.
    pub fn diagnostic(&self, severity: Severity, field: &str, message: impl Into<String>) -> Diagnostic {
        let (origin, metadata) = self.common();
        origin.diagnostic(metadata, severity, field, message.into())
    }
}

/// The row of a kind, by its name in documents.
pub fn kind_row(kind: &str) -> Option<&'static KindRow> {
    KINDS.iter().find(|row| row.kind == kind)
}

/// Reads a document by its kind. A kind or version that is not used gives a warning instead of an object, a document
/// that does not fit its kind an error; [`Diagnostic::is_error`] tells them apart.
pub fn parse(document: &Document, default_namespace: &str) -> Result<Object, Diagnostic> {
    let Some(row) = kind_row(&document.kind) else {
        return Err(document.diagnostic(
            Severity::Warning,
            "",
            "this kind is not used here, so the object was left out",
        ));
    };
    if !row.api_versions.contains(&document.api_version.as_str()) {
        let message = format!("not used; this kind is read as {}", row.api_versions.join(", "));
        return Err(document.diagnostic(Severity::Warning, "apiVersion", message));
    }
    (row.parse)(document, row.namespaced.then_some(default_namespace))
}

/// What is odd about a document that [`parse`] has accepted: fields that its kind does not have.
pub fn warnings(document: &Document, default_namespace: &str) -> Vec<Diagnostic> {
    let Some(unknown_fields) = kind_row(&document.kind).and_then(|row| row.unknown_fields) else {
        return Vec::new();
    };
    let namespace = document.namespace.as_deref().unwrap_or(default_namespace);
    let named = |diagnostic: Diagnostic| diagnostic.about(&document.kind, namespace, &document.name);
    unknown_fields(document).into_iter().map(named).collect()
}
