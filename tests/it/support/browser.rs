//! A headless Chromium, driven over WebDriver (<https://www.w3.org/TR/webdriver2/>) by its own chromedriver.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::http;
use super::php_fpm::eventually;

/// A browser with one window. Dropping it ends all its processes.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

/// How WebDriver names an element in JSON (section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    /// Starts a browser; `size` is in CSS pixels, `dark` is the preferred colour scheme.
    pub async fn start(size: (u32, u32), dark: bool) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The browser and its helpers are in the driver's process group, so that all can be killed together.
            .process_group(0)
            .spawn()
            .expect("chromium-driver is installed (tests/install-deps.sh test)");
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        eventually("chromedriver listens", || std::net::TcpStream::connect(address).is_ok()).await;
        let mut args = vec![
            "--headless".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            // No traffic besides the page under test: no component updates, no lookups of Google's hosts.
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            format!("--user-data-dir={}", browser._profile.path().display()),
            format!("--window-size={},{}", size.0, size.1),
        ];
        // SAFETY: it takes no arguments and returns a number.
        if unsafe { libc::geteuid() } == 0 {
            // Chromium refuses to run as root with its sandbox.
            args.push("--no-sandbox".to_owned());
        }
        if dark {
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
        }}});
        let opened = browser.call("POST", "/session", &wanted).await;
        browser.session = opened["sessionId"].as_str().expect("a session has an id").to_owned();
        browser
    }

    /// Opens an address and waits until it has loaded.
    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url })).await;
    }

    /// Emulates a screen of this many CSS pixels, such as a phone's. A window cannot be that narrow, because it has a minimum width.
    pub async fn pretend_screen(&self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": params });
        self.command("/goog/cdp/execute", &command).await;
    }

    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.command(&format!("/element/{element}/click"), &json!({})).await;
    }

    /// Types as on a keyboard; `\u{E007}` is Enter, `\u{E013}` arrow up (section 17.4.2).
    pub async fn type_text(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.command(&format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    /// Runs a function body in the page and gives what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page. A failure prints the text that the page shows instead.
    pub async fn wait_for(&self, expression: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.run(&format!("return !!({expression})")).await != Value::Bool(true) {
            if std::time::Instant::now() > deadline {
                panic!("timed out waiting for {expression}; the page shows:\n{}", self.text("body").await);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The visible text of an element.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.element(selector).await;
        let path = format!("/session/{}/element/{element}/text", self.session);
        let text = self.call("GET", &path, &Value::Null).await;
        text.as_str().expect("a text").to_owned()
    }

    /// A picture of the window, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        use base64::Engine;
        let picture = self.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null).await;
        let picture = picture.as_str().expect("base64");
        base64::engine::general_purpose::STANDARD.decode(picture).expect("base64")
    }

    /// The entries of the browser's log: errors and warnings.
    pub async fn complaints(&self) -> Vec<String> {
        let path = format!("/session/{}/se/log", self.session);
        let log = self.call("POST", &path, &json!({ "type": "browser" })).await;
        let entries = log.as_array().expect("a list").iter();
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.command("/element", &json!({ "using": "css selector", "value": selector })).await;
        found[ELEMENT].as_str().expect("an element has an id").to_owned()
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body).await
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = http::request(self.address, method, path, &body).await.expect("chromedriver answers");
        let mut json: Value = serde_json::from_slice(&answer.body).expect("WebDriver speaks JSON");
        assert_eq!(answer.status, 200, "{method} {path}: {json}");
        json["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // SAFETY: the process group is the one made for this child.
        unsafe { libc::kill(-(self.driver.id() as i32), libc::SIGKILL) };
        let _ = self.driver.wait();
    }
}
