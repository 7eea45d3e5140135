//! tollgate-body
