//! The router port's handshake: which clients are accepted or refused, and which addresses require a secret.

use std::process::Command as Process;

use bytes::BytesMut;
use longwire::proto::command::{Action, Command, Message, Query, Target};
use longwire::proto::control::Frame;
use longwire::proto::control::long::{Operation, Proofs, RouterAnswer, RouterRequest};

use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::Router;

const SECRET: &str = "a secret of a shop";

fn node(fpm: &PhpFpm, router: &str) -> Longwire {
    let more =
        format!("[router]\nbind = \"127.0.0.1:0\"\n{router}\n[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n");
    Longwire::with(fpm, &fpm.script("handler.php", "echo 'x';"), "", "", &more)
}

fn guarded(fpm: &PhpFpm) -> Longwire {
    node(fpm, &format!("secret = \"{SECRET}\""))
}

fn send_to_all() -> Command {
    Command::new(Target::All, Action::Send(Message::new("x")))
}

async fn refused(node: &Longwire, word: &str, count: f64) {
    let labels = format!("door=\"long\",cause=\"{word}\"");
    eventually("it is counted", || node.metric("longwire_commands_refused_total", &labels) == count).await;
    assert_eq!(node.metric("longwire_commands_total", "door=\"long\""), 0.0, "no command may run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knows_the_secret_is_let_in_and_the_secret_is_nowhere() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    let mut router = Router::connect(node.address("router"), SECRET).await;
    assert_eq!(router.json(Query::Node).await["sessions"], 0);
    let shown = node.log_lines(|line| line.to_string().contains(SECRET));
    assert_eq!(shown.len(), 0, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_refused() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    for (count, secret) in ["a secret of a shoq", "", "a secret of a shop "].into_iter().enumerate() {
        let mut router = Router::bare(node.address("router")).await;
        let error = router.greet(secret).await.expect_err("it is wrong");
        assert!(matches!(error, RouterAnswer::Error { word, request: None, .. } if word == "bad_proof"));
        assert_eq!(router.frame().await, None);
        refused(&node, "bad_proof", count as f64 + 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_before_the_proof_are_refused() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    let mut first = Router::bare(node.address("router")).await;
    first.start(Operation::Command(Command::new(Target::All, Action::Touch))).await;
    assert_eq!(first.error().await.0, "unauthenticated");
    assert_eq!(first.frame().await, None);
    refused(&node, "unauthenticated", 1.0).await;

    let mut second = Router::bare(node.address("router")).await;
    assert!(second.hello().await.wants_proof);
    second.start(Operation::Query(Query::Node)).await;
    assert_eq!(second.error().await.0, "unauthenticated");
    assert_eq!(second.frame().await, None);
    refused(&node, "unauthenticated", 2.0).await;

    // Before the handshake a frame may not have a long body.
    let mut third = Router::bare(node.address("router")).await;
    assert!(third.hello().await.wants_proof);
    third.start(Operation::Command(send_to_all())).await;
    assert_eq!(third.error().await.0, "bad_frame");
    assert_eq!(third.frame().await, None);
    refused(&node, "bad_frame", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_was_overheard_is_of_no_use() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    let mut honest = Router::bare(node.address("router")).await;
    let challenge = honest.hello().await;
    let proofs = Proofs { secret: SECRET.as_bytes(), client_nonce: [7; 32], server_nonce: challenge.nonce };
    honest.prove(&proofs.of_client()).await;
    assert_eq!(honest.frame().await.expect("it is welcome").kind, 0x4C04);

    // Replay the same hello with the same nonce and the same proof, or send the server's own proof back to it.
    for (count, overheard) in [proofs.of_client(), proofs.of_server()].into_iter().enumerate() {
        let mut thief = Router::bare(node.address("router")).await;
        assert_ne!(thief.hello().await.nonce, challenge.nonce, "each connection must have its own nonce");
        thief.prove(&overheard).await;
        assert_eq!(thief.error().await.0, "bad_proof");
        assert_eq!(thief.frame().await, None);
        refused(&node, "bad_proof", count as f64 + 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_is_none_is_refused_with_what_is_wrong() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    let nonce = [&[2_u8, 0, 32][..], &[9; 32]].concat();
    let versions = |of: &[u8]| [&[1, 0, of.len() as u8][..], of].concat();
    for (head, word) in [
        ([versions(&[2, 3]), nonce.clone()].concat(), "version"),
        (nonce.clone(), "version"),
        (versions(&[1]), "bad_field"),
        ([versions(&[1]), vec![2, 0, 2, 1, 1]].concat(), "bad_field"),
        ([versions(&[1]), nonce.clone(), nonce.clone()].concat(), "bad_field"),
        ([versions(&[1]), nonce.clone(), vec![0x70, 0, 0]].concat(), "bad_field"),
        ([versions(&[1]), nonce.clone(), vec![2, 0]].concat(), "bad_frame"),
    ] {
        let mut router = Router::bare(node.address("router")).await;
        router.say(0x4C01, &head, b"").await;
        assert_eq!(router.error().await, (word.to_owned(), None), "{head:?}");
        assert_eq!(router.frame().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_commands_may_follow_the_hello_at_once() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "");
    let mut router = Router::bare(node.address("router")).await;
    let mut out = BytesMut::new();
    Frame::encode(0x4C01, &[&[1, 0, 1, 1, 2, 0, 32][..], &[9; 32]].concat(), b"", &mut out);
    RouterRequest { number: 77, operation: Operation::Command(send_to_all()) }.encode(&mut out);
    router.bytes(&out).await;
    assert_eq!(router.frame().await.expect("a challenge").kind, 0x4C02);
    assert_eq!(router.frame().await.expect("a welcome").kind, 0x4C04);
    assert_eq!(router.receipt(77).await, Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_protocol_can_be_switched_off() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "short_protocol = false");
    let mut router = Router::bare(node.address("router")).await;
    router.say(12, b"", b"").await;
    assert_eq!(router.frame().await, None);
    let labels = "door=\"short\",cause=\"short_protocol\"";
    eventually("it is counted", || node.metric("longwire_commands_refused_total", labels) == 1.0).await;
    let mut router = Router::connect(node.address("router"), "").await;
    assert_eq!(router.json(Query::Node).await["sessions"], 0, "the long one is not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_secret_the_short_protocol_is_spoken_only_where_somebody_asked_for_it() {
    let fpm = Pool::of(1).start();
    let node = guarded(&fpm);
    let mut router = Router::bare(node.address("router")).await;
    router.say(12, b"", b"").await;
    assert_eq!(router.frame().await, None, "a command without the secret");
    let labels = "door=\"short\",cause=\"short_protocol\"";
    eventually("it is counted", || node.metric("longwire_commands_refused_total", labels) == 1.0).await;
    let asked_for = self::node(&fpm, &format!("secret = \"{SECRET}\"\nshort_protocol = true"));
    let mut router = Router::bare(asked_for.address("router")).await;
    router.say(12, b"", b"").await;
    assert_eq!(router.frame().await.expect("it is answered").kind, 12);
    Router::connect(asked_for.address("router"), SECRET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_than_max_connections() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "max_connections = 2");
    let first = Router::connect(node.address("router"), "").await;
    let _second = Router::connect(node.address("router"), "").await;
    let mut third = Router::bare(node.address("router")).await;
    assert_eq!(third.frame().await, None);
    let labels = "cause=\"max_connections\"";
    eventually("it is counted", || node.metric("longwire_commands_refused_total", labels) == 1.0).await;
    drop(first);
    eventually("a place is free", || node.metric("longwire_router_connections", "") == 1.0).await;
    Router::connect(node.address("router"), "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_ends_after_idle_timeout() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "idle_timeout = \"1s\"");
    let mut silent = Router::connect(node.address("router"), "").await;
    let mut fresh = Router::bare(node.address("router")).await;
    assert_eq!(silent.frame().await, None);
    assert_eq!(fresh.frame().await, None, "an explicit limit counts for every client");
}

#[test]
fn a_public_address_without_a_secret_does_not_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("longwire.toml");
    for (door, key, secret) in [("router", "secret", "short_protocol = false"), ("api", "token", "")] {
        let rest = "[apps.app]\nupstream = \"php\"\nscript = \"/x.php\"\n[upstreams.php]\nbackends = [\"127.0.0.1:1\"]\n\
                    [listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";
        let text = format!("[{door}]\nbind = \"0.0.0.0:0\"\n{secret}\n{rest}");
        std::fs::write(&file, text).expect("the directory is ours");
        let mut longwire = Process::new("timeout");
        longwire.args(["20", env!("CARGO_BIN_EXE_longwire"), "serve", "--config"]).arg(&file);
        let output = longwire.output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected = format!("other machines can connect there, so a {key} is needed");
        assert!(stderr.contains(&expected), "{stderr}");
    }
}
