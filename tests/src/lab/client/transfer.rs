//! Large transfers over HTTP with both ends hashing.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use super::http::Connection;
use crate::guest::pattern;
use crate::lab::Netns;

const CHUNK: usize = 64 * 1024;
const LIMIT: Duration = Duration::from_secs(30);

/// A finished transfer whose hash was right.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The VM at the other end.
    pub vm: String,
    /// The SHA-256 of what went over, in hex.
    pub sha256: String,
    /// How long it took.
    pub took: Duration,
}

/// Fetches `/bytes/N` and compares its hash with that of the same bytes made here.
pub fn download(ns: &Netns, server: SocketAddr, source: Option<IpAddr>, bytes: u64) -> Result<Transfer> {
    ns.run(|| {
        let start = Instant::now();
        let mut connection = Connection::open(server, source, LIMIT)?;
        connection.send_head("GET", &format!("/bytes/{bytes}"), 0, None)?;
        let head = connection.read_head()?;
        if (head.status, head.length) != (200, bytes) {
            bail!("status {}, {} bytes announced", head.status, head.length);
        }
        let (mut hash, mut buf, mut got) = (Sha256::new(), vec![0; CHUNK], 0);
        let mut body = connection.body(bytes);
        loop {
            let n = body.read(&mut buf)?;
            if n == 0 {
                break;
            }
            got += n as u64;
            hash.update(&buf[..n]);
        }
        finish(head.vm, &pattern::hex(&hash.finalize()), got, bytes, start)
    })?
}

/// Sends N bytes to `/sha256` and compares the hash the guest answers.
pub fn upload(ns: &Netns, server: SocketAddr, source: Option<IpAddr>, bytes: u64) -> Result<Transfer> {
    ns.run(|| {
        let start = Instant::now();
        let mut connection = Connection::open(server, source, LIMIT)?;
        connection.send_head("PUT", "/sha256", bytes, None)?;
        let (mut buf, mut sent) = (vec![0; CHUNK], 0);
        while sent < bytes {
            let n = (bytes - sent).min(CHUNK as u64) as usize;
            pattern::fill(sent, &mut buf[..n]);
            connection.stream().write_all(&buf[..n])?;
            sent += n as u64;
        }
        let head = connection.read_head()?;
        let mut text = String::new();
        connection.body(head.length).read_to_string(&mut text)?;
        if head.status != 200 {
            bail!("status {}: {text}", head.status);
        }
        finish(head.vm, text.trim(), sent, bytes, start)
    })?
}

fn finish(vm: String, sha256: &str, done: u64, bytes: u64, start: Instant) -> Result<Transfer> {
    let took = start.elapsed();
    let wanted = pattern::sha256_hex(bytes);
    if done != bytes || sha256 != wanted {
        bail!("{vm}: {done} of {bytes} bytes with SHA-256 {sha256}, wanted {wanted}");
    }
    Ok(Transfer { vm, sha256: wanted, took })
}
