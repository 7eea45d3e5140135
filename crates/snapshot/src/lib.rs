//! tollgate-snapshot
