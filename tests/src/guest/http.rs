//! A small HTTP/1.1 server with keep-alive.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `{"vm","client","server"}` |
//! | `GET /bytes/N` | the first N bytes of `pattern` |
//! | `PUT` or `POST /sha256` | the SHA-256 of the body in hex |
//! | `GET /stats` | counters of the guest and its kernel |
//! | `GET /seen` | the numbers of the datagrams that came, see [`seen`](super::seen) |
//! | `POST /control/...` | see [`control`] |
//!
//! Every answer has `X-VM: NAME`. `X-Service-Time-Ms: N` on a request overrides the guest's service time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::pattern;
use super::state::State;

/// Always open, so that a guest whose services were stopped can be told to start them again.
pub const CONTROL_PORT: u16 = 9100;

const CHUNK: usize = 64 * 1024;
const MAX_HEAD: u64 = 16 * 1024;

/// The parts of a request that matter here.
struct Request {
    method: String,
    path: String,
    body: u64,
    keep_alive: bool,
    expects_continue: bool,
    service_ms: Option<u64>,
}

/// Serves one connection until either side closes it.
pub fn serve(state: &State, stream: TcpStream) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(8 * 1024, stream);
    while let Some(request) = read_head(&mut input)? {
        if request.expects_continue {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        // Whoever asks how busy it is, or changes that, does not stand in its queue.
        if !request.path.starts_with("/control/") && !matches!(request.path.as_str(), "/stats" | "/seen") {
            state.serve(request.service_ms);
        }
        state.requests.fetch_add(1, Ordering::Relaxed);
        respond(state, &request, &mut input, &mut out)?;
        if !request.keep_alive {
            break;
        }
    }
    Ok(())
}

fn respond(
    state: &State,
    request: &Request,
    input: &mut BufReader<TcpStream>,
    out: &mut TcpStream,
) -> io::Result<()> {
    let mut body = input.take(request.body);
    if let ("GET", Some(n)) = (request.method.as_str(), request.path.strip_prefix("/bytes/")) {
        let Ok(n) = n.parse() else { return answer(state, request, out, 400, "not a number\n") };
        io::copy(&mut body, &mut io::sink())?;
        head(state, request, out, 200, n)?;
        return stream_pattern(n, out);
    }
    let (status, text) = match (request.method.as_str(), request.path.as_str()) {
        ("PUT" | "POST", "/sha256") => {
            let mut hash = Sha256::new();
            let mut buf = vec![0; CHUNK];
            loop {
                match body.read(&mut buf)? {
                    0 => break,
                    n => hash.update(&buf[..n]),
                }
            }
            if body.limit() > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (200, format!("{}\n", pattern::hex(&hash.finalize())))
        }
        ("GET", "/") => (
            200,
            format!(
                "{}\n",
                json!({
                    "vm": state.name(),
                    "client": plain(out.peer_addr()?),
                    "server": plain(out.local_addr()?),
                })
            ),
        ),
        ("GET", "/stats") => (200, format!("{}\n", state.stats())),
        ("GET", "/seen") => (200, format!("{}\n", state.seen.all())),
        ("POST", path) if path.starts_with("/control/") => match control(state, &path["/control/".len()..]) {
            Ok(()) => (200, "ok\n".into()),
            Err(e) => (400, format!("{e:#}\n")),
        },
        _ => (404, "no such page\n".into()),
    };
    io::copy(&mut body, &mut io::sink())?;
    answer(state, request, out, status, &text)
}

/// An address as text; IPv4 without the mapped form that a dual-stack socket reports.
fn plain(addr: SocketAddr) -> String {
    SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string()
}

/// `service-time/MS`, `slots/N`, `stop/PORT`, `start/PORT`, `announce`, `dirty/MB_A_SECOND`,
/// `sysctl/PATH=VALUE`, `forget` (the numbers of datagrams).
pub fn control(state: &State, verb: &str) -> anyhow::Result<()> {
    let (verb, argument) = verb.split_once('/').unwrap_or((verb, ""));
    let service = || -> anyhow::Result<_> {
        state.service(argument.parse()?).ok_or_else(|| anyhow::anyhow!("no service on port {argument}"))
    };
    match verb {
        "service-time" => state.set_service_ms(argument.parse()?),
        "slots" => state.set_slots(argument.parse()?),
        "stop" => service()?.stop(),
        "start" => service()?.listen()?,
        "announce" => super::announce::announce(&state.params)?,
        "forget" => state.seen.forget(),
        "dirty" => super::dirty::set(argument.parse()?)?,
        "sysctl" => {
            let (key, value) =
                argument.split_once('=').ok_or_else(|| anyhow::anyhow!("PATH=VALUE expected"))?;
            super::net::sysctl(key, value)?;
        }
        _ => anyhow::bail!("unknown verb {verb}"),
    }
    Ok(())
}

fn answer(state: &State, request: &Request, out: &mut TcpStream, status: u16, text: &str) -> io::Result<()> {
    let mut whole = head_text(state, request, status, text.len() as u64);
    whole.push_str(text);
    out.write_all(whole.as_bytes())
}

fn head(state: &State, request: &Request, out: &mut TcpStream, status: u16, length: u64) -> io::Result<()> {
    out.write_all(head_text(state, request, status, length).as_bytes())
}

fn head_text(state: &State, request: &Request, status: u16, length: u64) -> String {
    let reason = match status {
        200 => "OK",
        404 => "Not Found",
        _ => "Bad Request",
    };
    let close = if request.keep_alive { "" } else { "Connection: close\r\n" };
    format!("HTTP/1.1 {status} {reason}\r\nX-VM: {}\r\nContent-Length: {length}\r\n{close}\r\n", state.name())
}

fn stream_pattern(n: u64, out: &mut TcpStream) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut done = 0;
    while done < n {
        let part = (n - done).min(CHUNK as u64) as usize;
        pattern::fill(done, &mut buf[..part]);
        out.write_all(&buf[..part])?;
        done += part as u64;
    }
    Ok(())
}

/// Reads a request up to its empty line; `None` when the client closed the connection between requests.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut limited = input.take(MAX_HEAD);
    let mut line = String::new();
    if limited.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(bad());
    };
    let mut request = Request {
        method: method.into(),
        path: path.into(),
        body: 0,
        keep_alive: version != "HTTP/1.0",
        expects_continue: false,
        service_ms: None,
    };
    loop {
        line.clear();
        if limited.read_line(&mut line)? == 0 {
            return Err(bad());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return if line.trim_end().is_empty() { Ok(Some(request)) } else { Err(bad()) };
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => request.body = value.parse().map_err(|_| bad())?,
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "connection" if value.eq_ignore_ascii_case("keep-alive") => request.keep_alive = true,
            "expect" => request.expects_continue = true,
            "x-service-time-ms" => request.service_ms = Some(value.parse().map_err(|_| bad())?),
            // Only bodies of known length are read; misreading a chunked one would garble what follows.
            "transfer-encoding" => return Err(bad()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_parsed() {
        let text =
            b"PUT /sha256 HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nX-Service-Time-Ms: 5\r\n\r\nabcdefg";
        let mut input = &text[..];
        let request = read_head(&mut input).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/sha256"));
        assert_eq!((request.body, request.keep_alive, request.service_ms), (7, true, Some(5)));
        assert_eq!(input, b"abcdefg");
        assert!(read_head(&mut &b""[..]).unwrap().is_none());
        for bad in
            [&b"GET /\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nnonsense\r\n\r\n"]
        {
            assert!(read_head(&mut &bad[..]).is_err());
        }
    }
}
