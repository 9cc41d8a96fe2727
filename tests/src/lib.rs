//! Packet tests as rows of data, the engines they run on, and what the suites in the lab share.

#[cfg(feature = "suites")]
pub mod capture;
#[cfg(feature = "suites")]
pub mod cluster;
pub mod engines;
pub mod fixture;
pub mod fuzzing;
#[cfg(feature = "suites")]
pub mod ovn;
pub mod packet;
pub mod rows;
#[cfg(feature = "suites")]
pub mod scene;
