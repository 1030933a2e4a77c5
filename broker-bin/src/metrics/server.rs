//! `/metrics`, `/health` and `/ready` over HTTP, on an address and a thread of their own.
//!
//! 1. Strangers cost little: so many connections at once, so long for a request's head, so long for a connection, and no body is read.
//! 2. One page is gathered at a time. Health and readiness do not wait for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot::{Receiver, Sender, channel};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::judgement::Judgement;
use super::page;
use super::source::Source;
use crate::limits;

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "/metrics  numbers, for Prometheus\n/health   200 while a restart would not help\n/ready    200 while a send would be taken\n";

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens and answers when this returns.
    pub(crate) fn start(listen: SocketAddr, source: Arc<Source>) -> std::io::Result<Server> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits::METRICS_THREADS)
            .thread_name("metrics-look")
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, stopped) = channel();
        let body = move || {
            runtime.block_on(serve(listener, source, stopped));
            // Connections end with it; what is being looked at ends soon.
            drop(runtime);
        };
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(body)?;
        tracing::info!(listen = %address, "metrics, health and readiness are told over HTTP");
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that answers monitors ended in a panic");
        }
    }
}

/// What all connections share.
struct Answers {
    source: Arc<Source>,
    /// Held by whoever gathers a page.
    gathering: Mutex<()>,
}

async fn serve(listener: TcpListener, source: Arc<Source>, mut stopped: Receiver<()>) {
    let answers = Arc::new(Answers { source, gathering: Mutex::new(()) });
    let room = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of monitors");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // With too many the next one is closed at once: a monitor comes again.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let _place = place;
            // Whoever is not through by then is cut off, in whatever it does.
            let _served = timeout(limits::METRICS_CONNECTION_TIME, connection(stream, answers)).await;
        });
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(&answers, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::METRICS_HEAD_TIME)
        .max_buf_size(limits::METRICS_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a monitor's connection ended");
    }
}

async fn answer(answers: &Answers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let _alone = answers.gathering.lock().await;
            match looked(answers, Source::page).await {
                Some(page) => typed(StatusCode::OK, page::CONTENT_TYPE, page),
                None => text(StatusCode::INTERNAL_SERVER_ERROR, "gathering the numbers ended in a panic\n"),
            }
        }
        "/health" => judged(looked(answers, Source::health).await),
        "/ready" => judged(looked(answers, Source::readiness).await),
        "/" => text(StatusCode::OK, INDEX),
        _ => text(StatusCode::NOT_FOUND, INDEX),
    }
}

/// Asks the file system and takes locks: not on the thread that all connections share.
async fn looked<T: Send + 'static>(answers: &Answers, look: fn(&Source) -> T) -> Option<T> {
    let source = Arc::clone(&answers.source);
    spawn_blocking(move || look(&source)).await.ok()
}

fn judged(judgement: Option<Judgement>) -> Response<Full<Bytes>> {
    match judgement {
        Some(Judgement { holds: true, text: words }) => text(StatusCode::OK, format!("{words}\n")),
        Some(Judgement { holds: false, text: words }) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")),
        None => text(StatusCode::INTERNAL_SERVER_ERROR, "looking ended in a panic\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
