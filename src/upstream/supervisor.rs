//! stub
use crate::config::model::{Backend, Spawn};
#[derive(Debug)]
pub struct SpawnError;
impl std::fmt::Display for SpawnError { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("x") } }
pub struct Supervisor;
impl Supervisor {
    pub async fn start(_: &Spawn, _: &str) -> Result<(Supervisor, Backend), SpawnError> { Err(SpawnError) }
    pub async fn stop(self) {}
}
