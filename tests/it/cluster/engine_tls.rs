//! Nodes that connect to a real redis-server or nats-server over TLS.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use longwire::proto::command::{Action, Target};
use longwire::proto::control::long::Operation;

use crate::support::cluster::{all_know, brisk_config, client, next, reached, router, send};
use crate::support::engine::{Clients, EngineServer, Kind, PASSWORD};
use crate::support::engine_clusters::{self, EngineCluster, Server};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::{name, session};
use crate::support::tls::{Authority, Signed};

const ENGINES: [Kind; 2] = [Kind::Redis, Kind::Nats];

/// A node on a system that trusts only the authority in this file.
fn node_trusting(fpm: &PhpFpm, number: usize, cluster: &str, ca: &Path) -> Longwire {
    Longwire::serve_prepared(&brisk_config(fpm, number, cluster), |command| {
        command.env("SSL_CERT_FILE", ca).env_remove("SSL_CERT_DIR");
    })
}

/// Checks that a frame sent to a channel through the first node reaches a session of the second, and that the receipt counts it.
async fn reach_each_other(nodes: &[Longwire]) {
    all_know(nodes, 1).await;
    let (mut far, sid) = client(&nodes[1]).await;
    let mut router = router(&nodes[0]).await;
    assert_eq!(router.do_to(Target::session(session(&sid)), Action::Join(name("news"))).await, reached(1));
    assert_eq!(router.publish("news", "from afar").await, reached(1));
    assert_eq!(next(&mut far).await, "from afar");
}

/// Waits until the node reports this reason for being without an engine. Its own sessions are served meanwhile.
async fn is_alone(node: &Longwire, why: &[&str]) {
    let says_why = |text: &str| why.iter().all(|part| text.contains(part));
    eventually(&format!("/ready says {why:?}"), || says_why(&node.admin("/ready").1)).await;
    let (status, text) = node.admin("/ready");
    assert!(status == 503 && text.contains("cluster: ") && !has_password(&text), "{status} {text}");
    node.wait_for_log("the log says the same", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(says_why)
    });
    assert_eq!(node.log_lines(|line| has_password(&line.to_string())), Vec::<serde_json::Value>::new());
    let (mut own, sid) = client(node).await;
    let mut router = router(node).await;
    let number = router.start(Operation::Command(send(Target::session(session(&sid)), "my own"))).await;
    let (receipt, unreachable, _) = router.outcome(number).await;
    assert_eq!((receipt, unreachable), (reached(1), Vec::new()));
    assert_eq!(next(&mut own).await, "my own");
    assert_eq!(node.metric("longwire_engine_up", ""), 0.0);
}

fn has_password(text: &str) -> bool {
    [PASSWORD, &PASSWORD.replace(' ', "%20")].iter().any(|written| text.contains(written))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authorities_of_the_system_count_where_nobody_names_one() {
    for kind in ENGINES {
        let (authority, stranger) = (Authority::new("test authority"), Authority::new("somebody"));
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_with_tls(kind, &authority, Clients::NotAsked));
        let nodes = [1, 2].map(|number| node_trusting(&fpm, number, &engine.config(), &authority.ca_file()));
        reach_each_other(&nodes).await;
        let third = node_trusting(&fpm, 3, &engine.config(), &stranger.ca_file());
        is_alone(&third, &["UnknownIssuer"]).await;
        all_know(&nodes, 1).await;
    }
}

/// The table of a node that trusts this authority and presents this certificate.
fn table(ca: Option<&Path>, own: Option<&Signed>) -> String {
    let entry = |(key, file): (&str, &Path)| format!("{key} = {:?}", file.display().to_string());
    let own = own.into_iter().flat_map(|own| [("cert", own.cert.as_path()), ("key", own.key.as_path())]);
    let entries: Vec<String> = ca.map(|ca| ("ca", ca)).into_iter().chain(own).map(entry).collect();
    format!("tls = {{ {} }}\n", entries.join(", "))
}

fn node(fpm: &PhpFpm, number: usize, engine: &str, table: &str) -> Longwire {
    Longwire::serve(&brisk_config(fpm, number, &format!("{engine}{table}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_a_private_authority_and_certificates_of_their_own_reach_each_other() {
    for kind in ENGINES {
        let authority = Authority::new("test authority");
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_with_tls(kind, &authority, Clients::Asked));
        let own = authority.sign("node", "node", &[]);
        let table = table(Some(&authority.ca_file()), Some(&own));
        // With an own authority the system's CAs do not matter, not even whether they can be read.
        let cluster = format!("{}{table}", engine.config());
        let nodes = [1, 2].map(|number| node_trusting(&fpm, number, &cluster, Path::new("/nowhere.pem")));
        reach_each_other(&nodes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_authority_or_a_certificate_stays_alone_and_says_why() {
    let (authority, strangers) = (Authority::new("test authority"), Authority::new("somebody"));
    let (own, foreign) = (authority.sign("node", "node", &[]), strangers.sign("stranger", "stranger", &[]));
    let (ca, other_ca) = (authority.ca_file(), strangers.ca_file());
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_with_tls(kind, &authority, Clients::Asked));
        let nodes = [1, 2].map(|number| node(&fpm, number, &engine.config(), &table(Some(&ca), Some(&own))));
        reach_each_other(&nodes).await;
        let other_ca_text = other_ca.display().to_string();
        let cases = [
            (
                table(Some(&other_ca), Some(&own)),
                vec!["its certificate is not signed by an authority in ", &other_ca_text],
            ),
            (table(None, Some(&own)), vec!["its certificate is not signed by an authority that this system trusts"]),
            (table(Some(&ca), None), vec!["it requires a certificate of this node (set [cluster.tls] cert and key): "]),
            (table(Some(&ca), Some(&foreign)), vec!["it does not accept the certificate in ", "stranger.pem: "]),
        ];
        for (number, (table, why)) in (3..).zip(cases) {
            let cluster = format!("{}{table}", engine.config());
            let alone = node_trusting(&fpm, number, &cluster, &other_ca);
            is_alone(&alone, &why).await;
            assert_eq!(alone.metric("longwire_cluster_nodes", ""), 0.0, "{kind:?}");
        }
        all_know(&nodes, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_name_is_not_taken() {
    for kind in ENGINES {
        let authority = Authority::new("test authority");
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_with_tls(kind, &authority, Clients::NotAsked));
        let by_name = engine.config().replace("127.0.0.1", "localhost");
        let node = node(&fpm, 1, &by_name, &table(Some(&authority.ca_file()), None));
        is_alone(&node, &["certificate not valid for name \"localhost\""]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_at_each_attempt_and_a_broken_one_is_named_until_it_is_mended() {
    for kind in ENGINES {
        let authority = Authority::new("test authority");
        let (fpm, mut engine) = (Pool::of(2).start(), EngineServer::start_with_tls(kind, &authority, Clients::Asked));
        let own = authority.sign("node", "node", &[]);
        let table = table(Some(&authority.ca_file()), Some(&own));
        let nodes = [1, 2].map(|number| node(&fpm, number, &engine.config(), &table));
        reach_each_other(&nodes).await;
        engine.kill();
        fs::write(&own.cert, "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
        engine.start_again();
        let why = format!("{}: is cut off", own.cert.display());
        for node in &nodes {
            is_alone(node, &[&why]).await;
        }
        authority.sign("node", "node", &[]);
        eventually("both are back", || nodes.iter().all(|node| node.admin("/ready").0 == 200)).await;
        reach_each_other(&nodes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_files_of_no_use_does_not_start() {
    let authority = Authority::new("test authority");
    let (fpm, own) = (Pool::of(1).start(), authority.sign("node", "node", &[]));
    for engine in
        ["engine = \"redis\"\nurls = [\"rediss://127.0.0.1:1\"]\n", "engine = \"nats\"\nurls = [\"127.0.0.1:1\"]\n"]
    {
        let cluster = format!("{engine}{}", table(Some(&own.key), Some(&own)));
        let said = Longwire::refuses(&brisk_config(&fpm, 1, &cluster)).join("\n");
        let wrong = format!("{}: there is no certificate in it (PEM)", own.key.display());
        assert!(said.contains("cluster.tls.ca = ") && said.contains(&wrong), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_url_can_have_anybody_believed() {
    let fpm = Pool::of(1).start();
    let cluster = "engine = \"redis\"\nurls = [\"rediss://:a%20secret@127.0.0.1:1/#insecure\"]\n";
    let said = Longwire::refuses(&brisk_config(&fpm, 1, cluster)).join("\n");
    assert!(
        said.contains("cluster.urls: address 1: #insecure would accept every certificate") && !has_password(&said),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_table_nothing_is_said_to_nats_in_the_clear() {
    let (fpm, engine) = (Pool::of(1).start(), EngineServer::start(Kind::Nats));
    let without = node(&fpm, 1, &engine.config(), "");
    eventually("it takes nodes without TLS", || without.admin("/ready").0 == 200).await;
    let with = node(&fpm, 2, &engine.config(), "tls = {}\n");
    is_alone(&with, &["it does not speak TLS on this port"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_when_a_hand_is_offered_may_not_speak_tls() {
    let fpm = Pool::of(1).start();
    // Redis without TLS takes the TLS handshake for the beginning of a line and waits for the rest.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = format!("engine = \"redis\"\nurls = [\"rediss://{}\"]\n", silent.local_addr().unwrap());
    is_alone(&node(&fpm, 1, &engine, ""), &["the server may not speak TLS on this port"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_that_wants_tls_gets_it_though_the_url_does_not_say_so() {
    let authority = Authority::new("test authority");
    let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_with_tls(Kind::Nats, &authority, Clients::Asked));
    let own = authority.sign("node", "node", &[]);
    let table = table(Some(&authority.ca_file()), Some(&own));
    let plain = engine.config().replace("tls://", "nats://");
    let nodes = [1, 2].map(|number| node(&fpm, number, &plain, &table));
    reach_each_other(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sentinel_or_a_server_of_a_cluster_names_is_reached_over_tls_too() {
    for kind in [engine_clusters::Kind::Sentinel, engine_clusters::Kind::RedisCluster] {
        let authority = Authority::new("test authority");
        let (fpm, engine) = (Pool::of(2).start(), EngineCluster::start_with_tls(kind, &authority));
        let own = authority.sign("node", "node", &[]);
        let table = table(Some(&authority.ca_file()), Some(&own));
        let nodes = [1, 2].map(|number| node(&fpm, number, &engine.config(number), &table));
        reach_each_other(&nodes).await;
        // Sentinels name the connections among themselves, so the only unnamed one is that of this query. Nodes must close their
        // connections to a Sentinel once they know the master.
        let unnamed = |sentinel: &Server| sentinel.ask::<String>(&["CLIENT", "LIST"]).matches(" name= ").count();
        eventually("no node stays connected to a Sentinel", || {
            engine.sentinels.iter().all(|sentinel| unnamed(sentinel) == 1)
        })
        .await;
    }
}
