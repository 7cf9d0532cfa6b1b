//! How bytes become frames.
