//! HTTP/1.1 over the server's Unix socket; one connection per request.

use crate::failure::Failure;
use bytes::Bytes;
use flipside_model::{Problem, ProblemCode};
use futures_util::Stream;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// A local server that does not accept a connection in this time is stuck.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A question that changes nothing is answered from memory, or after a look at the machine; later means a stuck server.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer or line read into memory: far above a full log entry.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A request body.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// A client of one server.
#[derive(Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something and reads the whole answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let asked = self.json(Method::GET, path, empty());
        tokio::time::timeout(ANSWER_DEADLINE, asked)
            .await
            .unwrap_or_else(|_| Err(stuck()))
    }

    /// Sends something and reads the whole answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.json(Method::POST, path, json_body(body)?).await
    }

    /// Puts something in its place.
    pub(crate) async fn put(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        let asked = request(Method::PUT, path, json_body(body)?)?;
        drop(checked(self.send(asked).await?).await?);
        Ok(())
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        let response = self.send(request(Method::DELETE, path, empty())?).await?;
        drop(checked(response).await?);
        Ok(())
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, Failure> {
        let response = self.send(request(method, path, body)?).await?;
        let bytes = whole(checked(response).await?).await?;
        serde_json::from_slice(&bytes).map_err(|error| not_understood(&error))
    }

    /// Asks for a stream of JSON lines.
    pub(crate) async fn watch<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, Failure> {
        let asked = async {
            let response = self.send(request(Method::GET, path, empty())?).await?;
            Ok(Lines::new(checked(response).await?))
        };
        tokio::time::timeout(ANSWER_DEADLINE, asked)
            .await
            .unwrap_or_else(|_| Err(stuck()))
    }

    /// Sends something that is answered by a stream of JSON lines.
    pub(crate) async fn post_watch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Lines<T>, Failure> {
        let response = self
            .send(request(Method::POST, path, json_body(body)?)?)
            .await?;
        Ok(Lines::new(checked(response).await?))
    }

    /// Sends a request; the connection lives as long as the answer's body or the upgraded stream.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let connect = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(&self.socket));
        let stream = match connect.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.no_server(&error)),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(self.no_server(&late));
            }
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(async move {
            // Its errors reach the caller through the answer.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.map_err(lost)
    }

    fn no_server(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let problem = Problem::new(
            ProblemCode::Failed,
            format!("no flipside server answers on the socket `{socket}`"),
        )
        .because(error);
        let advice = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "run the command as the user the server runs as".to_owned()
            }
            _ => "start one with `flipside serve`, or name its socket with `--socket PATH` or FLIPSIDE_SOCKET".to_owned(),
        };
        Failure::Lost(Box::new(problem.advise(advice)))
    }
}

/// Makes an empty body.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn json_body(value: &impl Serialize) -> Result<Body, Failure> {
    serde_json::to_vec(value)
        .map(|bytes| full(Bytes::from(bytes)))
        .map_err(|error| Failure::failed(format!("cannot write the request: {error}")))
}

/// Builds a request for a path of the API.
pub(crate) fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "flipside")
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| Failure::failed(format!("cannot build the request: {error}")))
}

/// Turns an answer that reports a problem into that problem.
pub(crate) async fn checked(response: Response<Incoming>) -> Result<Incoming, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let bytes = whole(response.into_body()).await?;
    if let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) {
        return Err(problem.into());
    }
    let said: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
    let code = if status.is_client_error() {
        ProblemCode::Usage
    } else {
        ProblemCode::Failed
    };
    Err(Problem::new(code, format!("the server answered {status}: {said}")).into())
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(lost)?.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err(Failure::failed("the server's answer is too long"));
        }
    }
    Ok(bytes)
}

fn lost(error: hyper::Error) -> Failure {
    let problem = Problem::new(ProblemCode::Failed, "the connection to the server was lost");
    Failure::Lost(Box::new(problem.because(&error).advise(
        "what was asked may still go on: see `flipside status` and `flipside log`",
    )))
}

/// The server is there and says nothing.
pub(crate) fn stuck() -> Failure {
    Failure::Lost(Box::new(
        Problem::new(ProblemCode::TimedOut, "the server does not answer").advise(
            "see its log; it may be ended and started again at any moment, machines and operations survive that",
        ),
    ))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Problem::new(
        ProblemCode::Mismatch,
        "the server's answer is not understood",
    )
    .because(error)
    .advise("client and server should be the same version: compare `flipside --version`")
    .into()
}

/// A stream of JSON values, one a line.
pub(crate) struct Lines<T> {
    body: Incoming,
    buffer: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: Vec::new(),
            ready: VecDeque::new(),
            kind: PhantomData,
        }
    }

    /// Returns the next value; none at the end. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| not_understood(&error));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => self.ready.push_back(std::mem::take(&mut self.buffer)),
                Some(frame) => {
                    if let Some(data) = frame.map_err(lost)?.data_ref() {
                        self.feed(data)?;
                    }
                }
            }
        }
    }

    fn feed(&mut self, data: &[u8]) -> Result<(), Failure> {
        for piece in data.split_inclusive(|b| *b == b'\n') {
            self.buffer.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.ready.push_back(std::mem::take(&mut self.buffer));
            } else if self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(Failure::failed("a line of the server's answer is too long"));
            }
        }
        Ok(())
    }
}

/// Makes a request body out of chunks.
pub(crate) fn stream_body<S>(chunks: S) -> Body
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
{
    use futures_util::TryStreamExt as _;
    BodyExt::boxed(http_body_util::StreamBody::new(
        chunks.map_ok(hyper::body::Frame::data),
    ))
}
