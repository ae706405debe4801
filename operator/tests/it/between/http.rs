//! The proxy before the Kubernetes API: plain HTTP in, the operator's own rights out.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use axum::serve::IncomingStream;
use futures::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode, header};
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Between, Call, Fault, Kind, Side, Wire};

/// Where our kinds are, of which the operator looks at every object of the cluster.
const OURS: &str = "/apis/finaiflow.io/v1alpha1/";
/// Set by each side for its own connection.
const OWN_HEADERS: [header::HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

struct Proxy {
    client: Client,
    namespace: String,
    between: Arc<Between>,
}

/// The connection a request came on.
#[derive(Clone)]
struct Socket(Arc<std::net::TcpStream>);

impl Connected<IncomingStream<'_, TcpListener>> for Socket {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        stream.io().set_nodelay(true).unwrap();
        Self(Arc::new(stream.io().as_fd().try_clone_to_owned().unwrap().into()))
    }
}

impl Socket {
    async fn cut(&self) -> Response {
        let _ = self.0.shutdown(Shutdown::Both);
        std::future::pending().await
    }
}

pub async fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

pub async fn serve(listener: TcpListener, client: Client, namespace: String, between: Arc<Between>) {
    let proxy = Arc::new(Proxy { client, namespace, between });
    let service = Router::new().fallback(pass).with_state(proxy).into_make_service_with_connect_info::<Socket>();
    axum::serve(listener, service).await.unwrap();
}

async fn pass(
    State(proxy): State<Arc<Proxy>>,
    ConnectInfo(socket): ConnectInfo<Socket>,
    mut request: Request,
) -> Response {
    let between = &proxy.between;
    // This one's world ends at its namespace.
    let mut target = request.uri().path_and_query().unwrap().to_string();
    if let Some(all) = target.strip_prefix(OURS).filter(|path| !path.starts_with("namespaces/")) {
        target = format!("{OURS}namespaces/{}/{all}", proxy.namespace);
    }
    *request.uri_mut() = target.parse().unwrap();
    if target.contains("watch=true") {
        let watch = between.open_watch();
        let answer = proxy.forward(request).await;
        return answer.map(|body| mutable(body, Arc::clone(between), watch));
    }
    if target.contains("/leases") {
        return proxy.forward(request).await;
    }
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let kind = if head.method == Method::GET { Kind::Read } else { Kind::Write };
    let what = format!("{} {target}{}", head.method, subject(&body));
    let (_, fault) = between.enter(Call { wire: Wire::Api, kind, what, wrote: kind == Kind::Write }).await;
    let request = Request::from_parts(head, Body::from(body));
    match fault {
        None => proxy.forward(request).await,
        Some((_, Fault::Refuse(code))) => refusal(code),
        Some((side, fault)) => {
            if side == Side::After {
                to_bytes(proxy.forward(request).await.into_body(), usize::MAX).await.unwrap();
            }
            match fault {
                Fault::Hold => between.hold().await,
                Fault::Cut => return socket.cut().await,
                Fault::Silence | Fault::Refuse(_) => {}
            }
            std::future::pending().await
        }
    }
}

impl Proxy {
    async fn forward(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        without(&mut head.headers, &OWN_HEADERS);
        // The client has the same token.
        without(&mut head.headers, &[header::AUTHORIZATION, header::ACCEPT_ENCODING]);
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let answer = self.client.send(http::Request::from_parts(head, body.to_vec().into())).await;
        let Ok(answer) = answer else { return refusal(503) };
        let (mut head, body) = answer.into_parts();
        without(&mut head.headers, &OWN_HEADERS);
        Response::from_parts(head, Body::new(body))
    }
}

fn without(headers: &mut HeaderMap, names: &[header::HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// What an object in a body is called, or is about.
fn subject(body: &[u8]) -> String {
    let Ok(object) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let names = [&object["metadata"]["name"], &object["regarding"]["name"], &object["reason"]];
    names.into_iter().filter_map(Value::as_str).flat_map(|name| [" ", name]).collect()
}

/// An answer of the API server that is an error, as it words it.
fn refusal(code: u16) -> Response {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "made to fail", "reason": reason, "code": code, "details": {"retryAfterSeconds": 1}});
    let answer = Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header(header::CONTENT_TYPE, "application/json");
    let answer = if code == 429 { answer.header(header::RETRY_AFTER, "1") } else { answer };
    answer.body(Body::from(status.to_string())).unwrap()
}

/// A watch's stream, which can be made to say nothing any more.
fn mutable(body: Body, between: Arc<Between>, watch: usize) -> Body {
    let frames = body.into_data_stream().map(Some).chain(stream::once(std::future::ready(None)));
    Body::from_stream(
        frames
            .then(move |frame| {
                let is_muted = between.is_muted(watch);
                async move {
                    if is_muted {
                        std::future::pending::<()>().await;
                    }
                    frame
                }
            })
            .take_while(|frame| std::future::ready(frame.is_some()))
            .filter_map(std::future::ready),
    )
}
