//! Commands that somebody publishes straight into the engine, as JSON.

use longwire::proto::command::{Action, Target};
use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{Pool, eventually};
use crate::support::router::{Router, name, session};

#[tokio::test]
async fn what_php_publishes_in_the_engine_is_done_on_every_node_and_mistakes_are_named_in_the_log() {
    for kind in [Kind::Redis, Kind::Nats] {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let script = fpm.script("handler.php", "echo $_SERVER['SESSIONID'];");
        let config = |number: usize| {
            format!(
                "[node]\nname = \"n{number}\"\nnumber = {number}\n[cluster]\n{}[apps.app]\nupstream = \"php\"\n\
                 script = {script:?}\n[upstreams.php]\nbackends = [\"{}\"]\n{LISTENERS}",
                engine.config(),
                fpm.address(),
            )
        };
        let nodes: Vec<Longwire> = (1..=2).map(|number| Longwire::serve(&config(number))).collect();
        eventually("both know each other", || {
            nodes.iter().all(|node| node.metric("longwire_cluster_nodes", "") == 1.0)
        })
        .await;
        let (mut clients, mut sids) = (Vec::new(), Vec::new());
        for node in &nodes {
            let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
            sids.push(client.ask("?").await);
            clients.push(client);
        }
        let mut router = Router::connect(nodes[0].address("router"), "").await;
        router.do_to(Target::All, Action::Join(name("news"))).await;

        let separator = if kind == Kind::Redis { ':' } else { '.' };
        // php -r 'echo crc32("cnews") % 1024;' gives 204.
        for subject in [format!("longwire{separator}all"), format!("longwire{separator}part{separator}204")] {
            engine.publish(&subject, r#"{"command": "send", "to": "channel:news", "message": "by hand"}"#).await;
            for client in &mut clients {
                assert_eq!(&client.frame().await.body[..], b"by hand", "{kind:?} {subject}");
            }
        }
        let to_second = format!(r#"{{"command": "send", "to": "session:{}", "message": "for you"}}"#, sids[1]);
        engine.publish(&format!("longwire{separator}node{separator}2"), &to_second).await;
        assert_eq!(&clients[1].frame().await.body[..], b"for you");

        for (payload, expected) in [
            (r#"{"command": "send", "to": "channel:news"}"#, "message: is missing"),
            (r#"{"command": "sent", "to": "all", "message": "x"}"#, "command: there is no \"sent\""),
            (r#"{"to": "all", "message": "x"}"#, "command: is missing"),
            (r#"{"command": "send""#, "no JSON object of arguments"),
        ] {
            engine.publish(&format!("longwire{separator}all"), payload).await;
            for node in &nodes {
                node.wait_for_log(expected, |line| {
                    line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains(expected))
                });
            }
        }
        assert_eq!(router.do_to(Target::session(session(&sids[1])), Action::Touch).await.reached, 1, "they go on");
    }
}
