//! Channel events (join, leave, occupied, vacated) on one node and on several: PHP must get each once and in order.

use std::time::{Duration, Instant};

use longwire::proto::command::{Action, Target};

use crate::support::client::Client;
use crate::support::cluster::{LEASE, all_know, brisk, config_with, connected, next, three};
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::{Router, name, session};

const ALL: &str = "events = [\"join\", \"leave\", \"occupied\", \"vacated\"]\n";

/// Notes channel events, and sends the id of a new member to the other members of the channel. It answers a message with the session's id
/// and joins the session to the channels that the message names.
const HANDLER: &str = r#"
$event = $_SERVER['LONGWIRE_EVENT'];
$sid = $_SERVER['SESSIONID'] ?? '-';
if ($event === 'message') {
    $channels = file_get_contents('php://input');
    if ($channels !== '') header("Longwire-Join: $channels");
    exit($sid);
}
$note = [$event, $_SERVER['EVENT'], $_SERVER['LONGWIRE_CHANNEL'], $sid, $_SERVER['LONGWIRE_UID'] ?? '-'];
file_put_contents(__DIR__ . '/notices', implode(' ', $note) . "\n", FILE_APPEND | LOCK_EX);
if ($event === 'join') {
    header("Longwire-To: channel:{$_SERVER['LONGWIRE_CHANNEL']}; except=self");
    echo "$sid has come";
}
"#;

fn notices(fpm: &PhpFpm) -> Vec<String> {
    let text = std::fs::read_to_string(fpm.dir().join("notices")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Waits until exactly these events have come, in this order.
async fn told(fpm: &PhpFpm, expected: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while notices(fpm) != expected {
        assert!(Instant::now() < deadline, "told {:#?}\nrather than {expected:#?}", notices(fpm));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn client(node: &Longwire, channels: &str) -> (Client, String) {
    let mut client = connected(node).await;
    client.text(channels).await;
    // The session joins before its answer is sent, so it may first get the message about an earlier member.
    let mut sid = next(&mut client).await;
    while sid.ends_with(" has come") {
        sid = next(&mut client).await;
    }
    (client, sid)
}

fn config(fpm: &PhpFpm, number: usize, cluster: &str) -> String {
    config_with(fpm, number, cluster, HANDLER, ALL)
}

#[tokio::test]
async fn a_script_is_told_of_its_channels_in_order_and_can_tell_those_who_are_in_them() {
    let fpm = Pool::of(4).start();
    let mut node = Longwire::serve(&config(&fpm, 1, ""));
    let mut router = Router::connect(node.address("router"), "").await;
    let (mut ann, ann_sid) = client(&node, "").await;
    router.do_to(Target::session(session(&ann_sid)), Action::Bind(name("ann"))).await;
    assert_eq!(ann.ask("room").await, ann_sid);
    let (bob, bob_sid) = client(&node, "room").await;
    assert_eq!(next(&mut ann).await, format!("{bob_sid} has come"));
    let mut expected = vec![
        "occupied 5 room - -".to_owned(),
        format!("join 3 room {ann_sid} ann"),
        format!("join 3 room {bob_sid} -"),
    ];
    told(&fpm, &expected).await;
    // A repeated join, or a leave by a session that is not a member, causes no event.
    router.do_to(Target::session(session(&bob_sid)), Action::Join(name("room"))).await;
    router.do_to(Target::session(session(&bob_sid)), Action::Leave(name("hall"))).await;
    drop(bob);
    expected.push(format!("leave 4 room {bob_sid} -"));
    told(&fpm, &expected).await;
    router.do_to(Target::All, Action::Leave(name("room"))).await;
    expected.extend([format!("leave 4 room {ann_sid} ann"), "vacated 6 room - -".to_owned()]);
    told(&fpm, &expected).await;
    // A node that stops sends the leave events of all its sessions before it ends.
    router.do_to(Target::session(session(&ann_sid)), Action::Join(name("room"))).await;
    node.terminate();
    assert!(node.wait().success());
    expected.extend([
        "occupied 5 room - -".to_owned(),
        format!("join 3 room {ann_sid} ann"),
        format!("leave 4 room {ann_sid} ann"),
        "vacated 6 room - -".to_owned(),
    ]);
    assert_eq!(notices(&fpm), expected);
}

#[tokio::test]
async fn only_what_an_app_asks_for_comes_and_a_storm_of_joins_is_told_one_by_one() {
    const SESSIONS: usize = 200;
    let fpm = Pool::of(4).start();
    let node = Longwire::serve(&config(&fpm, 1, "").replace(ALL, "events = [\"join\", \"vacated\"]\n"));
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(client(&node, "storm, other").await);
    }
    eventually("all joins are told", || notices(&fpm).len() == 2 * SESSIONS).await;
    let order = |channel: &str| -> Vec<String> {
        let of_channel = format!("join 3 {channel} ");
        notices(&fpm).iter().filter_map(|line| Some(line.strip_prefix(&of_channel)?.to_owned())).collect()
    };
    let expected: Vec<String> = clients.iter().map(|(_, sid)| format!("{sid} -")).collect();
    assert_eq!(order("storm"), expected);
    assert_eq!(order("other"), expected);
    eventually("nothing waits", || node.metric("longwire_presence_untold", "") == 0.0).await;
    drop(clients);
    eventually("both are vacated", || notices(&fpm).len() == 2 * SESSIONS + 2).await;
}

#[tokio::test]
async fn over_several_nodes_a_channel_is_one_and_a_killed_node_leaves_nobody_behind() {
    for kind in [Kind::Redis, Kind::Nats] {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let config = |number| config(&fpm, number, &brisk(&engine.config()));
        let mut nodes = three(config).await;
        // Twelve channels, so that each node leads some of them; one session of each node joins all.
        let channels: Vec<String> = (0..12).map(|number| format!("room:{number}")).collect();
        let mut members = Vec::new();
        for node in &nodes {
            members.push(client(node, &channels.join(", ")).await);
            // Wait until every node knows of this join before the next one, because nodes order events by arrival.
            let count = members.len();
            eventually("all joins are told", || notices(&fpm).len() == channels.len() * (count + 1)).await;
        }
        let of = |channel: &str| -> Vec<String> {
            let mut is_occupied = false;
            let lines = notices(&fpm).into_iter().filter(|line| line.split(' ').nth(2) == Some(channel));
            // After the death of a node, an occupied event may be repeated.
            let is_news = |line: &String| match line.split(' ').next() {
                Some("occupied") => !std::mem::replace(&mut is_occupied, true),
                Some("vacated") => std::mem::replace(&mut is_occupied, false),
                _ => true,
            };
            lines.filter(is_news).collect()
        };
        let mut expected: Vec<Vec<String>> = Vec::new();
        for channel in &channels {
            let mut lines = vec![format!("occupied 5 {channel} - -")];
            lines.extend(members.iter().map(|(_, sid)| format!("join 3 {channel} {sid} -")));
            assert_eq!(of(channel), lines, "{kind:?}");
            expected.push(lines);
        }
        let add = |expected: &mut Vec<Vec<String>>, what: &dyn Fn(&str) -> String| {
            expected.iter_mut().zip(&channels).for_each(|(lines, channel)| lines.push(what(channel)));
        };
        // After SIGKILL only the keepers of its channels know of its sessions.
        nodes[2].signal(libc::SIGKILL);
        nodes[2].wait();
        let killed = Instant::now();
        let killed_sid = members[2].1.clone();
        add(&mut expected, &|channel| format!("leave 4 {channel} {killed_sid} -"));
        eventually("its sessions have left", || {
            channels.iter().zip(&expected).all(|(channel, lines)| of(channel) == *lines)
        })
        .await;
        println!("{kind:?}: the sessions of a killed node left after {:.1} s", killed.elapsed().as_secs_f64());
        assert!(killed.elapsed() < LEASE + Duration::from_secs(2), "{kind:?}: {:?}", killed.elapsed());
        // After its restart it keeps channels in which it has no sessions of its own.
        nodes[2] = Longwire::serve(&config(3));
        all_know(&nodes, 2).await;
        let (first, first_sid) = members.remove(0);
        drop(first);
        add(&mut expected, &|channel| format!("leave 4 {channel} {first_sid} -"));
        eventually("it has left", || channels.iter().zip(&expected).all(|(channel, lines)| of(channel) == *lines))
            .await;
        let second_sid = members.remove(0).1;
        add(&mut expected, &|channel| format!("leave 4 {channel} {second_sid} -"));
        add(&mut expected, &|channel| format!("vacated 6 {channel} - -"));
        eventually("all are vacated", || channels.iter().zip(&expected).all(|(channel, lines)| of(channel) == *lines))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_too_long_for_one_envelope_is_known_to_a_node_that_comes_later() {
    // A session takes 300 bytes in an envelope, and an envelope has at most 64 KB. So this needs several envelopes.
    const SESSIONS: usize = 300;
    let channel = "c".repeat(250);
    for kind in [Kind::Redis, Kind::Nats] {
        let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
        let config = |number| config(&fpm, number, &brisk(&engine.config()));
        let mut first = Longwire::serve(&config(1));
        let mut members = Vec::new();
        for _ in 0..SESSIONS {
            let mut member = connected(&first).await;
            member.text(&channel).await;
            members.push(member);
        }
        eventually("all joins are told", || notices(&fpm).len() == SESSIONS + 1).await;
        let second = Longwire::serve(&config(2));
        eventually("it has begun to tell", || second.metric("longwire_cluster_nodes", "") == 1.0).await;
        // The new node takes part after one lease. It knows of the other sessions by the time when its own session's join is reported.
        let (_member, sid) = client(&second, &channel).await;
        let has_come = format!("join 3 {channel} {sid} -");
        eventually("it is told", || notices(&fpm).contains(&has_come)).await;
        eventually("each knows of the other's", || {
            [&first, &second].iter().all(|node| node.metric("longwire_presence_unshared", "") == 0.0)
        })
        .await;
        first.signal(libc::SIGKILL);
        first.wait();
        let left = || notices(&fpm).into_iter().filter(|line| line.starts_with("leave ")).collect::<Vec<_>>();
        eventually("all have left", || left().len() == SESSIONS).await;
        assert!(left().iter().all(|line| !line.contains(&sid)), "{kind:?}: it is still there");
        assert!(
            notices(&fpm).iter().all(|line| !line.starts_with("vacated ")),
            "{kind:?}: the channel still has a member, so it must not be vacated"
        );
    }
}
