//! What the tests share.

pub mod calls;
pub mod client;
pub mod longwire;
pub mod php_fpm;
