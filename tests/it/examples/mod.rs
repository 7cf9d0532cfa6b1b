//! Everything that users copy: README.md, `php-examples/`, `docker/`, and the frameworks of `docs/frameworks.md`.

mod chat;
mod docker;
mod each;
mod frameworks;
mod notify;
mod push;
mod readme;
