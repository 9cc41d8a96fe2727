//! Programs on their hooks.
