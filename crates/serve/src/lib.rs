//! Serves the folder of a web page on localhost, with the headers that let the page share memory between threads.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::percent_decode_str;
use socket2::SockRef;
use tiny_http::{Header, Method, Request, Response, ResponseBox, Server};

/// Browsers open six connections to a host.
const WORKERS: usize = 6;

/// What every answer carries. The second and third let the page share memory between threads.
const HEADERS: [(&str, &str); 7] = [
    ("Cache-Control", "no-cache"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
];

/// Folders of the repository that do not belong to the page: builds, runs and training images.
const PRIVATE: [&str; 3] = ["target", "runs", "data"];

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot open the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("there is no index.html in {}", .0.display())]
    NoIndex(PathBuf),
    #[error("port {0} is taken by another program")]
    PortTaken(u16),
    #[error("cannot listen on port {port}: {source}")]
    Listen { port: u16, source: io::Error },
    #[error("the server stopped: {0}")]
    Stopped(String),
}

/// A folder that this machine alone can reach over HTTP.
pub struct Site {
    root: Arc<PathBuf>,
    server: Arc<Server>,
    address: SocketAddr,
}

impl Site {
    /// Listens on a port of 127.0.0.1, 0 for a free one. Nothing is answered before [`serve`](Self::serve).
    ///
    /// # Errors
    /// If the folder has no `index.html`, or the port cannot be had.
    pub fn open(folder: &Path, port: u16) -> Result<Self, ServeError> {
        let root = fs::canonicalize(folder).map_err(|source| ServeError::Folder { path: folder.to_owned(), source })?;
        if !root.join("index.html").is_file() {
            return Err(ServeError::NoIndex(folder.to_owned()));
        }
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::AddrInUse => ServeError::PortTaken(port),
            _ => ServeError::Listen { port, source },
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        // Handed on to every connection. Without it, an answer's second packet waits 40 ms for the first to be acknowledged.
        SockRef::from(&listener).set_tcp_nodelay(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let server = Server::from_listener(listener, None).map_err(|error| ServeError::Stopped(error.to_string()))?;
        Ok(Self { root: Arc::new(root), server: Arc::new(server), address })
    }

    /// Where a browser finds it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Answers until `stop` says so; it is asked ten times a second.
    ///
    /// # Errors
    /// If the system takes the port away.
    pub fn serve(&self, stop: impl Fn() -> bool) -> Result<(), ServeError> {
        let (failed, failure) = mpsc::channel();
        for _ in 0..WORKERS {
            let (server, root, failed) = (self.server.clone(), self.root.clone(), failed.clone());
            std::thread::spawn(move || {
                loop {
                    match server.recv() {
                        Ok(request) => {
                            let answer = answer(&root, &request);
                            // A client that left before it got its answer needs none.
                            let _ = request.respond(answer);
                        }
                        Err(error) => {
                            // The main thread may have ended already.
                            let _ = failed.send(error);
                            return;
                        }
                    }
                }
            });
        }
        loop {
            match failure.recv_timeout(Duration::from_millis(100)) {
                Ok(error) => return Err(ServeError::Stopped(error.to_string())),
                Err(RecvTimeoutError::Disconnected) => return Err(ServeError::Stopped("its threads ended".to_owned())),
                Err(RecvTimeoutError::Timeout) if stop() => return Ok(()),
                // tiny_http 0.12 can queue two connections for one idle thread; the second then waits until some
                // connection closes, which browsers keep open. Another connection wakes or makes a thread, which
                // takes the one that waits.
                Err(RecvTimeoutError::Timeout) => drop(TcpStream::connect(self.address)),
            }
        }
    }
}

fn answer(root: &Path, request: &Request) -> ResponseBox {
    let values = |name: &'static str| {
        request.headers().iter().filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
    };
    // A page elsewhere whose name is pointed at 127.0.0.1 could read everything here (DNS rebinding).
    let mut hosts = values("Host");
    if !hosts.next().is_some_and(is_local) || hosts.next().is_some() {
        return text(403, "This server answers to localhost and 127.0.0.1 alone.");
    }
    if !matches!(request.method(), Method::Get | Method::Head) {
        return with_header(text(405, "Only GET and HEAD are answered."), "Allow", "GET, HEAD");
    }
    let Some(path) = resolve(root, request.url()) else { return not_found() };
    let Ok(file) = read(&path) else { return not_found() };
    let is_current = match values("If-None-Match").next() {
        Some(tags) => {
            tags.split(',').any(|tag| [file.tag.as_str(), "*"].contains(&tag.trim().trim_start_matches("W/")))
        }
        None => values("If-Modified-Since")
            .next()
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .is_some_and(|date| seconds(file.modified) <= seconds(date)),
    };
    // tiny_http sends no body with a 304, nor to HEAD.
    let mut response = respond(if is_current { 304 } else { 200 }, content_type(&path), file.bytes);
    response = with_header(response, "ETag", &file.tag);
    with_header(response, "Last-Modified", &httpdate::fmt_http_date(file.modified))
}

/// Whether a Host header names this machine as its own user would.
fn is_local(host: &str) -> bool {
    // An IPv6 address has colons of its own.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| local.eq_ignore_ascii_case(name))
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// The file that a request's target names, if it is there and meant to be seen.
fn resolve(root: &Path, target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let path = if path.is_empty() { "index.html" } else { &path };
    // Backslashes and colons mean something to Windows.
    if path.contains(['\\', ':', '\0']) || path.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return None;
    }
    // Links are followed as long as they stay within. Part by part, as a canonical path of Windows knows no slashes.
    let file = fs::canonicalize(root.join(path.split('/').collect::<PathBuf>())).ok()?;
    let inside = file.strip_prefix(root).ok()?;
    let mut parts = inside.components().map(|part| match part {
        Component::Normal(part) => part.to_str().filter(|part| !part.starts_with('.')),
        _ => None,
    });
    let first = parts.next()??;
    // Some file systems take no notice of case.
    let is_public = !PRIVATE.iter().any(|name| name.eq_ignore_ascii_case(first)) && parts.all(|part| part.is_some());
    (is_public && file.is_file()).then_some(file)
}

/// A file's contents at one moment.
struct Contents {
    bytes: Vec<u8>,
    modified: SystemTime,
    /// For the ETag header, with its quotes.
    tag: String,
}

/// Reads all of a file before anything is sent: one that is rebuilt meanwhile keeps the length it is announced with.
fn read(path: &Path) -> std::io::Result<Contents> {
    let mut file = File::open(path)?;
    let modified = file.metadata()?.modified()?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    let nanoseconds = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let tag = format!("\"{:x}-{nanoseconds:x}\"", bytes.len());
    Ok(Contents { bytes, modified, tag })
}

/// What HTTP's dates are exact to.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "txt" | "md" | "toml" | "wgsl" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn not_found() -> ResponseBox {
    text(404, "There is no such file.")
}

fn text(status: u16, text: &str) -> ResponseBox {
    respond(status, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
}

fn respond(status: u16, content_type: &str, body: Vec<u8>) -> ResponseBox {
    // Without the threshold, larger bodies would come in chunks, their length unknown to a progress bar.
    let response = Response::from_data(body).with_status_code(status).with_chunked_threshold(usize::MAX).boxed();
    let headers = HEADERS.into_iter().chain([("Content-Type", content_type)]);
    headers.fold(response, |response, (name, value)| with_header(response, name, value))
}

fn with_header(response: ResponseBox, name: &str, value: &str) -> ResponseBox {
    response.with_header(Header::from_bytes(name, value).expect("headers in ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// The page, with private files around it.
    fn site() -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let files =
            ["site/index.html", "site/web/app.js", "site/web/a b%.js", "site/target/kiln", "site/runs/quick/log"];
        let hidden = ["site/data/cat.png", "site/.git/config", "site/web/.env", "secret"];
        for name in files.iter().chain(&hidden) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, *name).unwrap();
        }
        let root = fs::canonicalize(folder.path().join("site")).unwrap();
        (folder, root)
    }

    #[test]
    fn the_pages_files_are_found() {
        let (_folder, root) = site();
        for (target, file) in [
            ("/", "index.html"),
            ("/index.html?v=2", "index.html"),
            ("/web/app.js", "web/app.js"),
            ("/web/%61pp.js", "web/app.js"),
            ("/web/a%20b%25.js", "web/a b%.js"),
        ] {
            assert_eq!(resolve(&root, target), Some(root.join(file)), "{target}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let (folder, root) = site();
        let absolute = format!("/{}", folder.path().join("secret").display());
        for target in [
            "",
            "*",
            "web/app.js",
            "http://127.0.0.1/web/app.js",
            "/web",
            "/web/",
            "/nothing",
            &absolute,
            "//etc/passwd",
            "/../secret",
            "/web/../../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/web/%2e%2e%2f..%2fsecret",
            "/..\\secret",
            "/..%5csecret",
            "/%252e%252e/secret",
            "/web/../index.html",
            "/./index.html",
            "/web//app.js",
            "/index.html%00",
            "/%00",
            "/%ff",
            "/C:/secret",
            "/index.html::$DATA",
            "/index.html/",
            "/index.html/x",
            "/.git/config",
            "/web/.env",
            "/%2egit/config",
            "/target/kiln",
            "/%74arget/kiln",
            "/Target/kiln",
            "/runs/quick/log",
            "/data/cat.png",
        ] {
            assert_eq!(resolve(&root, target), None, "{target}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_nowhere_else() {
        use std::os::unix::fs::symlink;
        let (folder, root) = site();
        for (link, to) in [
            ("inside.js", "web/app.js"),
            ("out", "../secret"),
            ("up", ".."),
            ("hidden", ".git/config"),
            ("built", "target/kiln"),
            ("loop", "loop"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        symlink(folder.path().join("secret"), root.join("absolute")).unwrap();
        assert_eq!(resolve(&root, "/inside.js"), Some(root.join("web/app.js")));
        for target in ["/out", "/up/secret", "/hidden", "/built", "/loop", "/absolute"] {
            assert_eq!(resolve(&root, target), None, "{target}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil.example:8000",
            "127.0.0.1.nip.io",
            "::1",
            "localhost:x",
            "[::1",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
