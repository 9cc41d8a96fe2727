//! Common.
#![no_std]
