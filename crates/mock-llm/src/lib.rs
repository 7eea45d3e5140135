//! tollgate-mock-llm
