//! Packet tests as rows of data, the engines they run on, and what the suites in the lab share.

pub mod capture;
pub mod cluster;
pub mod engines;
pub mod fixture;
pub mod ovn;
pub mod packet;
pub mod rows;
pub mod scene;
