//! Commands that other programs publish directly into the engine, as JSON.

use longwire::proto::command::{Action, Target};

use crate::support::cluster::{all_know, client, config, router};
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;
use crate::support::router::{name, session};

#[tokio::test]
async fn what_php_publishes_in_the_engine_is_done_on_every_node_and_mistakes_are_named_in_the_log() {
    for kind in [Kind::Redis, Kind::Nats] {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let serve = |number: usize| Longwire::serve(&config(&fpm, number, &engine.config()));
        let nodes: Vec<Longwire> = (1..=2).map(serve).collect();
        all_know(&nodes, 1).await;
        let (mut clients, mut sids) = (Vec::new(), Vec::new());
        for node in &nodes {
            let (client, sid) = client(node).await;
            clients.push(client);
            sids.push(sid);
        }
        let mut router = router(&nodes[0]).await;
        router.do_to(Target::All, Action::Join(name("news"))).await;

        let separator = if kind == Kind::Redis { ':' } else { '.' };
        // php -r 'echo crc32("cnews") % 1024;' gives 204.
        for subject in [format!("longwire{separator}all"), format!("longwire{separator}part{separator}204")] {
            engine.publish(&subject, r#"{"command": "send", "to": "channel:news", "message": "by hand"}"#).await;
            for client in &mut clients {
                assert_eq!(&client.frame().await.body[..], b"by hand", "{kind:?} {subject}");
            }
        }
        let spaced = "\r\n\t {\n\"command\": \"send\", \"to\": \"channel:news\", \"message\": \"behind space\"}\n";
        engine.publish(&format!("longwire{separator}all"), spaced).await;
        for client in &mut clients {
            assert_eq!(&client.frame().await.body[..], b"behind space", "{kind:?}");
        }
        let to_second = format!(r#"{{"command": "send", "to": "session:{}", "message": "for you"}}"#, sids[1]);
        engine.publish(&format!("longwire{separator}node{separator}2"), &to_second).await;
        assert_eq!(&clients[1].frame().await.body[..], b"for you");

        for (payload, expected) in [
            (r#"{"command": "send", "to": "channel:news"}"#, "message: is missing"),
            (r#"{"command": "sent", "to": "all", "message": "x"}"#, "command: unknown command \"sent\""),
            (r#"{"to": "all", "message": "x"}"#, "command: is missing"),
            (r#"{"command": "send""#, "the arguments are not a valid JSON object"),
            ("hello", "is not an envelope"),
        ] {
            engine.publish(&format!("longwire{separator}all"), payload).await;
            for node in &nodes {
                node.wait_for_log(expected, |line| {
                    line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains(expected))
                });
            }
        }
        assert_eq!(
            router.do_to(Target::session(session(&sids[1])), Action::Touch).await.reached,
            1,
            "the node must go on after them"
        );
    }
}
