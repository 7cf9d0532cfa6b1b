//! What the tests stand on.

pub mod calls;
pub mod php_fpm;
