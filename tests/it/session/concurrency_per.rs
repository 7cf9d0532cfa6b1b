//! `concurrency_per`: how many PHP workers all sessions of one user may occupy together.

use crate::support::client::Client;
use crate::support::echo::ECHO;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// `hold` keeps its worker and the lock of the PHP session until the file `go` exists.
const HANDLER: &str = r#"
if (($_SERVER['LONGWIRE_EVENT'] ?? '') !== 'message') { header('Longwire-Uid: ' . ($_COOKIE['user'] ?? '')); exit; }
$body = file_get_contents('php://input');
if ($body === 'work on') {
    while (!file_exists(__DIR__ . '/answer')) { usleep(2000); clearstatcache(); }
    echo 'done';
    fastcgi_finish_request();
    while (!file_exists(__DIR__ . '/go')) { usleep(2000); clearstatcache(); }
    exit;
}
if ($body === 'hold') {
    session_save_path(__DIR__);
    session_start();
    touch(__DIR__ . '/held-' . getmypid());
    while (!file_exists(__DIR__ . '/go')) { usleep(2000); clearstatcache(); }
    echo 'held';
    exit;
}
"#;

fn stage(app: &str) -> (PhpFpm, Longwire) {
    stage_with(Pool::of(4).start(), app)
}

fn stage_with(fpm: PhpFpm, app: &str) -> (PhpFpm, Longwire) {
    let script = fpm.script("handler.php", &format!("{HANDLER}{ECHO}"));
    let node = Longwire::with(&fpm, &script, app, "", LISTENERS);
    (fpm, node)
}

/// Clients of one browser: the same cookies.
async fn tabs(node: &Longwire, cookies: &str, count: usize) -> Vec<Client> {
    let mut tabs = Vec::new();
    for _ in 0..count {
        tabs.push(Client::upgrade(node.address("web"), "/ws", &format!("Cookie: {cookies}\r\n")).await);
    }
    tabs
}

/// Eight tabs of a user hold PHP's session lock; others are served meanwhile, and then every tab is.
async fn others_are_served(app: &str, cookies: &str, other_cookies: &str) {
    let (fpm, node) = stage(app);
    let mut user = tabs(&node, cookies, 8).await;
    for tab in &mut user {
        tab.text("hold").await;
    }
    let held = || node.metric("longwire_upstream_held_requests_total", "");
    eventually("the user's other events are held back", || held() == 7.0).await;
    for mut other in tabs(&node, other_cookies, 2).await {
        assert_eq!(other.ask("hi").await, "hi", "no answer may wait for the lock");
    }
    assert_eq!(node.metric("longwire_upstream_busy_connections", ""), 1.0, "one worker for the user");
    std::fs::write(fpm.dir().join("go"), "").expect("the directory is ours");
    for tab in &mut user {
        assert_eq!(tab.frame().await.body, "held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tabs_that_wait_for_one_php_session_leave_the_other_workers_to_others() {
    others_are_served("concurrency_per = \"cookie:PHPSESSID\"\n", "PHPSESSID=one", "PHPSESSID=two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tab_does_not_wait_for_work_behind_the_answer_to_another_while_a_worker_is_free() {
    for pool in [Pool::of(4), Pool::of(4).tcp()] {
        let (fpm, node) = stage_with(pool.start(), "concurrency_per = \"cookie:PHPSESSID\"\n");
        let mut user = tabs(&node, "PHPSESSID=one", 2).await;
        user[0].text("work on").await;
        eventually("it runs", || node.metric("longwire_upstream_busy_connections", "") == 1.0).await;
        user[1].text("hi").await;
        eventually("the other is held back", || node.metric("longwire_upstream_held_requests_total", "") == 1.0).await;
        std::fs::write(fpm.dir().join("answer"), "").expect("the directory is ours");
        assert_eq!(user[0].frame().await.body, "done");
        // No other request wakes the queue, and `go` does not exist.
        assert_eq!(user[1].frame().await.body, "hi");
        std::fs::write(fpm.dir().join("go"), "").expect("the directory is ours");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tabs_that_spell_one_cookie_in_several_ways_are_one_user() {
    let (fpm, node) = stage("concurrency_per = \"cookie:PHPSESSID\"\n");
    let mut user = Vec::new();
    for spelling in ["one", "%6fne", "o%6Ee", "on%65", "%6f%6e%65"] {
        let mut tab = tabs(&node, &format!("PHPSESSID={spelling}"), 1).await.remove(0);
        tab.text("hold").await;
        user.push(tab);
    }
    eventually("four are held back", || node.metric("longwire_upstream_held_requests_total", "") == 4.0).await;
    std::fs::write(fpm.dir().join("go"), "").expect("the directory is ours");
    for tab in &mut user {
        assert_eq!(tab.frame().await.body, "held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_one_uid_share_a_bound_and_sessions_without_a_uid_have_none() {
    let app = "events = [\"connect\"]\nconcurrency_per = \"uid\"\n";
    others_are_served(app, "user=42; PHPSESSID=one", "PHPSESSID=two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_events_of_one_user_wait_for_their_turn_and_all_arrive() {
    let app = "events = [\"close\"]\nconcurrency_per = \"cookie:PHPSESSID\"\n";
    let fpm = Pool::of(4).start();
    let code = "if ($_SERVER['LONGWIRE_EVENT'] !== 'close') exit; session_save_path(__DIR__); session_start(); \
                usleep(5000); file_put_contents(__DIR__ . '/closed', $_SERVER['SESSIONID'] . \"\\n\", FILE_APPEND);";
    let script = fpm.script("handler.php", code);
    let node = Longwire::with(&fpm, &script, app, "", LISTENERS);
    drop(tabs(&node, "PHPSESSID=one", 12).await);
    let closed = || std::fs::read_to_string(fpm.dir().join("closed")).unwrap_or_default().lines().count();
    eventually("each session's close event ran", || closed() == 12).await;
    assert!(node.metric("longwire_upstream_held_requests_total", "") > 0.0, "they ran one at a time");
}
