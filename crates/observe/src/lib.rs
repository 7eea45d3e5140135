//! tollgate-observe
