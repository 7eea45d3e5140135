//! tollgate-control
