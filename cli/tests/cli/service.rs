//! A service that answers from a script: for each method and path, one answer after the other, the last one for ever.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) const BUILD_ID: &str = "550e8400-e29b-41d4-a716-446655440000";
pub(crate) const IMAGE_ID: &str = "ami-0abcdef1234567890";

#[derive(Clone)]
pub(crate) enum Answer {
    Json(u16, Value),
    Raw(u16, Vec<(&'static str, String)>, String),
    /// The connection ends without a word.
    Dropped,
    /// The answer begins and breaks off.
    CutShort,
}

pub(crate) fn ok(document: Value) -> Answer {
    Answer::Json(200, document)
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::Json(status, json!({"error": {"code": code, "message": message}}))
}

pub(crate) fn build(status: &str) -> Value {
    let succeeded = status == "succeeded";
    let ended = succeeded || status == "failed";
    json!({
        "build_id": BUILD_ID, "status": status, "provider": "claude-code", "region": "us-east-1",
        "image_id": succeeded.then_some(IMAGE_ID),
        "created_at": "2026-03-25T14:29:58Z",
        "started_at": (status != "queued").then_some("2026-03-25T14:30:00Z"),
        "completed_at": ended.then_some("2026-03-25T14:40:00Z"),
        "error": (status == "failed").then_some("Packer build timed out after 1800 seconds"),
    })
}

/// A build that was cancelled and has ended.
pub(crate) fn cancelled() -> Value {
    let mut build = build("failed");
    build["phase"] = json!("cancelled");
    build["error"] = json!("cancelled");
    build["failure"] = json!({"stage": "run-packer", "step": null, "message": "cancelled",
                              "last_log_lines": ["installing"]});
    build
}

/// A build that was cancelled and is being cleaned up.
pub(crate) fn being_cancelled() -> Value {
    let mut build = build("building");
    build["phase"] = json!("cleaning_up");
    build["error"] = json!("cancelled");
    build
}

pub(crate) fn accepted() -> Answer {
    Answer::Json(202, build("queued"))
}

pub(crate) fn log_page(first: u64, texts: &[&str], complete: bool) -> Answer {
    let lines: Vec<Value> = texts
        .iter()
        .map(|text| json!({"at": "2026-03-25T14:30:00Z", "stream": "stdout", "text": text}))
        .collect();
    ok(json!({"lines": lines, "next_offset": first + texts.len() as u64, "complete": complete}))
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) bytes: Bytes,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, Vec<Answer>>,
    seen: Vec<Seen>,
}

pub(crate) struct Service {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
    running: Mutex<Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let (address, running) = serve(script.clone(), ([127, 0, 0, 1], 0).into());
        Self { script, address, running: Mutex::new(Some(running)) }
    }

    /// `route` is `GET /path?query`, below /api/v1/images.
    pub(crate) fn on(&self, route: &str, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.script.lock().unwrap().answers.insert(route.to_owned(), answers.into_iter().collect());
        self
    }

    /// Answers of GET for the build.
    pub(crate) fn on_build(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.on(&format!("GET /builds/{BUILD_ID}"), answers)
    }

    /// Answers of the request to cancel the build.
    pub(crate) fn on_cancel(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.on(&format!("POST /builds/{BUILD_ID}/cancel"), answers)
    }

    /// Answers of GET for the build's log from a line number on.
    pub(crate) fn on_log(&self, offset: u64, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.on(&format!("GET /builds/{BUILD_ID}/log?offset={offset}"), answers)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Closes the port and every connection.
    pub(crate) fn stop(&self) {
        if let Some((stop, thread)) = self.running.lock().unwrap().take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Opens the same port again.
    pub(crate) fn resume(&self) {
        let (_, running) = serve(self.script.clone(), self.address);
        *self.running.lock().unwrap() = Some(running);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

type Running = (oneshot::Sender<()>, std::thread::JoinHandle<()>);

fn serve(script: Arc<Mutex<Script>>, address: SocketAddr) -> (SocketAddr, Running) {
    let (stop, stopped) = oneshot::channel();
    let (bound, address_of) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind(address).await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            // Templates are larger than what axum takes by itself.
            let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(script);
            tokio::select! {
                served = axum::serve(listener, router).into_future() => served.unwrap(),
                _ = stopped => {}
            }
        });
        // With the runtime go its connections.
    });
    (address_of.recv().unwrap(), (stop, thread))
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path_and_query = uri.path_and_query().unwrap().as_str();
    let target = path_and_query.strip_prefix("/api/v1/images").unwrap_or(path_and_query).to_owned();
    let route = format!("{method} {target}");
    let next = {
        let mut script = script.lock().unwrap();
        let bytes = body;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        script.seen.push(Seen { method: method.to_string(), target, headers, body, bytes });
        match script.answers.get_mut(&route) {
            None => refusal(404, "not_found", &format!("nothing is scripted for {route}")),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
        }
    };
    respond(next)
}

fn respond(answer: Answer) -> Response {
    let builder = |status: u16| Response::builder().status(StatusCode::from_u16(status).unwrap());
    match answer {
        Answer::Json(204, _) => builder(204).body(Body::empty()).unwrap(),
        Answer::Json(status, document) => builder(status)
            .header("content-type", "application/json")
            .body(Body::from(document.to_string()))
            .unwrap(),
        Answer::Raw(status, headers, text) => headers
            .into_iter()
            .fold(builder(status), |builder, (name, value)| builder.header(name, value))
            .body(Body::from(text))
            .unwrap(),
        // Ends the connection's task without the panic's usual message.
        Answer::Dropped => std::panic::resume_unwind(Box::new("dropped")),
        Answer::CutShort => {
            builder(200).header("content-length", "1000").body(Body::from("{\"build_id\"")).unwrap()
        }
    }
}
