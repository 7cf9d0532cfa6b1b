//! The commands of `longwire` beside `serve`.

mod bench;
mod check;
mod connect;
mod dev_page;
