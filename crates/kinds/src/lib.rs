//! tollgate-kinds
