//! Downloads that are verified, resumed after an interruption, and appear only when complete.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use md5::Md5;
use sha2::Sha256;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, Uri, header},
};

use crate::{digest::hex, progress::LoadProgress};

/// Maximum size of a download: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;

/// Number of requests for one file before giving up; each resumes where the previous one stopped.
const ATTEMPTS: usize = 4;

/// Maximum number of redirects per request.
const MAX_REDIRECTS: usize = 5;

/// Timeout for name resolution. Together with [`CONNECT_TIMEOUT`] it limits the wait on a machine without a
/// network.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Timeout for connecting, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time without a byte from a connected server.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The expected checksum of a file, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// MD5, for files whose authors publish no other. It protects against accidents; https protects against
    /// attackers.
    Md5(String),
    /// SHA-256.
    Sha256(String),
}

impl Digest {
    /// Checks a file.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Digest`] if the digest differs, [`DownloadError::Io`] if the file cannot be read.
    pub fn check(&self, path: &Path) -> Result<(), DownloadError> {
        let (found, expected) = match self {
            Self::Md5(expected) => (file_digest::<Md5>(path), expected),
            Self::Sha256(expected) => (file_digest::<Sha256>(path), expected),
        };
        let found = found.map_err(DownloadError::io("read", path))?;
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(DownloadError::Digest { path: path.into(), expected: self.to_string(), found })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(digest) => write!(f, "MD5 {digest}"),
            Self::Sha256(digest) => write!(f, "SHA-256 {digest}"),
        }
    }
}

fn file_digest<D: md5::Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = D::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// An address that is neither https nor http on this machine.
    #[error("refused to download from {url}: only https addresses are allowed")]
    Insecure {
        /// The address.
        url: String,
    },

    /// The server did not respond.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// The network's error.
        reason: String,
    },

    /// The server responded with something other than the file.
    #[error("{url} responded with {status} instead of the file")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: String,
    },

    /// A redirect without an address, or too many of them.
    #[error("{url} redirects {problem}")]
    Redirect {
        /// The address.
        url: String,
        /// What is wrong with the redirect.
        problem: &'static str,
    },

    /// The file is larger than [`MAX_BYTES`].
    #[error("refused to download {url}: it is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge {
        /// The address.
        url: String,
    },

    /// The connection was interrupted on every attempt.
    #[error(
        "the download of {url} was interrupted after {received} bytes ({reason}); they are kept in {}: start \
         again to resume",
        part.display()
    )]
    Cut {
        /// The address.
        url: String,
        /// Bytes received so far.
        received: u64,
        /// The file that contains them.
        part: PathBuf,
        /// The network's error.
        reason: String,
    },

    /// Another process is downloading the file.
    #[error("another process is downloading to {}: wait until it finishes", part.display())]
    Locked {
        /// The file being written.
        part: PathBuf,
    },

    /// A file on disk has the wrong digest.
    #[error(
        "{} is not the expected file: expected {expected}, found {found}; delete it to download it again",
        path.display()
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// Kind and value of the checksum it should have.
        expected: String,
        /// The value it has.
        found: String,
    },

    /// The downloaded file has the wrong digest.
    #[error(
        "{url} sent a file other than the expected one: expected {expected}, found {found}; it was deleted, start \
         again to download it again"
    )]
    WrongFile {
        /// The address.
        url: String,
        /// Kind and value of the checksum it should have.
        expected: String,
        /// The value it has.
        found: String,
    },

    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb: `read`, `create`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl DownloadError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// Downloads `url` to `destination`, which appears only when it is complete and has the right digest.
///
/// The bytes go to `<destination>.part`, which is kept if the connection is interrupted; the next attempt, in this
/// call or a later one, requests only the rest. Addresses must be https, including those of redirects; http is
/// allowed only on this machine. An existing destination is not changed.
///
/// # Errors
///
/// Any [`DownloadError`]. Without a network it is returned in less than 10 seconds.
pub fn download(
    url: &str,
    digest: &Digest,
    destination: &Path,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), DownloadError> {
    check_address(url, false)?;
    let folder = destination.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(DownloadError::io("create", folder))?;
    let mut part_name = destination.as_os_str().to_owned();
    part_name.push(".part");
    let part = PathBuf::from(part_name);

    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&part)
        .map_err(DownloadError::io("create", &part))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => DownloadError::Locked { part: part.clone() },
        TryLockError::Error(source) => DownloadError::io("lock", &part)(source),
    })?;
    // Another process may have finished the download before this one got the lock.
    if destination.exists() {
        return Ok(());
    }

    if let Err(error) = fetch(url, &mut file, &part, progress) {
        // There is nothing to resume from: leave no file. A failure here is not worth another error.
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(&part);
        }
        return Err(error);
    }
    file.sync_all().map_err(DownloadError::io("write", &part))?;
    if let Err(error) = digest.check(&part) {
        let DownloadError::Digest { expected, found, .. } = error else { return Err(error) };
        fs::remove_file(&part).map_err(DownloadError::io("remove", &part))?;
        return Err(DownloadError::WrongFile { url: url.into(), expected, found });
    }
    fs::rename(&part, destination).map_err(DownloadError::io("create", destination))?;
    sync_folder(folder).map_err(DownloadError::io("write", folder))
}

/// Syncs a folder, so that created and renamed files survive a power failure.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open folders as files, and writes such changes to disk by itself.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Completes `file`, with up to [`ATTEMPTS`] requests.
fn fetch(url: &str, file: &mut File, part: &Path, progress: &mut dyn FnMut(LoadProgress)) -> Result<(), DownloadError> {
    let mut reason = String::new();
    for _ in 0..ATTEMPTS {
        let received = file.seek(SeekFrom::End(0)).map_err(DownloadError::io("read", part))?;
        let response = request(url, received)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if continues_at(&response, received) => {}
            // The whole file, even if only the rest was requested.
            StatusCode::OK => restart(file).map_err(DownloadError::io("write", part))?,
            // The partial file does not match the file on the server.
            status @ (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) if received > 0 => {
                restart(file).map_err(DownloadError::io("write", part))?;
                reason = format!("the server responded with {status} to a request to resume at byte {received}");
                continue;
            }
            status => return Err(DownloadError::Status { url: url.into(), status: status.to_string() }),
        }
        match copy(url, response, file, part, progress)? {
            Outcome::Complete => return Ok(()),
            Outcome::Cut(why) => reason = why,
        }
    }
    let received = file.metadata().map_err(DownloadError::io("read", part))?.len();
    Err(DownloadError::Cut { url: url.into(), received, part: part.into(), reason })
}

fn restart(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()
}

/// Whether a response is the rest of the file from byte `received` on.
fn continues_at(response: &Response<Body>, received: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {received}-")))
}

/// How the transfer of a body ended.
enum Outcome {
    Complete,
    Cut(String),
}

/// Appends a response's body to `file`.
fn copy(
    url: &str,
    response: Response<Body>,
    file: &mut File,
    part: &Path,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<Outcome, DownloadError> {
    let too_large = || DownloadError::TooLarge { url: url.into() };
    let mut received = file.stream_position().map_err(DownloadError::io("read", part))?;
    let total = response.body().content_length().map(|rest| received.saturating_add(rest));
    if total.is_some_and(|total| total > MAX_BYTES) {
        return Err(too_large());
    }
    progress(LoadProgress::Downloading { received, total });
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = match body.read(&mut buffer) {
            Ok(0) if total.is_some_and(|total| received < total) => {
                return Ok(Outcome::Cut("the server closed the connection".into()));
            }
            Ok(0) => return Ok(Outcome::Complete),
            Ok(length) => length,
            Err(error) => return Ok(Outcome::Cut(error.to_string())),
        };
        received += length as u64;
        if received > MAX_BYTES {
            return Err(too_large());
        }
        file.write_all(&buffer[..length]).map_err(DownloadError::io("write", part))?;
        progress(LoadProgress::Downloading { received, total });
    }
}

/// Requests `url` from byte `received` on. Redirects are followed here, not by the client, so that each address is
/// checked.
fn request(url: &str, received: u64) -> Result<Response<Body>, DownloadError> {
    let mut address = url.to_string();
    let mut secure = false;
    for _ in 0..=MAX_REDIRECTS {
        let uri = check_address(&address, secure)?;
        // After https, http is not allowed, not even on this machine.
        secure = uri.scheme_str() == Some("https");
        // The digest is of the bytes as stored on the server.
        let mut request = client(secure).get(&address).header(header::ACCEPT_ENCODING, "identity");
        if received > 0 {
            request = request.header(header::RANGE, format!("bytes={received}-"));
        }
        let response = request.call().map_err(|error| {
            let reason = match error {
                ureq::Error::Io(error) => error.to_string(),
                error => error.to_string(),
            };
            DownloadError::Unreachable { url: address.clone(), reason }
        })?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        address = match location {
            Some(absolute) if absolute.contains("://") => absolute.into(),
            Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                format!("{}://{authority}{path}", uri.scheme_str().unwrap_or("https"))
            }
            _ => return Err(DownloadError::Redirect { url: address, problem: "without an address" }),
        };
    }
    Err(DownloadError::Redirect { url: url.into(), problem: "too many times" })
}

/// Refuses every address except https and, unless `secure`, http on this machine.
fn check_address(url: &str, secure: bool) -> Result<Uri, DownloadError> {
    let insecure = || DownloadError::Insecure { url: url.into() };
    let uri: Uri = url.parse().map_err(|_| insecure())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if local && !secure => Ok(uri),
        _ => Err(insecure()),
    }
}

fn client(secure: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(RESOLVE_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(STALL_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT));
    // http is only for this machine, so it never uses a proxy.
    if secure { config.build().into() } else { config.proxy(None).build().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_this_machine_are_addresses() {
        for url in ["https://example.com/a", "http://127.0.0.1:80/a", "http://localhost/a", "http://[::1]:8080/a"] {
            assert!(check_address(url, false).is_ok(), "{url}");
        }
        for url in [
            "http://example.com/a",
            "http://localhost.example.com/a",
            "http://127.0.0.1.example.com/a",
            "ftp://localhost/a",
            "file:///etc/passwd",
            "/a",
            "",
            "https:///a",
        ] {
            assert!(check_address(url, false).is_err(), "{url}");
        }
        assert!(check_address("http://localhost/a", true).is_err());
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        Digest::Md5("900150983CD24FB0D6963F7D28E17F72".into()).check(&path).unwrap();
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        Digest::Sha256(sha256.into()).check(&path).unwrap();
        let error = Digest::Sha256("00".into()).check(&path).unwrap_err();
        assert!(error.to_string().contains("SHA-256 00"), "{error}");
    }
}
