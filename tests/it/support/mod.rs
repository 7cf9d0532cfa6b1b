//! What the tests share.

pub mod browser;
pub mod calls;
pub mod client;
pub mod dev;
pub mod http;
pub mod longwire;
pub mod php_fpm;
pub mod router;
