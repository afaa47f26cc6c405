//! Connections on a real port: slow and vanishing clients, too many of them, and the end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Server, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{engine, get, server, wait};

struct Running {
    server: Server,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn start(server: Server) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = server.clone();
    let ended = tokio::spawn(async move {
        running
            .serve(listener, async {
                let _ = stopped.await;
            })
            .await;
    });
    Running { server, address, stop, ended }
}

/// A request for images that take a while, as they are resized to 1024 pixels.
fn slow(stream: bool) -> String {
    request(&json!({"class": 207, "n": 10, "stream": stream, "progress": stream, "size": "1024x1024"}))
}

fn request(body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn said(mut stream: TcpStream) -> String {
    let mut text = vec![];
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

async fn ask(running: &Running, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn figure(running: &Running, name: &str) -> f64 {
    let text = get(&running.server.router(), "/metrics").await.text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until a figure has a value.
async fn until(running: &Running, name: &str, value: f64) {
    let began = Instant::now();
    while figure(running, name).await != value {
        assert!(began.elapsed() < Duration::from_secs(20), "{name} is {}", figure(running, name).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn clients_that_vanish_cost_nothing_more() {
    wait(async {
        let running = start(server(ServerConfig::default(), &["classes"])).await;
        for stream in [false, true] {
            let mut clients = vec![];
            for _ in 0..6 {
                clients.push(ask(&running, &slow(stream)).await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(clients);
        }
        until(&running, "gen_requests_in_flight", 1.0).await;
        until(&running, "gen_connections ", 0.0).await;
        until(&running, "gen_model_queued_images", 0.0).await;
        until(&running, "gen_model_active_images", 0.0).await;
        assert!(figure(&running, "gen_model_images_cancelled_total").await > 0.0);
    });
}

#[test]
fn the_end_waits_for_running_images_and_refuses_new_ones() {
    wait(async {
        let running = start(server(ServerConfig::default(), &["classes"])).await;
        let early = tokio::spawn(said(ask(&running, &slow(true)).await));
        until(&running, "gen_requests_in_flight", 2.0).await;
        running.stop.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        let late = TcpStream::connect(running.address).await;
        if let Ok(mut late) = late {
            late.write_all(slow(true).as_bytes()).await.unwrap();
            let late = said(late).await;
            assert!(
                late.is_empty() || late.contains("503") && late.contains("server_shutting_down"),
                "{late}"
            );
        }
        let early = early.await.unwrap();
        assert_eq!(early.matches("event: image_generation.completed").count(), 10);
        running.ended.await.unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    });
}

#[test]
fn images_that_take_too_long_are_given_up_with_a_word() {
    wait(async {
        let config = ServerConfig { drain_time: Duration::ZERO, ..ServerConfig::default() };
        let running = start(server(config, &["classes"])).await;
        let stream = tokio::spawn(said(ask(&running, &slow(true)).await));
        let whole = tokio::spawn(said(ask(&running, &slow(false)).await));
        until(&running, "gen_requests_in_flight", 3.0).await;
        running.stop.send(()).unwrap();
        let (stream, whole) = (stream.await.unwrap(), whole.await.unwrap());
        assert!(stream.contains("event: error") && stream.contains("server_shutting_down"), "{stream}");
        assert!(whole.starts_with("HTTP/1.1 503") && whole.contains("server_shutting_down"), "{whole}");
        running.ended.await.unwrap();
    });
}

#[test]
fn slow_heads_and_bodies_are_given_up() {
    wait(async {
        let config = ServerConfig { read_time: Duration::from_millis(200), ..ServerConfig::default() };
        let running = start(server(config, &["classes"])).await;
        let began = Instant::now();
        let head = said(ask(&running, "GET /healthz HTTP/1.1\r\nhost: ").await).await;
        assert!(!head.contains("200 OK"), "{head}");
        let text = request(&json!({"class": 207}));
        let body = said(ask(&running, &text[..text.len() - 3]).await).await;
        assert!(body.starts_with("HTTP/1.1 408"), "{body}");
        assert!(began.elapsed() < Duration::from_secs(10));
        until(&running, "gen_connections ", 0.0).await;
    });
}

#[test]
fn too_many_connections_are_refused_and_places_come_back() {
    wait(async {
        let config = ServerConfig { max_connections: 2, ..ServerConfig::default() };
        let running = start(server(config, &["classes"])).await;
        let held = [ask(&running, "GET").await, ask(&running, "GET").await];
        until(&running, "gen_connections ", 2.0).await;
        let third = said(TcpStream::connect(running.address).await.unwrap()).await;
        assert!(third.starts_with("HTTP/1.1 503") && third.contains("Too many connections"), "{third}");
        drop(held);
        until(&running, "gen_connections ", 0.0).await;
        let text = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(said(ask(&running, text).await).await.starts_with("HTTP/1.1 200"));
        assert_eq!(figure(&running, "gen_connections_refused_total").await, 1.0);
    });
}

#[test]
fn a_head_without_end_and_nonsense_are_refused() {
    wait(async {
        let server = Server::new(ServerConfig::default());
        server.add(engine("classes", 8)).unwrap();
        server.ready();
        let running = start(server).await;
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
        let answer = said(ask_whole(&running, &long).await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        let answer = said(ask(&running, "\0\x01nonsense\r\n\r\n").await).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        let answer =
            said(ask(&running, "GET //../..%2f%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await)
                .await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    });
}

/// As [`ask`], for a request that the server may hang up on.
async fn ask_whole(running: &Running, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    stream
}
