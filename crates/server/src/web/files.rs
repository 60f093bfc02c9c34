//! The files of the pages: read once into memory, so that no path of a request reaches the file system.

use super::Web;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tracing::{info, warn};

/// The console has some dozen files of some hundred KiB. A directory with more is not one of ours.
const MOST_FILES: usize = 256;
const MOST_BYTES: u64 = 16 << 20;

/// How deep folders may lie in each other.
const DEEPEST: usize = 4;

/// What is shown when the pages were not built or installed.
const MISSING: &str = include_str!("missing.html");

struct Page {
    bytes: axum::body::Bytes,
    kind: &'static str,
    tag: String,
}

/// All files by their path, such as `/assets/index.js`.
pub(crate) struct Files(BTreeMap<String, Page>);

fn kind(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "json" => "application/json",
        _ => return None,
    })
}

impl Files {
    /// Reads a directory. One that cannot be used is logged, and a page says what to do.
    pub(crate) fn load(directory: &Path) -> Self {
        let mut files = Self(BTreeMap::new());
        let mut left = MOST_BYTES;
        match files.add(directory, "", 0, &mut left) {
            Ok(()) if files.0.contains_key("/index.html") => {
                info!(directory = %directory.display(), files = files.0.len(), "the console's pages");
            }
            Ok(()) => {
                warn!(directory = %directory.display(), "there are no pages of the console here: `./dev console` builds them");
            }
            Err(error) => {
                warn!(directory = %directory.display(), %error, "the console's pages cannot be read: `./dev console` builds them");
                files.0.clear();
            }
        }
        files
    }

    fn add(
        &mut self,
        directory: &Path,
        prefix: &str,
        depth: usize,
        left: &mut u64,
    ) -> std::io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{prefix}/{name}");
            // Not followed: what a link points to is not ours to show.
            let found = entry.file_type()?;
            if found.is_dir() && depth < DEEPEST {
                self.add(&entry.path(), &path, depth + 1, left)?;
            }
            let Some(kind) = kind(&path).filter(|_| found.is_file()) else {
                continue;
            };
            let bytes = std::fs::read(entry.path())?;
            let size = bytes.len() as u64;
            if self.0.len() >= MOST_FILES || size > *left {
                return Err(std::io::Error::other("more files than the console has"));
            }
            *left -= size;
            let digest = Sha256::digest(&bytes);
            let short: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
            let page = Page {
                bytes: bytes.into(),
                kind,
                tag: format!("\"{short}\""),
            };
            self.0.insert(path, page);
        }
        Ok(())
    }
}

/// Answers with a file, or with the first page: its own script reads the rest of the address.
pub(super) async fn serve(State(web): State<Arc<Web>>, request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/") || path.starts_with("/console/") {
        return crate::routes::no_route().await.into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response();
    }
    if !web.files.0.contains_key("/index.html") {
        let html = [(CONTENT_TYPE, "text/html; charset=utf-8")];
        return (StatusCode::SERVICE_UNAVAILABLE, html, MISSING).into_response();
    }
    let found = web
        .files
        .0
        .get(if path == "/" { "/index.html" } else { path });
    let Some(page) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let known = request.headers().get(IF_NONE_MATCH);
    if known.is_some_and(|tag| tag.as_bytes() == page.tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    // What is in `assets` has its digest in its name.
    let cache = if path.starts_with("/assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = [
        (CONTENT_TYPE, page.kind.to_owned()),
        (CACHE_CONTROL, cache.to_owned()),
        (ETAG, page.tag.clone()),
    ];
    (headers, page.bytes.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_known_kinds_are_read_and_links_are_not() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("assets")).expect("made");
        std::fs::write(at("index.html"), "<!doctype html>").expect("written");
        std::fs::write(at("assets/a.js"), "1").expect("written");
        std::fs::write(at("secret"), "no").expect("written");
        std::os::unix::fs::symlink("/etc/hostname", at("link.html")).expect("linked");
        let files = Files::load(directory.path());
        let names: Vec<&str> = files.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["/assets/a.js", "/index.html"]);
    }
}
