//! `flipside copy`.

use super::SideArg;
use crate::client::{checked, request, stream_body};
use crate::context::Context;
use crate::failure::Failure;
use crate::live::Live;
use crate::url;
use bytes::Bytes;
use flipside_activity::size;
use flipside_model::api::Copied;
use flipside_model::{Problem, ProblemCode, Progress, SystemName};
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Large enough to be fast, small enough for a smooth display.
const CHUNK_BYTES: usize = 256 << 10;

/// How often the display is brought up to date.
const SHOW_EVERY: Duration = Duration::from_millis(200);

const LONG: &str = "\
Copies a file into a system: before the split (then both sides have it), or to a side.

PATH is absolute; a path that ends with `/` gets the name of the file. `-` reads standard input. Without --side it \
goes to the running system, or in Split to the Upgrade Side.";

const EXAMPLES: &str = "\
Examples:
  flipside copy packages.tar web:/var/tmp/
  flipside copy app.deb web:/var/tmp/app.deb --side upgrade
  tar c conf | flipside copy - web:/var/tmp/conf.tar";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// File to copy, or `-` for standard input
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: `SYSTEM:PATH`, or `:PATH` when there is one system
    #[arg(value_name = "SYSTEM:PATH")]
    target: String,
    /// Side
    #[arg(long)]
    side: Option<SideArg>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Failure> {
    let (system, path) = target(&args.target, &args.source)?;
    // The file is opened first: nothing is asked of the server for one that cannot be read.
    let (reader, total): (Box<dyn AsyncRead + Send + Sync + Unpin>, Option<u64>) =
        if args.source == "-" {
            (Box::new(tokio::io::stdin()), None)
        } else {
            let (file, size) = open(Path::new(&args.source)).await?;
            (Box::new(file.take(size)), Some(size))
        };
    let system = ctx.system(system.as_ref()).await?;
    let mut uri = format!("/v1/systems/{system}/file");
    if let Some(side) = args.side {
        url::add(&mut uri, "side", side.query());
    }
    url::add(&mut uri, "path", &path);

    let done = Arc::new(AtomicU64::new(0));
    let mut put = request(
        Method::PUT,
        &uri,
        stream_body(chunks(reader, Arc::clone(&done))),
    )?;
    put.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if let Some(total) = total {
        put.headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(total));
    }
    let live = Live::new(ctx.json, ctx.color);
    let began = Instant::now();
    let sending = ctx.client.send(put);
    tokio::pin!(sending);
    let response = loop {
        tokio::select! {
            response = &mut sending => break response?,
            () = tokio::time::sleep(SHOW_EVERY) => {
                live.progress(&progress(&args.source, done.load(Ordering::Relaxed), total, began));
            }
        }
    };
    let body = checked(response).await?;
    let bytes = body
        .collect()
        .await
        .map_err(|error| Failure::failed(format!("the server's answer was lost: {error}")))?;
    let copied: Copied = serde_json::from_slice(&bytes.to_bytes()).map_err(|error| {
        Failure::failed(format!("the server's answer is not understood: {error}"))
    })?;
    drop(live);
    if total.is_some_and(|total| total != copied.bytes) {
        return Err(Failure::failed(format!(
            "only {} bytes of `{}` arrived",
            copied.bytes, args.source
        )));
    }
    if ctx.json {
        return ctx.object(&copied);
    }
    ctx.line(&format!("{} copied to {system}:{path}", size(copied.bytes)))
}

async fn open(source: &Path) -> Result<(tokio::fs::File, u64), Failure> {
    let shown = source.display();
    let cannot = |error: std::io::Error| {
        Failure::from(
            Problem::new(ProblemCode::Usage, format!("`{shown}` cannot be read")).because(&error),
        )
    };
    let meta = tokio::fs::metadata(source).await.map_err(cannot)?;
    if !meta.is_file() {
        return Err(Failure::usage(format!("`{shown}` is not a regular file"))
            .advise("pack a directory first: `tar c DIR | flipside copy - SYSTEM:PATH`"));
    }
    let file = tokio::fs::File::open(source).await.map_err(cannot)?;
    Ok((file, meta.len()))
}

fn target(given: &str, source: &str) -> Result<(Option<SystemName>, String), Failure> {
    let (system, path) = given.split_once(':').ok_or_else(|| {
        Failure::usage(format!("`{given}` names no path in a system"))
            .advise("write `SYSTEM:PATH`, such as `web:/var/tmp/`")
    })?;
    let system = match system {
        "" => None,
        name => Some(SystemName::new(name).map_err(|error| Failure::usage(error.to_string()))?),
    };
    if !path.starts_with('/') {
        return Err(Failure::usage(format!("`{path}` is not an absolute path")));
    }
    let mut path = path.to_owned();
    if path.ends_with('/') {
        let name = Path::new(source)
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|_| source != "-");
        path.push_str(name.ok_or_else(|| {
            Failure::usage(format!("`{path}` is a directory: name the file in it"))
        })?);
    }
    Ok((system, path))
}

fn chunks<R>(
    reader: R,
    done: Arc<AtomicU64>,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Sync
where
    R: AsyncRead + Send + Sync + Unpin,
{
    futures_util::stream::try_unfold((reader, done), |(mut reader, done)| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = reader.read(&mut chunk).await?;
        if read == 0 {
            return Ok(None);
        }
        chunk.truncate(read);
        done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(Some((Bytes::from(chunk), (reader, done))))
    })
}

fn progress(what: &str, done: u64, total: Option<u64>, began: Instant) -> Progress {
    let rate = (done as f64 / began.elapsed().as_secs_f64().max(0.001)) as u64;
    let total_bytes = total.unwrap_or(done);
    Progress {
        what: what.to_owned(),
        done_bytes: done,
        total_bytes,
        rate,
        left_seconds: (rate > 0).then(|| total_bytes.saturating_sub(done) / rate),
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_target_names_a_system_and_an_absolute_path() {
        let told = |given: &str, source: &str| {
            target(given, source)
                .map(|(system, path)| (system.map(|s| s.to_string()), path))
                .ok()
        };
        let web = Some("web".to_owned());
        assert_eq!(told("web:/a", "x"), Some((web.clone(), "/a".to_owned())));
        assert_eq!(
            told("web:/a/", "d/x.deb"),
            Some((web, "/a/x.deb".to_owned()))
        );
        assert_eq!(told(":/a:b", "x"), Some((None, "/a:b".to_owned())));
        for bad in ["/a", "web:a", "web:", "we b:/a", "web:/a/"] {
            assert_eq!(told(bad, "-"), None, "{bad}");
        }
    }
}
