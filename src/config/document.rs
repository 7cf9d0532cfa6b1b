//! Prints the description of every key.
