//! The commands of `longwire` except `serve`.

mod bench;
mod check;
mod connect;
mod dev_page;
mod generated;
mod health;
mod service;
