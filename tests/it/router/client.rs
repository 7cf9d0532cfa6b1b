//! `php-client/api.php`, used from a handler, from a page behind nginx, and from the command line.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use longwire::proto::command::{Page, Query};
use longwire::proto::framing::{Framing, LengthFraming};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::longwire::{Longwire, http_get};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::proxy::Proxy;
use crate::support::router::{Router, name};

/// The first snippet of README.md. The test replaces only the port and the id of the other session.
const SNIPPET: &str = r#"
include 'api.php';                                   // and, from any script at all:
$router = new RouterClient('127.0.0.1', 9010);
$router->sendMsg($otherSid, 'hi');                   // one session
$router->sendAllMsg('hi all');                       // everybody
$router->publish('channel', 'hi group');             // a channel
"#;

/// The handler: runs the snippet if a client asks for it; otherwise it runs the message as PHP code.
const HANDLER: &str = r#"
$sid  = $_SERVER['SESSIONID'];
$data = file_get_contents('php://input');
if (strncmp($data, 'SNIPPET ', 8) === 0) {
    $otherSid = substr($data, 8);
    include 'snippet.php';
} else {
    eval($data);
}
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(more: &str) -> Self {
        let fpm = Pool::of(3).start();
        let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client/api.php");
        fs::copy(api, fpm.dir().join("api.php")).expect("it is there");
        let script = fpm.script("handler.php", HANDLER);
        let node = Longwire::with(&fpm, &script, "", "", &format!("{EACH_FRAMING}\n{more}"));
        let port = node.address("router").port();
        fpm.script("snippet.php", &SNIPPET.replace("9010", &port.to_string()));
        Self { fpm, node }
    }

    fn router(&self) -> String {
        format!("include 'api.php'; $router = new RouterClient('127.0.0.1', {});", self.node.address("router").port())
    }

    async fn member(&self) -> (Client, String) {
        let length = Framing::Length(LengthFraming::default());
        let mut client = Client::connect(self.node.address("length"), length).await;
        let sid = client.ask("header('Longwire-Join: channel'); echo $sid;").await;
        let mut router = Router::connect(self.node.address("router"), "").await;
        let is_in =
            |channel: &Value| channel["sessions"].as_array().is_some_and(|all| all.iter().any(|id| *id == *sid));
        router.ask_until(Query::Channel(name("channel"), Page::default()), is_in).await;
        (client, sid)
    }

    /// Runs PHP code on the command line, in the folder of the scripts.
    fn php(&self, code: &str) -> Output {
        Command::new("php")
            .args(["-d", "error_log=", "-d", "display_errors=stderr", "-r", code])
            .current_dir(self.fpm.dir())
            .output()
            .expect("php is installed")
    }

    /// The same; returns the output.
    #[track_caller]
    fn printed(&self, code: &str) -> String {
        let output = self.php(&format!("{} {code}", self.router()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

/// Checks the three messages that the snippet sends to a client that is the other session and in the channel.
async fn expect_three(client: &mut Client) {
    for expected in ["hi", "hi all", "hi group"] {
        assert_eq!(&client.frame().await.body[..], expected.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snippet_works_from_a_handler_from_a_page_behind_nginx_and_from_the_command_line() {
    let stage = Stage::new("");
    let (mut other, sid) = stage.member().await;

    let mut sender = Client::connect(stage.node.address("length"), Framing::Length(LengthFraming::default())).await;
    sender.text(&format!("SNIPPET {sid}")).await;
    expect_three(&mut other).await;
    assert_eq!(&sender.frame().await.body[..], b"hi all", "and the handler itself printed nothing");

    stage.fpm.script(
        "page.php",
        "$otherSid = $_GET['sid']; header('Content-Length: 4'); include 'snippet.php'; echo 'sent';",
    );
    let (_nginx, web) = Proxy::nginx_before(&stage.fpm);
    let (status, body) = http_get(web, &format!("/page.php?sid={sid}"));
    assert_eq!((status, body.as_str()), (200, "sent"));
    expect_three(&mut other).await;

    let output = stage.php(&format!("$otherSid = '{sid}'; include 'snippet.php';"));
    assert_eq!(String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout), "");
    expect_three(&mut other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_below_the_old_names_works_too() {
    let stage = Stage::new("");
    let (mut other, sid) = stage.member().await;
    let receipt = concat!(
        r#"{"reached":1,"queued":0,"dropped":{"close":0,"oldest":0,"newest":0,"latest":0},"refused":0,"gone":0,"#,
        r#""unreachable":[],"engine_down":false}"#,
    );
    assert_eq!(stage.printed(&format!("echo json_encode($router->sendMsg(['{sid}', '{sid}'], 'once'));")), receipt);
    assert_eq!(&other.frame().await.body[..], b"once");
    assert_eq!(stage.printed("echo $router->publish('nobody is here', 'x')['reached'];"), "0");
    assert_eq!(stage.printed("echo json_encode($router->sendMsg('AAAAAAAAAAAAAAAA', 'x')['gone']);"), "1");

    let code = format!(
        "$r = [$router->addChannel('a', '{sid}'), $router->addChannel('b', ['{sid}']), $router->delChannel('a', '{sid}'),
             $router->bindUid('{sid}', '42'), $router->setAttr('{sid}', 'Rank', '3'),
             $router->compareAndSetAttr('{sid}', 'rank', '4', '5'), $router->compareAndSetAttr('{sid}', 'rank', '3', '6'),
             $router->compareAndSetAttr('{sid}', 'new', null, 'x'), $router->delAttr('{sid}', 'new')];
         foreach ($r as $receipt) echo $receipt['reached'], $receipt['refused'], ' ';
         echo $router->getAttr('{sid}', 'rank'), ' ', var_export($router->getAttr('{sid}', 'new'), true), ' ';
         var_dump($router->exists('{sid}'), $router->exists('AAAAAAAAAAAAAAAA'), $router->exists(['{sid}', 'AAAAAAAAAAAAAAAA']));"
    );
    let expected = "10 10 10 10 10 01 10 10 10 6 NULL bool(true)\nbool(false)\nint(1)\n";
    assert_eq!(stage.printed(&code), expected);
    let session = stage.printed(&format!("echo json_encode(array_slice($router->session('{sid}'), 1, 6));"));
    let expected = r#"{"uid":"42","attributes":{"rank":"6"},"channels":["channel","b"],"app":"app","listener":"length","framing":"length"}"#;
    assert_eq!(session, expected);
    assert_eq!(other.ask("echo $_SERVER['LONGWIRE_UID'], $_SERVER['LONGWIRE_ATTR_RANK'];").await, "426");
    let lists = "echo json_encode([$router->channel('b'), $router->uid('42', null, 0), $router->channels(null, 1), $router->sessionList()]);";
    let expected = format!(
        r#"[{{"channel":"b","count":1,"sessions":["{sid}"]}},{{"uid":"42","count":1,"sessions":[]}},{{"count":2,"channels":[{{"channel":"b","count":1}}],"next":"b"}},{{"count":1,"sessions":["{sid}"]}}]"#
    );
    assert_eq!(stage.printed(lists), expected);
    let gateway = |number: u16, clients: u32, channels: u32| {
        format!(r#"[{{"serverid":"{number}","workerid":"0","clients":"{clients}","channels":"{channels}"}}]"#)
    };
    let gateways = match stage.node.number_with_sessions() {
        None => gateway(0, 1, 2),
        Some(number) => format!("{},{}", gateway(0, 0, 0), gateway(number, 1, 2)),
    };
    let info = format!(r#"{{"clients":"1","channels":"2","gateway":[{gateways}]}}"#);
    assert_eq!(stage.printed("echo json_encode($router->info());"), info);

    let (mut second, other_sid) = stage.member().await;
    let code = format!(
        "$router->begin(); $router->publish('channel', 'to one', ['except' => 'session:{sid}']);
         $router->send('uid:42', 'to 42'); $router->sendToUid('42', 'again'); $router->send('channel:b', \"\\xff\", ['type' => 'text']);
         foreach ($router->commit() as $receipt) echo json_encode($receipt ? $receipt['reached'] : $router->lastError()), ' ';
         echo $router->closeSession('session:{other_sid}', 4001, 'enough', 'bye')['reached'];"
    );
    let expected = r#"1 1 1 "not_text: the message is of kind text and not UTF-8" 1"#;
    assert_eq!(stage.printed(&code), expected);
    assert_eq!((&second.frame().await.body[..], &second.frame().await.body[..]), (&b"to one"[..], &b"bye"[..]));
    assert!(second.next().await.is_none());
    assert_eq!((&other.frame().await.body[..], &other.frame().await.body[..]), (&b"to 42"[..], &b"again"[..]));
    assert_eq!(stage.printed(&format!("echo $router->kickUser('{sid}')['reached'];")), "1");
    assert!(other.next().await.is_none());
    let closed = stage.node.closed(2);
    assert!(closed.iter().all(|line| line["reason"] == "router_closed"), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_proved_and_a_wrong_one_is_said() {
    const SECRET: &str = "correct horse battery";
    let stage = Stage::new(&format!("[router]\nbind = \"127.0.0.1:0\"\nshort_protocol = false\nsecret = \"{SECRET}\""));
    let port = stage.node.address("router").port();
    let ask = |secret: &str| {
        let code = format!(
            "include 'api.php'; $r = new RouterClient('127.0.0.1:{port}', 0, {secret});
             echo json_encode($r->node() ? 'ok' : $r->lastError(), JSON_UNESCAPED_SLASHES);"
        );
        String::from_utf8_lossy(&stage.php(&code).stdout).into_owned()
    };
    assert_eq!(ask(&format!("'{SECRET}'")), "\"ok\"");
    let why = |what: &str| format!("\"no router: tcp://127.0.0.1:{port}: {what}\"");
    assert_eq!(
        ask("'wrong horse'"),
        why("bad_proof: the proof is wrong: the secret differs, or the proof is another connection's")
    );
    assert_eq!(ask("null"), why("the router asks for a secret"));
    eventually("it is counted", || stage.node.metric("longwire_commands_refused_total", "cause=\"bad_proof\"") == 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_down_slow_or_killed_costs_a_page_its_timeout_and_a_false() {
    let stage = Stage::new("");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = stage.node.address("router");
    let ask = |hosts: &str, code: &str| {
        let code = format!(
            "include 'api.php'; $r = new RouterClient({hosts}, 9010, null, ['connect_timeout' => 0.3, 'timeout' => 0.3]); $t = microtime(true);
             {code}; echo ' ', microtime(true) - $t < 3 ? 'in time' : 'late', ' ', preg_replace('/tcp:\\S+: /', '', $r->lastError());"
        );
        String::from_utf8_lossy(&stage.php(&code).stdout).into_owned()
    };
    let publish = "var_dump($r->publish('x', 'y') === false)";
    assert_eq!(ask(&format!("'{free}'"), publish), "bool(true)\n in time no router: Connection refused");
    let address = silent.local_addr().unwrap();
    let expected = "bool(true)\n in time no router: the router did not answer within 0.3 s";
    assert_eq!(ask(&format!("'{address}'"), publish), expected);
    // The next address takes over.
    let expected = "int(0)\n in time ";
    assert_eq!(ask(&format!("['{free}', '{alive}']"), "var_dump($r->publish('x', 'y')['reached'])"), expected);
    // The node is killed between two calls. The second call sees the end of the connection before it writes, and its new connection is
    // refused.
    let pid = stage.node.router_pid();
    // Wait until the process is a zombie: its main thread becomes one only when all other threads are gone and its sockets are closed.
    let code = format!(
        "$r->node(); posix_kill({pid}, 9);
         while (!preg_match('/[)] [ZX]/', file_get_contents('/proc/{pid}/stat')) || count(scandir('/proc/{pid}/task')) > 3) usleep(1000);
         {publish}"
    );
    assert_eq!(ask(&format!("'{alive}'"), &code), "bool(true)\n in time no router: Connection refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_go_out_at_once_and_large_messages_whole() {
    let stage = Stage::new("");
    let (mut other, sid) = stage.member().await;
    let reader = tokio::spawn(async move {
        for number in 0..10_000 {
            assert_eq!(&other.frame().await.body[..], format!("{number}").as_bytes());
        }
        let large = other.frame().await.body;
        assert_eq!(large.len(), 12_000_000);
        assert!(large.iter().all(|b| *b == b'x'));
    });
    let started = Instant::now();
    let code = format!(
        "$router->begin(); for ($i = 0; $i < 10000; $i++) $router->sendMsg('{sid}', $i);
         $sum = 0; foreach ($router->commit() as $r) $sum += $r['reached'] + $r['queued'];
         $r = $router->sendMsg('{sid}', str_repeat('x', 12000000)); echo $sum, ' ', $r['reached'] + $r['queued'];"
    );
    assert_eq!(stage.printed(&code), "10000 1");
    tokio::time::timeout(Duration::from_secs(60), reader).await.expect("all of it arrives").unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
}
