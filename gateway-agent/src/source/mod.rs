//! Where the Snapshot's parts come from.

pub mod dir;
pub mod host;
mod inputs;
pub mod kube;
pub mod manifest;

pub use inputs::Inputs;
