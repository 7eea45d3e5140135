//! The documents as users write them: Higress's and Kubernetes's kinds, lenient to read, with a place for every
//! error.
//!
//! First step of the control plane: `read` turns the text of a file into [`Object`]s and [`Diagnostic`]s, `compile`
//! turns [`Objects`] into a snapshot. This crate is pure: it opens no file, reads no clock and no environment.
//! A new kind is one file and one row of [`KINDS`].

pub mod annotations;
pub mod config_map;
pub mod diagnostic;
pub mod document;
mod embedded;
pub mod endpoint_slice;
pub mod envsubst;
pub mod higress_config;
pub mod https_config;
pub mod ingress;
pub mod ingress_class;
mod kind_table;
pub mod ledger_config;
mod lenient;
pub mod mcp_bridge;
pub mod mcp_server_config;
pub mod mesh_config;
mod objects;
pub mod position;
pub mod price_table;
mod read;
mod resource;
pub mod secret;
pub mod service;
pub mod usage_config;
pub mod wasm_plugin;
pub mod yaml;

pub use config_map::ConfigMap;
pub use diagnostic::{Diagnostic, Severity};
pub use document::Document;
pub use endpoint_slice::EndpointSlice;
pub use ingress::Ingress;
pub use ingress_class::IngressClass;
pub use kind_table::{KINDS, KindRow, Object, kind_row, parse, warnings};
pub use mcp_bridge::McpBridge;
pub use objects::Objects;
pub use position::{Position, Positions};
pub use read::{ReadOptions, Reading, read, read_documents};
pub use resource::{ObjectKey, ObjectMeta, Origin, Resource};
pub use secret::Secret;
pub use service::Service;
pub use wasm_plugin::WasmPlugin;
