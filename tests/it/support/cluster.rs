//! Nodes of a cluster, their configurations, and clients of them.

use std::time::Duration;

use longwire::proto::command::{Action, Command, Message, Receipt, Target};
use longwire::proto::framing::{Framing, LengthFraming};

use super::client::Client;
use super::longwire::{LISTENERS, Longwire};
use super::php_fpm::{PhpFpm, eventually};
use super::router::Router;

/// Half of the default lease, for tests that wait until it expires.
pub const LEASE: Duration = Duration::from_secs(3);
/// A handler that answers with the session's id.
pub const HANDLER: &str = "echo $_SERVER['SESSIONID'];";

/// The configuration of node number `number`, named after it, with [`HANDLER`] and these lines in `[cluster]`.
pub fn config(fpm: &PhpFpm, number: usize, cluster: &str) -> String {
    config_with(fpm, number, cluster, HANDLER, "")
}

/// The same with another handler, and these lines in its app.
pub fn config_with(fpm: &PhpFpm, number: usize, cluster: &str, handler: &str, app: &str) -> String {
    let script = fpm.script("handler.php", handler);
    format!(
        "[node]\nname = \"n{number}\"\nnumber = {number}\n[cluster]\n{cluster}\
         [apps.app]\nupstream = \"php\"\nscript = {script:?}\n{app}[upstreams.php]\nbackends = [\"{}\"]\n{LISTENERS}",
        fpm.address(),
    )
}

/// Lines of `[cluster]` with this engine and with times that are short enough for a test to wait for.
pub fn brisk(engine: &str) -> String {
    format!("lease = \"{}s\"\nlinger = \"1s\"\n{engine}", LEASE.as_secs())
}

/// [`config`] with the times of [`brisk`].
pub fn brisk_config(fpm: &PhpFpm, number: usize, engine: &str) -> String {
    config(fpm, number, &brisk(engine))
}

/// Three nodes that know each other, from the configuration of each number.
pub async fn three(config: impl Fn(usize) -> String) -> Vec<Longwire> {
    let nodes: Vec<Longwire> = (1..=3).map(|number| Longwire::serve(&config(number))).collect();
    all_know(&nodes, 2).await;
    nodes
}

/// Waits until each node knows this number of others.
pub async fn all_know(nodes: &[Longwire], others: usize) {
    eventually("all nodes know each other", || {
        nodes.iter().all(|node| node.metric("longwire_cluster_nodes", "") == others as f64)
    })
    .await;
}

/// A client of this node, and its session.
pub async fn client(node: &Longwire) -> (Client, String) {
    let mut client = connected(node).await;
    let sid = client.ask("?").await;
    (client, sid)
}

/// A client of this node that has not sent anything.
pub async fn connected(node: &Longwire) -> Client {
    Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await
}

pub async fn router(node: &Longwire) -> Router {
    Router::connect(node.address("router"), "").await
}

pub fn send(to: Target, body: &str) -> Command {
    Command::new(to, Action::Send(Message::new(body.to_owned())))
}

pub fn reached(count: u32) -> Receipt {
    Receipt { reached: count, ..Receipt::default() }
}

/// The next frame of a client, as text.
pub async fn next(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.frame().await.body).into_owned()
}
