//! A headless Chromium that reaches one server only, driven over WebDriver: Debian's `chromium` and `chromium-driver`.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use reqwest::{
    Method, Url,
    blocking::{Client, RequestBuilder},
};
use serde_json::{Value, json};

use crate::eventually;

/// How long a page may take to come to something, on a busy machine.
const PATIENCE: u64 = 120;
/// Member of an element's JSON that holds its reference (WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    http: Client,
    session: String,
    server: String,
    _driver: Driver,
}

#[derive(Debug)]
struct Driver {
    process: Child,
    /// Held open, or its next message would kill it.
    messages: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts a browser for which no host exists but that of `server`, a URL without a path.
    #[must_use]
    pub fn confined_to(server: &str) -> Self {
        let mut driver = Driver::start();
        let address = format!("http://127.0.0.1:{}/session", driver.port());
        let http = Client::builder().timeout(Duration::from_mins(5)).no_proxy().build().expect("HTTP client");
        let session = call(http.post(&address).json(&capabilities(server))).expect("a browser starts");
        let session = format!("{address}/{}", session["sessionId"].as_str().expect("sessionId"));
        Self { http, session, server: server.to_owned(), _driver: driver }
    }

    /// Loads `path` of the server.
    pub fn open(&self, path: &str) {
        let _ =
            self.ask(Method::POST, "/url", &json!({"url": format!("{}{path}", self.server)})).expect("the page loads");
    }

    /// Clicks on the element that a CSS selector names, as soon as it can be clicked.
    pub fn click(&self, selector: &str) {
        self.act(selector, "click", &json!({}));
    }

    /// Replaces what an input holds.
    pub fn type_into(&self, selector: &str, text: &str) {
        let all = "\u{e009}a\u{e000}"; // with the Control key, which is released then
        self.act(selector, "value", &json!({"text": format!("{all}{text}")}));
    }

    /// Waits until the text of an element satisfies `expected`; returns it.
    pub fn text(&self, selector: &str, expected: impl Fn(&str) -> bool) -> String {
        eventually(PATIENCE, selector, || {
            let element = self.find(selector)?;
            let text = self.ask(Method::GET, &format!("/element/{element}/text"), &Value::Null)?;
            let text = text.as_str().unwrap_or_default().to_owned();
            if expected(&text) { Ok(text) } else { Err(text) }
        })
    }

    /// The URLs that the pages have asked for since this was last called, whether they got them or not.
    #[must_use]
    pub fn requested(&self) -> Vec<String> {
        let events = self.log("performance").into_iter().map(|entry| {
            let text = entry["message"].as_str().expect("message").to_owned();
            let event: Value = serde_json::from_str(&text).expect("an event is JSON");
            event["message"].clone()
        });
        let requests = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["params"]["request"]["url"].as_str().expect("url").to_owned()).collect()
    }

    /// What the console holds in the way of errors: failed requests, violations of the page's policy, exceptions.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let severe = self.log("browser").into_iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.ask(Method::POST, "/se/log", &json!({"type": kind})).expect("the log is kept");
        entries.as_array().expect("a list").clone()
    }

    fn act(&self, selector: &str, action: &str, body: &Value) {
        eventually(PATIENCE, selector, || {
            let element = self.find(selector)?;
            self.ask(Method::POST, &format!("/element/{element}/{action}"), body)
        });
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let found = self.ask(Method::POST, "/element", &json!({"using": "css selector", "value": selector}))?;
        Ok(found[ELEMENT].as_str().expect("a reference").to_owned())
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.http.request(method, format!("{}{path}", self.session));
        call(if body.is_null() { request } else { request.json(body) })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.ask(Method::DELETE, "", &Value::Null);
    }
}

impl Driver {
    fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver: {e}: install it with e2e/cluster/prereqs.sh story"));
        let messages = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, messages }
    }

    fn port(&mut self) -> u16 {
        let mut lines = self.messages.by_ref().lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        port.expect("chromedriver says where it listens")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn capabilities(server: &str) -> Value {
    let url = Url::parse(server).expect("a URL");
    let hosts = format!("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {}", url.host_str().expect("a host"));
    let arguments = [
        "--headless=new",
        "--no-sandbox", // which root cannot have
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1600",
        &hosts,
    ];
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": arguments},
        "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
    }}})
}

/// The value of a command's answer, or its error.
fn call(request: RequestBuilder) -> Result<Value, String> {
    let answer: Value = request.send().and_then(reqwest::blocking::Response::json).map_err(|e| e.to_string())?;
    let value = answer["value"].clone();
    if value["error"].is_null() { Ok(value) } else { Err(value["message"].to_string()) }
}
