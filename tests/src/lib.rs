//! Packet tests as rows of data, and the engines they run on.

pub mod engines;
pub mod fixture;
pub mod packet;
pub mod rows;
