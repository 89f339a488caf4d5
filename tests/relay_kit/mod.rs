//! What tests and benchmarks need to use a relay without a coordinator: the running program, tickets sealed with its own key, frames.
// Not every user needs all of it.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use lanline::relay::ticket::{Grant, SideKey, TicketKey};
use lanline::server::ticket_key;
use lanline::transport::identity::{Guid, Identity};
use lanline::wire::relay::{Bind, DATA_AUTHENTICATED, DATA_HEADER, DataHeader};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A running `lanline serve`, killed at the latest when it is dropped, and its data folder, removed then.
pub struct Serving {
    pub child: Child,
    pub ready: serde_json::Value,
    data: PathBuf,
}

impl Serving {
    /// Starts the program and waits until it is ready; what it said instead, if it does not get ready.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self, String> {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let data = std::env::temp_dir().join(format!("lanline-relay-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&data);
        let child = Command::new(program)
            .arg("serve")
            .args(arguments)
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut serving = Self {
            child,
            ready: serde_json::Value::Null,
            data,
        };
        let mut line = String::new();
        if let Some(output) = serving.child.stdout.take() {
            let _ = BufReader::new(output).read_line(&mut line);
        }
        if line.is_empty() {
            let mut errors = String::new();
            if let Some(mut output) = serving.child.stderr.take() {
                let _ = output.read_to_string(&mut errors);
            }
            return Err(errors);
        }
        serving.ready = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        Ok(serving)
    }

    /// Its addresses on the main port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let list = self.ready["udp"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|text| text.as_str()?.parse().ok()).collect()
    }

    /// What its relay's tickets are sealed with.
    pub fn ticket_key(&self) -> TicketKey {
        let seed = fs::read(self.data.join("server.key")).expect("a server that is ready has a key");
        let seed: [u8; 32] = seed.try_into().expect("an identity is a seed of 32 bytes");
        let identity = Identity::from_seed(seed);
        TicketKey::new(&ticket_key(&identity, &identity.public()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Milliseconds of the clock that tickets' expiry is told in.
pub fn ticket_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

/// What one side of a session may do: everything, for an hour.
pub fn grant(session: u64, from_asker: bool) -> Grant {
    let mut secret = [if from_asker { 0x11 } else { 0x22 }; 32];
    secret[16..24].copy_from_slice(&session.to_be_bytes());
    Grant {
        session,
        from_asker,
        key_number: 1,
        expires: ticket_time() + 3_600_000,
        owner: Guid(session * 2 + 1 + u64::from(from_asker)),
        idle_ms: 600_000,
        bytes_per_second: 0,
        frames_per_second: 0,
        key: SideKey::new(secret),
    }
}

/// The frame that shows the ticket for a grant.
pub fn bind_frame(key: &TicketKey, grant: &Grant) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&grant.session.to_be_bytes());
    nonce[8] = u8::from(grant.from_asker);
    nonce[9] = grant.key_number;
    let ticket = key.seal(nonce, grant);
    let mut bind = Bind {
        key_number: grant.key_number,
        session: grant.session,
        transaction: 7,
        ticket: &ticket,
        tag: [0; 16],
    };
    let mut frame = Vec::new();
    bind.encode(&mut frame);
    bind.tag = grant.key.bind_tag(&frame[..bind.authenticated_length()]);
    frame.clear();
    bind.encode(&mut frame);
    frame
}

/// A data frame.
pub fn data_frame(from: &Grant, counter: u64, payload: &[u8]) -> Vec<u8> {
    let header = DataHeader {
        segment_size: 0,
        from_asker: from.from_asker,
        key_number: from.key_number,
        counter,
        session: from.session,
        tag: [0; 8],
    };
    let mut frame = Vec::with_capacity(DATA_HEADER + payload.len());
    header.encode(&mut frame);
    let tag = from.key.data_tag(frame.first_chunk().expect("a header"));
    frame[DATA_AUTHENTICATED..].copy_from_slice(&tag);
    frame.extend_from_slice(payload);
    frame
}
