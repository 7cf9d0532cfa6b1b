//! Upstreams: requests to php-fpm and to other FastCGI responders.

mod background;
mod faults;
mod peers;
mod pool;
mod responders;
mod supervisor;
