//! The pinned tables.
