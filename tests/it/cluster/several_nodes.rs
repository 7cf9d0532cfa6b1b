//! Several nodes, joined by a real redis-server or nats-server.

use std::time::{Duration, Instant};

use longwire::proto::command::{Action, AttributeKey, Command, Except, Expect, Page, Query, Receipt, Target};
use longwire::proto::control::long::{Operation, RouterAnswer};

use crate::support::client::Client;
use crate::support::cluster::{self, LEASE, all_know, brisk_config, client, next, reached, router, send};
use crate::support::engine::{EngineServer, Kind};
use crate::support::http::request;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually, kill};
use crate::support::router::{Router, name, session};

const ENGINES: [Kind; 2] = [Kind::Redis, Kind::Nats];

fn config(fpm: &PhpFpm, number: usize, engine: &EngineServer) -> String {
    brisk_config(fpm, number, &engine.config())
}

async fn three(fpm: &PhpFpm, engine: &EngineServer) -> Vec<Longwire> {
    cluster::three(|number| config(fpm, number, engine)).await
}

#[tokio::test]
async fn any_node_reaches_sessions_on_every_node() {
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let mut clients = Vec::new();
        for node in &nodes {
            clients.push(client(node).await);
        }
        let sids: Vec<_> = clients.iter().map(|(_, sid)| session(sid)).collect();
        let channel = || Target::Channel(name("news"));
        // On each node, join a session of another node to the channel, and bind it to a uid.
        for (at, node) in nodes.iter().enumerate() {
            let mut router = router(node).await;
            let sid = sids[(at + 1) % 3];
            assert_eq!(router.do_to(Target::session(sid), Action::Join(name("news"))).await, reached(1), "{kind:?}");
            assert_eq!(router.do_to(Target::session(sid), Action::Bind(name("ann"))).await, reached(1));
        }
        for (at, node) in nodes.iter().enumerate() {
            let mut router = router(node).await;
            for (to, count) in
                [(channel(), 3), (Target::Uid(name("ann")), 3), (Target::All, 3), (Target::Sessions(sids.clone()), 3)]
            {
                let body = format!("{at} to {to:?}");
                assert_eq!(router.run(send(to, &body)).await, reached(count), "{kind:?}: {body}");
                for (client, _) in &mut clients {
                    assert_eq!(next(client).await, body);
                }
            }
            // An excluded session gets nothing, whichever node it is on.
            let mut command = send(channel(), "not to the second");
            command.except = Except { sessions: vec![sids[1]], ..Except::default() };
            assert_eq!(router.run(command).await, reached(2));
            assert_eq!(next(&mut clients[0].0).await, "not to the second");
            assert_eq!(next(&mut clients[2].0).await, "not to the second");
            // The first id belongs to no session of its node, and the node of the second id does not exist.
            let mut dead = sids[2].as_str().as_bytes().to_vec();
            dead[3] = if dead[3] == b'A' { b'B' } else { b'A' };
            let mut stranger = dead.clone();
            stranger[..2].copy_from_slice(b"99");
            for id in [dead, stranger] {
                let id = session(std::str::from_utf8(&id).unwrap());
                let gone = Receipt { gone: 1, ..Receipt::default() };
                assert_eq!(router.run(send(Target::session(id), "nobody")).await, gone);
                // A repeated id counts once.
                assert_eq!(router.run(send(Target::Sessions(vec![id; 3]), "nobody")).await, gone);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_another_node_had_join_is_sent_to_and_counted_at_once() {
    // The maximum for one session. Nearly every channel is the first in its partition.
    const CHANNELS: usize = 100;
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let (mut client, sid) = client(&nodes[1]).await;
        let mut router = router(&nodes[0]).await;
        for number in 0..CHANNELS {
            let channel = format!("channel {number}");
            let joined = router.do_to(Target::session(session(&sid)), Action::Join(name(&channel))).await;
            assert_eq!(joined, reached(1), "{kind:?}: {channel}");
            assert_eq!(router.publish(&channel, channel.clone()).await, reached(1), "{kind:?}: {channel}");
            assert_eq!(next(&mut client).await, channel);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_answer_of_a_handler_is_reached_where_it_put_the_session() {
    const CLIENTS: usize = 25;
    const ANSWERS: usize = 4;
    // Nearly every name is the first in its partition.
    let handler = r#"
        $name = $_SERVER['LONGWIRE_EVENT'] === 'connect' ? $_SERVER['SESSIONID'] : file_get_contents('php://input');
        header("Longwire-Join: $name");
        header("Longwire-Uid: $name");
        if (str_ends_with($name, 'streamed')) {
            echo str_repeat(' ', 5000);
            flush();
            usleep(1000);
        }
        echo $name;"#;
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let cluster = cluster::brisk(&engine.config());
        let config = |number| cluster::config_with(&fpm, number, &cluster, handler, "events = [\"connect\"]\n");
        let nodes = cluster::three(config).await;
        let mut routers = [router(&nodes[0]).await, router(&nodes[2]).await];
        for number in 0..CLIENTS {
            let mut client = match number % 2 {
                0 => Client::upgrade(nodes[1].address("web"), "/ws", "").await,
                _ => cluster::connected(&nodes[1]).await,
            };
            for answer in 0..ANSWERS {
                let told = match answer {
                    0 => next(&mut client).await,
                    _ => client.ask(&format!("{number} {answer}{}", ["", "", "streamed"][answer % 3])).await,
                };
                let called = told.trim_start();
                let router = &mut routers[answer % 2];
                assert_eq!(router.publish(called, "to the channel").await, reached(1), "{kind:?}: {called}");
                assert_eq!(next(&mut client).await, "to the channel");
                assert_eq!(
                    router.run(send(Target::Uid(name(called)), "to the uid")).await,
                    reached(1),
                    "{kind:?}: {called}"
                );
                assert_eq!(next(&mut client).await, "to the uid");
            }
        }
        // A node that does not answer delays nothing for ever.
        let mut client = cluster::connected(&nodes[1]).await;
        next(&mut client).await;
        kill(nodes[0].pid(), libc::SIGSTOP);
        assert_eq!(client.ask("a node that does not answer").await, "a node that does not answer");
        kill(nodes[0].pid(), libc::SIGCONT);
        drop(engine);
        assert_eq!(client.ask("no engine").await, "no engine");
    }
}

#[tokio::test]
async fn what_is_asked_of_one_node_is_answered_for_all() {
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let mut clients = Vec::new();
        for node in nodes.iter().chain(&nodes) {
            clients.push(client(node).await);
        }
        let mut ids: Vec<_> = clients.iter().map(|(_, sid)| session(sid)).collect();
        ids.sort_unstable();
        let mut router = router(&nodes[0]).await;
        router.do_to(Target::All, Action::Join(name("everybody"))).await;
        router.do_to(Target::session(ids[5]), Action::Join(name("one"))).await;
        router.do_to(Target::All, Action::Bind(name("ann"))).await;
        let key = AttributeKey::new(b"colour").unwrap();
        let set = Action::Set { key: key.clone(), value: "red".into(), expect: Expect::Anything };
        assert_eq!(router.do_to(Target::Sessions(ids.clone()), set).await, reached(6));
        let texts: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        for node in &nodes {
            let mut router = Router::connect(node.address("router"), "").await;
            let whole = router.json(Query::Channel(name("everybody"), Page::default())).await;
            assert_eq!(whole["count"], 6, "{kind:?}: {whole}");
            assert_eq!(whole["sessions"], serde_json::json!(texts), "{kind:?}");
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = router.json(Query::Uid(name("ann"), Page { after, limit: 4 })).await;
                assert_eq!(page["count"], 6);
                pages.extend(page["sessions"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()));
                let Some(next) = page["next"].as_str() else { break };
                after = Some(next.as_bytes().into());
            }
            assert_eq!(pages, texts, "pages join into the whole");
            let channels = router.json(Query::Channels(Page::default())).await;
            let expected = serde_json::json!([{"channel": "everybody", "count": 6}, {"channel": "one", "count": 1}]);
            assert_eq!((&channels["channels"], &channels["count"]), (&expected, &serde_json::json!(2)));
            for id in &ids {
                let of_session = router.json(Query::Session(*id)).await;
                assert_eq!((&of_session["session"], &of_session["uid"]), (&id.as_str().into(), &"ann".into()));
                match router.ask(Query::Attribute(*id, key.clone())).await {
                    RouterAnswer::Result { body, .. } => assert_eq!(&body[..], b"red"),
                    other => panic!("no value: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn frames_of_a_publisher_come_in_order_and_once_from_node_to_node() {
    const MESSAGES: usize = 3000;
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let mut clients = Vec::new();
        for node in &nodes {
            let (client, sid) = client(node).await;
            router(node).await.do_to(Target::session(session(&sid)), Action::Join(name("news"))).await;
            clients.push(client);
        }
        let mut publisher = router(&nodes[0]).await;
        let reading = clients.into_iter().map(|mut client| {
            tokio::spawn(async move {
                for number in 0..MESSAGES {
                    assert_eq!(next(&mut client).await, format!("{number}"));
                }
            })
        });
        let reading: Vec<_> = reading.collect();
        let commands = (0..MESSAGES).map(|number| send(Target::Channel(name("news")), &number.to_string()));
        let numbers = publisher.start_all(commands).await;
        for number in numbers {
            let (receipt, unreachable, engine_down) = publisher.outcome(number).await;
            assert_eq!(receipt.reached + receipt.queued, 3, "{kind:?}: {receipt:?}");
            assert_eq!((unreachable, engine_down), (Vec::new(), false));
        }
        for reader in reading {
            reader.await.expect("all came in order");
        }
        assert!(nodes.iter().all(|node| node.metric("longwire_envelopes_missed_total", "") == 0.0));
    }
}

#[tokio::test]
async fn a_killed_node_is_unreachable_and_its_sessions_are_gone_when_it_is_back() {
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let mut nodes = three(&fpm, &engine).await;
        let (mut near, near_sid) = client(&nodes[0]).await;
        let (_far, far_sid) = client(&nodes[2]).await;
        let mut publisher = router(&nodes[0]).await;
        publisher.do_to(Target::All, Action::Join(name("news"))).await;
        nodes[2].signal(libc::SIGKILL);
        nodes[2].wait();
        let killed = Instant::now();
        // Until the lease of the dead node expires, receipts name it as missing.
        for to in [Target::Channel(name("news")), Target::All, Target::session(session(&far_sid))] {
            let is_session = matches!(to, Target::Sessions(_));
            let number = publisher.start(Operation::Command(send(to, "still here?"))).await;
            let (receipt, unreachable, engine_down) = publisher.outcome(number).await;
            assert_eq!(receipt, if is_session { Receipt::default() } else { reached(1) }, "{kind:?}");
            assert_eq!((unreachable, engine_down), (vec!["n3".to_owned()], false), "{kind:?}");
        }
        for _ in 0..2 {
            assert_eq!(next(&mut near).await, "still here?");
        }
        all_know(&nodes[..2], 1).await;
        assert!(killed.elapsed() < LEASE + Duration::from_secs(2), "{kind:?}: {:?}", killed.elapsed());
        // After that the answer comes at once. It still names the node, because its sessions may be alive behind a cut cable.
        match publisher.ask(Query::Session(session(&far_sid))).await {
            RouterAnswer::Error { word, .. } => assert_eq!(word, "unreachable"),
            other => panic!("the answer must be that the session is unknown: {other:?}"),
        }
        let whole = publisher.json(Query::Channel(name("news"), Page::default())).await;
        assert_eq!((&whole["count"], &whole["unreachable"]), (&1.into(), &serde_json::json!(["n3"])), "{kind:?}");
        nodes[2] = Longwire::serve(&config(&fpm, 3, &engine));
        all_know(&nodes, 2).await;
        let gone = Receipt { gone: 1, ..Receipt::default() };
        assert_eq!(publisher.run(send(Target::session(session(&far_sid)), "?")).await, gone, "another epoch");
        assert_eq!(publisher.publish("news", "after").await, reached(1));
        assert_eq!(next(&mut near).await, "after");
        assert_eq!(publisher.run(send(Target::session(session(&near_sid)), "mine")).await, reached(1));
    }
}

#[tokio::test]
async fn a_lost_engine_leaves_a_node_its_own_sessions_and_says_so() {
    for kind in ENGINES {
        let (fpm, mut engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let (mut near, near_sid) = client(&nodes[0]).await;
        let (mut far, far_sid) = client(&nodes[1]).await;
        let mut publisher = router(&nodes[0]).await;
        publisher.do_to(Target::All, Action::Join(name("news"))).await;
        for round in ["killed", "stopped"] {
            if round == "killed" {
                engine.kill();
            } else {
                engine.signal(libc::SIGSTOP);
            }
            eventually("every node notices", || nodes.iter().all(|node| node.metric("longwire_engine_up", "") == 0.0))
                .await;
            let (status, text) = nodes[0].admin("/ready");
            assert!(status == 503 && text.contains("cluster: "), "{status} {text}");
            let number = publisher.start(Operation::Command(send(Target::Channel(name("news")), "alone"))).await;
            let (receipt, _, engine_down) = publisher.outcome(number).await;
            assert_eq!((receipt, engine_down), (reached(1), true), "{kind:?} {round}");
            assert_eq!(next(&mut near).await, "alone");
            let number = publisher.start(Operation::Command(send(Target::session(session(&far_sid)), "?"))).await;
            // Its node's lease may have expired by now. Then the receipt names the node too.
            let (receipt, _, engine_down) = publisher.outcome(number).await;
            assert_eq!((receipt, engine_down), (Receipt::default(), true), "{kind:?} {round}");
            assert_eq!(publisher.run(send(Target::session(session(&near_sid)), "mine")).await, reached(1));
            assert_eq!(next(&mut near).await, "mine");
            if round == "killed" {
                engine.start_again();
            } else {
                engine.signal(libc::SIGCONT);
            }
            eventually("every node is back", || nodes.iter().all(|node| node.admin("/ready").0 == 200)).await;
            all_know(&nodes, 2).await;
            // Subscriptions are renewed with the link, so this reaches the far session as before.
            eventually_reaches(&mut publisher, 2).await;
            for client in [&mut near, &mut far] {
                while next(client).await != "together" {}
            }
            // Skip the messages of earlier attempts, if it took several.
            publisher.run(send(Target::All, "mark")).await;
            for client in [&mut near, &mut far] {
                while next(client).await != "mark" {}
            }
        }
    }
}

async fn eventually_reaches(publisher: &mut Router, count: u32) {
    let deadline = Instant::now() + LEASE * 3;
    while publisher.publish("news", "together").await.reached != count {
        assert!(Instant::now() < deadline, "the others are not reached");
    }
}

#[tokio::test]
async fn what_is_larger_than_the_engine_takes_is_said_and_nothing_else_suffers() {
    let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_for(Kind::Nats, 100_000));
    let nodes = three(&fpm, &engine).await;
    let (mut near, _) = client(&nodes[0]).await;
    let (mut far, _) = client(&nodes[1]).await;
    let mut publisher = router(&nodes[0]).await;
    publisher.do_to(Target::All, Action::Join(name("news"))).await;
    let large = "x".repeat(100_000);
    let number = publisher.start(Operation::Command(send(Target::Channel(name("news")), &large))).await;
    assert_eq!(publisher.outcome(number).await, (reached(1), vec!["n2".to_owned()], false));
    assert_eq!(next(&mut near).await, large);
    assert_eq!(publisher.publish("news", "small").await, reached(2));
    for client in [&mut near, &mut far] {
        assert_eq!(next(client).await, "small");
    }
    assert_eq!(nodes[0].metric("longwire_envelopes_dropped_total", "cause=\"too_large\""), 1.0);
    assert!(nodes.iter().all(|node| node.metric("longwire_engine_failures_total", "") == 0.0), "no link was lost");
}

#[tokio::test]
async fn a_command_that_names_thousands_is_done_and_one_that_fits_into_no_frame_is_said_not_to_be() {
    let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(Kind::Redis));
    let nodes = three(&fpm, &engine).await;
    let (mut far, far_sid) = client(&nodes[1]).await;
    let api = nodes[0].address("api");
    let post = async |body: serde_json::Value| {
        let answer = request(api, "POST", "/v1/send", body.to_string().as_bytes()).await.expect("it is answered");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    // Ids of that node and its epoch, for which no session exists.
    let nobody = |number: usize| format!("{}{number:08}", &far_sid[..8]);
    let mut ids: Vec<String> = (0..9999).map(nobody).filter(|id| *id != far_sid).collect();
    let others = ids.len();
    // A repeated id counts once, at any place in the list.
    ids.push(far_sid.clone());
    ids.insert(0, far_sid.clone());
    let receipt = post(serde_json::json!({"to": ids, "message": "one of thousands"})).await;
    assert_eq!((&receipt["reached"], &receipt["gone"]), (&1.into(), &others.into()), "{receipt}");
    assert_eq!(next(&mut far).await, "one of thousands");
    let except: Vec<String> = (0..9999).map(|number| format!("session:{}", nobody(number))).collect();
    let receipt = post(serde_json::json!({"to": "all", "except": except, "message": "to the others"})).await;
    assert_eq!((&receipt["reached"], &receipt["unreachable"]), (&0.into(), &serde_json::json!(["n2", "n3"])));
    assert_eq!(post(serde_json::json!({"to": "all", "message": "to all"})).await["reached"], 1);
    assert_eq!(next(&mut far).await, "to all");
}

#[tokio::test]
async fn a_batch_that_is_larger_than_the_engine_takes_is_sent_in_several_envelopes() {
    const MESSAGES: usize = 40;
    let (fpm, engine) = (Pool::of(2).start(), EngineServer::start_for(Kind::Nats, 100_000));
    let nodes = three(&fpm, &engine).await;
    let (mut far, _) = client(&nodes[1]).await;
    let mut publisher = router(&nodes[0]).await;
    publisher.do_to(Target::All, Action::Join(name("news"))).await;
    // Each message fits into one envelope, but a large one does not fit together with those before it.
    let body = |number: usize| format!("{number} {}", "x".repeat(if number % 8 == 7 { 95_000 } else { 3_000 }));
    let commands = (0..MESSAGES).map(|number| send(Target::Channel(name("news")), &body(number)));
    let numbers = publisher.start_all(commands).await;
    for number in numbers {
        let (receipt, unreachable, _) = publisher.outcome(number).await;
        assert_eq!((receipt.reached + receipt.queued, unreachable), (1, Vec::new()), "{number}");
    }
    for number in 0..MESSAGES {
        assert_eq!(next(&mut far).await, body(number));
    }
    assert_eq!(nodes[0].metric("longwire_envelopes_dropped_total", "cause=\"too_large\""), 0.0);
}

#[tokio::test]
async fn what_does_not_fit_into_a_frame_is_cut_or_refused_and_makes_nobody_unreachable() {
    let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(Kind::Redis));
    let nodes = three(&fpm, &engine).await;
    let (mut far, far_sid) = client(&nodes[1]).await;
    let post = async |command: &str, body: serde_json::Value| {
        let path = format!("/v1/{command}");
        let api = nodes[0].address("api");
        request(api, "POST", &path, body.to_string().as_bytes()).await.expect("it is answered")
    };
    let long = "x".repeat(70_000);
    let to = format!("session:{far_sid}");
    let answer = post("set", serde_json::json!({"to": to, "key": "k", "value": "v", "expect": long})).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("expect: "), "{}", answer.text());
    let answer = post("close", serde_json::json!({"to": to, "reason": long, "message": "bye"})).await;
    assert_eq!(answer.json(), serde_json::to_value(reached(1)).unwrap());
    assert_eq!(next(&mut far).await, "bye");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_makes_no_other_one_unreachable() {
    const JOINS: usize = 20;
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let (mut far, far_sid) = client(&nodes[1]).await;
        let mut routers = Vec::new();
        for _ in 0..JOINS {
            routers.push(router(&nodes[0]).await);
        }
        let mut publisher = router(&nodes[0]).await;
        kill(nodes[2].pid(), libc::SIGSTOP);
        let begun = Instant::now();
        let mut joins = Vec::new();
        for (number, router) in routers.iter_mut().enumerate() {
            let join = Action::Join(name(&format!("fresh {number}")));
            let number = router.start(Operation::Command(Command::new(Target::session(session(&far_sid)), join))).await;
            joins.push((router, number));
        }
        let mut slowest = Duration::ZERO;
        for number in 0..5 {
            let (begun, body) = (Instant::now(), format!("{number}"));
            let sent = publisher.start(Operation::Command(send(Target::session(session(&far_sid)), &body))).await;
            assert_eq!(publisher.outcome(sent).await, (reached(1), Vec::new(), false), "{kind:?}: {number}");
            assert_eq!(next(&mut far).await, body);
            slowest = slowest.max(begun.elapsed());
        }
        for (router, number) in joins {
            // The receipt is complete and in time, although the node that hangs has not read the message.
            assert_eq!(router.outcome(number).await, (reached(1), Vec::new(), false), "{kind:?}");
        }
        println!("{kind:?}: the slowest send took {slowest:?}, all joins {:?}", begun.elapsed());
        kill(nodes[2].pid(), libc::SIGCONT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_partitions_keeps_no_publisher_waiting() {
    const CHANNELS: usize = 15;
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let nodes = three(&fpm, &engine).await;
        let (_far, far_sid) = client(&nodes[1]).await;
        let mut publisher = router(&nodes[0]).await;
        let channel = |number: usize| format!("left {number}");
        for number in 0..CHANNELS {
            let join = Action::Join(name(&channel(number)));
            assert_eq!(publisher.do_to(Target::session(session(&far_sid)), join).await, reached(1));
        }
        for number in 0..CHANNELS {
            let leave = Action::Leave(name(&channel(number)));
            assert_eq!(publisher.do_to(Target::session(session(&far_sid)), leave).await, reached(1));
        }
        let publishing = (0..CHANNELS).map(|number| {
            let (address, far) = (nodes[0].address("router"), &nodes[1]);
            async move {
                let mut router = Router::connect(address, "").await;
                let (mut stalls, mut slowest) = (0, Duration::ZERO);
                while far.metric("longwire_cluster_partitions", "") > 0.0 {
                    for _ in 0..10 {
                        let begun = Instant::now();
                        let sent =
                            router.start(Operation::Command(send(Target::Channel(name(&channel(number))), "?"))).await;
                        let (_, unreachable, engine_down) = router.outcome(sent).await;
                        stalls += usize::from(!unreachable.is_empty() || engine_down);
                        slowest = slowest.max(begun.elapsed());
                        tokio::task::yield_now().await;
                    }
                }
                (stalls, slowest)
            }
        });
        let all = futures_util::future::join_all(publishing).await;
        println!("{kind:?}: {all:?}");
        assert!(all.iter().all(|(stalls, _)| *stalls == 0), "{kind:?}: {all:?}");
    }
}

#[tokio::test]
async fn a_number_that_is_taken_is_refused_with_its_owners_name() {
    for kind in ENGINES {
        let (fpm, engine) = (Pool::of(2).start(), EngineServer::start(kind));
        let first = Longwire::serve(&config(&fpm, 7, &engine));
        let second = config(&fpm, 7, &engine).replace("name = \"n7\"", "name = \"twin\"");
        let lines = Longwire::refuses(&second);
        assert!(
            lines.iter().any(|line| line.contains("node number 7 is taken by node \"n7\": set another [node] number")),
            "{kind:?}: {lines:?}"
        );
        assert_eq!(first.admin("/ready").0, 200, "the first node must not be affected");
    }
}

#[tokio::test]
async fn a_node_begins_without_its_engine_and_joins_when_it_comes() {
    for kind in ENGINES {
        let (fpm, mut engine) = (Pool::of(2).start(), EngineServer::start(kind));
        engine.kill();
        let node = Longwire::serve(&config(&fpm, 1, &engine));
        let (_client, sid) = client(&node).await;
        assert_eq!(node.admin("/ready").0, 503);
        assert_eq!(router(&node).await.run(send(Target::session(session(&sid)), "here")).await, reached(1));
        engine.start_again();
        eventually("it is ready", || node.admin("/ready").0 == 200).await;
    }
}
