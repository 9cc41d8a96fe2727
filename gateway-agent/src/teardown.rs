//! Undoes all of it.
