//! tollgate-plugins
