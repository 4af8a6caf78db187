//! A raw client: writes frames byte by byte as docs/ipc.md says, with no help from the hub's own code.

use std::{collections::VecDeque, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// Generous: a loaded machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Got {
    pub op: u8,
    pub id: u32,
    pub head: Value,
    pub payload: Vec<u8>,
}

pub struct Client {
    pub socket: UnixStream,
    next: u32,
    /// Frames that came while another was waited for.
    aside: VecDeque<Got>,
}

pub fn frame(op: u8, id: u32, head: &Value, payload: &[u8]) -> Vec<u8> {
    let head = if head.is_null() { String::new() } else { head.to_string() };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((9 + head.len() + payload.len()) as u32).to_be_bytes());
    bytes.push(op);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&(head.len() as u32).to_be_bytes());
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

impl Client {
    pub async fn raw(path: &Path) -> Self {
        Self { socket: UnixStream::connect(path).await.unwrap(), next: 0, aside: VecDeque::new() }
    }

    pub async fn hello(path: &Path, name: &str) -> Self {
        let mut client = Self::raw(path).await;
        assert_eq!(client.call(json!({"m": "hello", "name": name}), b"").await.op, 2);
        client
    }

    pub async fn send(&mut self, op: u8, id: u32, head: &Value, payload: &[u8]) {
        self.socket.write_all(&frame(op, id, head, payload)).await.unwrap();
    }

    async fn read(&mut self) -> Option<Got> {
        let size = timeout(PATIENCE, self.socket.read_u32()).await.expect("nothing came").ok()? as usize;
        let mut body = vec![0; size];
        self.socket.read_exact(&mut body).await.unwrap();
        let hlen = u32::from_be_bytes(body[5..9].try_into().unwrap()) as usize;
        let head = &body[9..9 + hlen];
        Some(Got {
            op: body[0],
            id: u32::from_be_bytes(body[1..5].try_into().unwrap()),
            head: if head.is_empty() { json!({}) } else { serde_json::from_slice(head).unwrap() },
            payload: body[9 + hlen..].to_vec(),
        })
    }

    /// The next frame that fits; others are kept for later.
    pub async fn expect(&mut self, fits: impl Fn(&Got) -> bool) -> Got {
        if let Some(at) = self.aside.iter().position(&fits) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let got = self.read().await.expect("the hub closed the connection");
            if fits(&got) {
                return got;
            }
            self.aside.push_back(got);
        }
    }

    /// Sends a call without waiting; its id.
    pub async fn start(&mut self, head: Value, payload: &[u8]) -> u32 {
        self.next += 1;
        self.send(1, self.next, &head, payload).await;
        self.next
    }

    pub async fn call(&mut self, head: Value, payload: &[u8]) -> Got {
        let id = self.start(head, payload).await;
        self.answer(id).await
    }

    pub async fn answer(&mut self, id: u32) -> Got {
        self.expect(|got| got.id == id && (got.op == 2 || got.op == 3)).await
    }

    /// The next call of the hub.
    pub async fn serve(&mut self) -> Got {
        self.expect(|got| got.op == 1).await
    }

    pub async fn event(&mut self) -> Got {
        self.expect(|got| got.op == 4).await
    }

    /// Returns when the hub has closed the connection.
    pub async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }
}
