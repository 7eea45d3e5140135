//! tollgate-compile
