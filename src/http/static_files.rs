//! Static files of an HTTP listener: the files below one folder, and nothing else.
//!
//! A request passes three checks. [`relative_path`] reads the path as it was sent, and refuses a path that can be read in two ways.
//! [`may_be_served`] refuses names that are not for clients: PHP, configurations, and names that begin with a dot. [`Folder`] opens
//! the file, asks the kernel for its real path, and runs the second check on that path. So a symbolic link leads neither out of the
//! folder nor to a refused name. All three answer 404, so that clients do not learn which files exist.
//!
//! tower-http's `ServeDir` does the rest with files that this module has opened: content types, conditional requests, ranges,
//! `index.html`, and reading in pieces away from the runtime's threads.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::{self, ErrorKind, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::ServeDir;
use tower_http::services::fs::{self as tower_fs, Backend, ServeFileSystemResponseBody};
use tracing::{debug, error};

use super::body::{AnyBody, whole};
use super::{FullBody, is_read, plain};

/// Bytes read, and then sent, at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A folder whose files are served.
#[derive(Clone, Debug)]
pub(super) struct StaticFiles {
    folder: Folder,
}

impl StaticFiles {
    /// `root` is canonical: the kernel's path of a file inside begins with it.
    pub(super) fn new(root: &Path) -> Self {
        Self { folder: Folder { root: root.into() } }
    }

    /// Answers a request that no route took.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        if !is_read(request.method()) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "files take only GET and HEAD");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response.map(whole);
        }
        if relative_path(request.uri().path()).is_none_or(|path| !may_be_served(&path)) {
            return nothing_here();
        }
        match self.serve(request).await {
            Ok(response) => finish(response),
            Err(error) if tells_nothing(&error) => nothing_here(),
            Err(error) => {
                error!(%error, root = %self.folder.root.display(), "static file cannot be read");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "this file cannot be read").map(whole)
            }
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> io::Result<Response<ServeFileSystemResponseBody>> {
        let (mut parts, _) = request.into_parts();
        if parts.headers.contains_key(header::IF_RANGE) {
            // ServeDir ignores `If-Range`, and would send a range of the new file to a client that holds a range of the old one.
            // The whole file is always a right answer (RFC 9110 section 13.1.5).
            parts.headers.remove(header::RANGE);
        }
        let mut files = ServeDir::with_backend("", self.folder.clone())
            .with_buf_chunk_size(CHUNK_BYTES)
            .ignore_multi_range_requests(true);
        files.try_call(Request::from_parts(parts, FullBody::default())).await
    }
}

/// Adds the headers that ServeDir does not set.
fn finish(response: Response<ServeFileSystemResponseBody>) -> Response<AnyBody> {
    if response.status() == StatusCode::NOT_FOUND {
        return nothing_here();
    }
    let mut response = response.map(|body| Either::Right(Either::Left(body)));
    let headers = response.headers_mut();
    // A changed file is noticed at the next load. An unchanged one costs a 304.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A browser must not treat a text that looks like a page as one.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok())
        && text.starts_with("text/")
        && !text.contains("charset")
    {
        let with_charset = HeaderValue::from_str(&format!("{text}; charset=utf-8")).expect("it was a header's value");
        headers.insert(header::CONTENT_TYPE, with_charset);
    }
    response
}

fn nothing_here() -> Response<AnyBody> {
    plain(StatusCode::NOT_FOUND, "nothing here").map(whole)
}

/// Errors that any client can cause with its request, so they are not logged.
fn tells_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
    ) || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO))
}

/// The path below the folder that a request names, if it can be read in only one way.
fn relative_path(path: &str) -> Option<PathBuf> {
    let path = path.strip_prefix('/')?;
    // The path of a folder may end with an empty segment. Other empty segments are refused.
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(PathBuf::new());
    }
    path.split('/').map(decoded_segment).collect()
}

/// Decodes one segment. It must be a name, and not a piece of a path.
fn decoded_segment(segment: &str) -> Option<String> {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = segment.as_bytes();
    let is_encoded_well = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte != b'%' || is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2)));
    let name = percent_decode_str(segment).decode_utf8().ok().filter(|_| is_encoded_well)?;
    // Encoded slashes and backslashes are separators to some programs and letters to others.
    let is_step = name.is_empty() || name == "." || name == "..";
    let is_name = !is_step && !name.contains(['/', '\\']) && !name.contains(char::is_control);
    is_name.then(|| name.into_owned())
}

/// True if no segment is hidden, PHP or a configuration.
fn may_be_served(path: &Path) -> bool {
    path.components().all(|component| match component {
        Component::Normal(name) => name.to_str().is_some_and(|name| !name.starts_with('.') && !is_kept_back(name)),
        Component::CurDir => true,
        Component::Prefix(_) | Component::RootDir | Component::ParentDir => false,
    })
}

/// True for a script, for a configuration of Longwire, and for a copy of one that an editor or a person left behind: `handler.php`,
/// `handler.php~`, `longwire.toml.bak`. `longwire dev DIR` serves the folder in which the configuration may lie, with its secrets.
fn is_kept_back(name: &str) -> bool {
    let name = name.trim_end_matches(['~', '.', ' ']).to_ascii_lowercase();
    let is_inc = name.ends_with(".inc");
    let is_such = |piece: &str| piece.starts_with("php") || ["phtml", "phar", "pht", "toml"].contains(&piece);
    is_inc || name.split('.').skip(1).any(is_such)
}

/// Opens files for `ServeDir`.
#[derive(Clone, Debug)]
struct Folder {
    root: Arc<Path>,
}

impl Folder {
    /// Opens a file or folder. Refuses anything else, and paths that lie outside or may not be served. Blocks.
    fn look(&self, path: &Path) -> io::Result<(fs::File, fs::Metadata)> {
        let file = OpenOptions::new()
            .read(true)
            // Opening a pipe without a writer would block the thread for good.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.root.join(path))?;
        let metadata = file.metadata()?;
        // The file that was opened, wherever the path leads by now.
        let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let is_inside = place.strip_prefix(&self.root).is_ok_and(may_be_served);
        if is_inside && (metadata.is_file() || metadata.is_dir()) {
            return Ok((file, metadata));
        }
        debug!(path = %path.display(), place = %place.display(), "static file is kept back");
        Err(ErrorKind::NotFound.into())
    }

    fn in_background<T: Send + 'static>(&self, path: PathBuf, then: Then<T>) -> Pending<T> {
        let folder = self.clone();
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || folder.look(&path).and_then(then)).await;
            // The runtime refuses work while it shuts down.
            looked.unwrap_or_else(|_| Err(ErrorKind::NotFound.into()))
        })
    }
}

type Then<T> = fn((fs::File, fs::Metadata)) -> io::Result<T>;
type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Backend for Folder {
    type File = OpenFile;
    type Metadata = fs::Metadata;
    type OpenFuture = Pending<OpenFile>;
    type MetadataFuture = Pending<fs::Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        self.in_background(path, |(file, metadata)| {
            if metadata.is_dir() {
                return Err(ErrorKind::NotFound.into());
            }
            Ok(OpenFile { file: tokio::fs::File::from_std(file), metadata })
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        self.in_background(path, |(_, metadata)| Ok(metadata))
    }
}

/// A file that may be served.
struct OpenFile {
    file: tokio::fs::File,
    metadata: fs::Metadata,
}

impl tower_fs::File for OpenFile {
    type Metadata = fs::Metadata;
    type MetadataFuture<'a> = std::future::Ready<io::Result<fs::Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.metadata.clone()))
    }
}

impl AsyncRead for OpenFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_can_be_read_in_two_ways_are_none() {
        let cases = [
            ("/", Some("")),
            ("/a", Some("a")),
            ("/a/b.css", Some("a/b.css")),
            ("/a/", Some("a")),
            ("/gr%C3%BC%c3%9fe%20dich.txt", Some("grüße dich.txt")),
            ("/a%25b", Some("a%b")),
            ("", None),
            ("*", None),
            ("a", None),
            ("//a", None),
            ("/a//b", None),
            ("/a//", None),
            ("/.", None),
            ("/a/%2e%2E/b", None),
            ("/a%2fb", None),
            ("/a%5cb", None),
            ("/a\\b", None),
            ("/a%00.txt", None),
            ("/a%0ab", None),
            ("/%ff", None),
            ("/a%", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("/%u002e", None),
        ];
        for (path, expected) in cases {
            assert_eq!(relative_path(path), expected.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn php_and_hidden_names_are_kept_back() {
        for name in ["index.html", "a.b/c.css", "php", "php-logo.png", "about-php.txt", "x.inc.txt", "include/a.js", ""]
        {
            assert!(may_be_served(Path::new(name)), "{name}");
        }
        for name in [
            "handler.php",
            "HANDLER.PHP",
            "a.php5",
            "a.phtml",
            "a.PhAr",
            "a.pht",
            "a.phps",
            "a.inc",
            "a.INC",
            "a.php~",
            "a.php.bak",
            "a.php.",
            "a.inc~",
            "x.php/style.css",
            ".env",
            ".git/config",
            "a/.htaccess",
            "a/../b",
            "..",
            "...",
            "/etc/passwd",
        ] {
            assert!(!may_be_served(Path::new(name)), "{name}");
        }
    }
}
