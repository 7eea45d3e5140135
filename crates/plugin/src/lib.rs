//! tollgate-plugin
