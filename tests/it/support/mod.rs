//! What the tests stand on.

pub mod browser;
pub mod calls;
pub mod http;
pub mod node;
pub mod php_fpm;
