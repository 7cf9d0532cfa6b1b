//! Cookies: a session behaves like a browser towards PHP. Cookies set by an answer are sent with all later events.

use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::event_stream::Http;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// A message is PHP code; the connect event runs the code in the file `connect`.
const HANDLER: &str = r#"
ini_set('session.save_path', __DIR__ . '/sessions');
ini_set('session.use_strict_mode', '1');
function shown(): string { ksort($_COOKIE); return http_build_query($_COOKIE, '', ' '); }
function counted(): string { session_start(); return 'n=' . ($_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1); }
$event = $_SERVER['LONGWIRE_EVENT'];
if ($event === 'close') { file_put_contents(__DIR__ . '/closed', shown() . "\n", FILE_APPEND | LOCK_EX); exit; }
eval($event === 'connect' ? file_get_contents(__DIR__ . '/connect') : file_get_contents('php://input'));
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(connect: &str) -> Self {
        let fpm = Pool::of(2).start();
        std::fs::create_dir(fpm.dir().join("sessions")).unwrap();
        std::fs::write(fpm.dir().join("connect"), connect).unwrap();
        let script = fpm.script("handler.php", HANDLER);
        let listeners = LISTENERS.replace("\"/ws\" = ", "\"/ws\" = \"app\", \"/shop/*\" = ");
        let node = Longwire::with(&fpm, &script, "events = [\"connect\", \"close\"]", "", &listeners);
        Self { fpm, node }
    }

    fn php_sessions(&self) -> usize {
        std::fs::read_dir(self.fpm.dir().join("sessions")).unwrap().count()
    }

    async fn closed(&self, expected: &str) {
        let read = || std::fs::read_to_string(self.fpm.dir().join("closed")).unwrap_or_default();
        eventually(&format!("close event with {expected:?}"), || read().lines().any(|line| line == expected)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_php_session_that_begins_at_connect_is_the_same_at_every_later_event() {
    let stage = Stage::new("echo counted();");
    let (mut client, head) = Client::try_upgrade(stage.node.address("web"), "/ws", "").await.unwrap();
    assert!(head.to_ascii_lowercase().contains("set-cookie: phpsessid="), "{head}");
    assert_eq!(&client.frame().await.body[..], b"n=1");
    for n in 2..=4 {
        assert_eq!(client.ask("echo counted();").await, format!("n={n}"));
    }
    // A new id in the middle, as after a login; the old one is gone.
    assert_eq!(client.ask("counted(); session_regenerate_id(true); echo 'new id';").await, "new id");
    assert_eq!(client.ask("echo counted();").await, "n=6");
    assert_eq!(stage.php_sessions(), 1);

    let mut stream = Http::one(stage.node.address("web")).await.stream("/ws", &[]).await;
    assert_eq!(stream.event().await.data, "n=1");
    let mut post = Http::one(stage.node.address("web")).await;
    for n in 2..=3 {
        let answer = post.ask("POST", &stream.address, &[], b"echo counted();").await;
        assert_eq!(answer.text(), format!("n={n}"));
    }
    // A client without cookies of its own, over TCP.
    let mut client = Client::connect(stage.node.address("length"), Framing::Length(LengthFraming::default())).await;
    assert_eq!(&client.frame().await.body[..], b"n=1");
    assert_eq!(client.ask("echo counted();").await, "n=2");
    assert_eq!(stage.php_sessions(), 3, "one for each connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_set_and_unset_is_in_the_cookies_of_later_events_by_the_rules_of_a_browser() {
    let connect = r#"
        setcookie('kept', 'by connect'); setcookie('theme', 'dark'); setcookie('gone', '', 1);
        setcookie('elsewhere', '1', 0, '/admin'); setcookie('here', '1', ['path' => '/shop', 'secure' => true, 'httponly' => true]);
        echo shown();"#;
    let stage = Stage::new(connect);
    let headers = "Cookie: theme=light; gone=1; own=2; theme=blue\r\n";
    let mut client = Client::upgrade(stage.node.address("web"), "/shop/ws", headers).await;
    assert_eq!(&client.frame().await.body[..], b"gone=1 own=2 theme=light", "those of the handshake");
    assert_eq!(client.ask("echo shown();").await, "here=1 kept=by+connect own=2 theme=dark");
    assert_eq!(client.ask("setcookie('kept', 'anew'); setcookie('own', '', 1, '/'); echo 1;").await, "1");
    assert_eq!(client.ask("echo shown();").await, "here=1 kept=anew theme=dark");
    client.text("setcookie('theme', 'of a failure'); http_response_code(500);").await;
    assert_eq!(client.ask("echo shown();").await, "here=1 kept=anew theme=dark", "a failure changes nothing");
    // Cookies are bounded in number and bytes. The log names a cookie that is not kept, but not its value.
    client.ask("for ($i = 0; $i < 60; $i++) { setcookie(\"c$i\", 'x'); } echo 1;").await;
    assert_eq!(client.ask("echo count($_COOKIE);").await, "50");
    client.ask("setcookie('kept', str_repeat('secret', 1000)); echo 1;").await;
    assert_eq!(client.ask("echo $_COOKIE['kept'];").await, "anew");
    let refused = stage.node.wait_for_log("the log says which", |line| line["cookie"] == "kept");
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("cookie not kept for later events: ") && !message.contains("secret"), "{message}");
    let unset = "foreach (array_keys($_COOKIE) as $name) { if ($name !== 'own') setcookie($name, '', 1); } echo 1;";
    client.ask(unset).await;
    assert_eq!(client.ask("setcookie('last', '1'); echo shown() . '.';").await, ".");
    client.close(1000).await;
    stage.closed("last=1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_id_is_one_that_php_takes_for_its_own_sessions_and_as_a_file_name() {
    let stage = Stage::new("");
    let mut client = Client::connect(stage.node.address("length"), Framing::Length(LengthFraming::default())).await;
    // Strict mode accepts only ids that PHP has made.
    let code = "ini_set('session.use_strict_mode', '0'); session_id($_SERVER['SESSIONID']); session_start(['use_cookies' => false]);
        echo session_id() === $_SERVER['SESSIONID'] ? $_SERVER['SESSIONID'] : 'another';";
    let id = client.ask(code).await;
    assert!(id.len() == 16 && id.bytes().all(|c| c.is_ascii_alphanumeric()), "{id}");
    assert!(stage.fpm.dir().join("sessions").join(format!("sess_{id}")).exists());
}
