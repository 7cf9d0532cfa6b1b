//! The FastCGI codec.
