//! tollgate-base
