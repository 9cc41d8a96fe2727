//! Where the Snapshot's parts come from.

pub mod dir;
pub mod host;
pub mod manifest;
