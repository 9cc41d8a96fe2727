//! The control agent of eip-gateway: Snapshot → desired → diff → apply.
//!
//! Sources ([`source`]) fill a [`snapshot::Snapshot`]; [`desired`] says what this node's kernel should hold;
//! [`tables`] compares it with what the pinned maps hold; [`apply`], [`attach`] and [`announce`] carry it out, driven
//! by the one writer in [`run`]. [`show`] reads the pinned tables, and what was refused from [`status`], for [`inspect`];
//! [`teardown`] undoes what is on a node, [`cleanup`] what is on the cluster's objects.

pub mod alive;
pub mod annotation;
pub mod announce;
pub mod apply;
pub mod attach;
mod bucket;
pub mod cleanup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod desired;
pub mod http;
pub mod inspect;
pub mod metrics;
pub mod report;
pub mod requirements;
pub mod run;
pub mod show;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod tables;
pub mod teardown;
