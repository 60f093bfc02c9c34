//! Walks from a configuration file over the files that it calls (CF-27 to CF-30).
//!
//! The walk is the same for a client, which reads the files, and for the server, which has only what was sent: both give
//! a function that fetches a file by its name. Every file is fetched and checked once, however often it is called.

use crate::file::{Own, read_own};
use crate::load::MAX_FILE_BYTES;
use crate::position::{Source, printable};
use flipside_model::{Problem, ProblemCode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The longest chain of files that call each other, the first included (security checklist 18).
pub const MAX_DEPTH: usize = 8;

/// The most files of one configuration, the first included (security checklist 18).
pub const MAX_FILES: usize = 64;

/// Why a child could not be fetched: a sentence's end, such as `does not exist`, and a deeper cause.
pub(crate) struct Unfetched {
    pub(crate) why: String,
    pub(crate) cause: Option<String>,
}

/// Fetches the text of a child; the number is how many bytes it may have.
pub(crate) type Fetch<'a> = &'a mut dyn FnMut(&str, usize) -> Result<String, Unfetched>;

/// One file of a configuration.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) own: Own,
    /// The files that lead to it, itself last; the first way that was found.
    pub(crate) chain: Vec<String>,
    /// Places of its enabled children in the list, in their order.
    pub(crate) calls: Vec<usize>,
    /// How many files the longest chain below it has, itself included.
    height: usize,
}

impl Node {
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            path: &self.path,
            text: &self.text,
        }
    }
}

/// Returns all files, every child before the files that call it: the first file is the last one.
pub(crate) fn walk(path: &Path, text: &str, fetch: Fetch<'_>) -> Result<Vec<Node>, Problem> {
    let name = path.file_name().map_or_else(
        || path.to_string_lossy().into_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut walk = Walk {
        path,
        fetch,
        nodes: Vec::new(),
        known: BTreeMap::new(),
        begun: 1,
        bytes: text.len(),
    };
    walk.visit(vec![name], text.to_owned())?;
    Ok(walk.nodes)
}

struct Walk<'a> {
    path: &'a Path,
    fetch: Fetch<'a>,
    nodes: Vec<Node>,
    known: BTreeMap<String, usize>,
    begun: usize,
    bytes: usize,
}

/// Writes a chain as messages show it.
fn shown(chain: &[String]) -> String {
    printable(&chain.join(" → "))
}

impl Walk<'_> {
    /// Reads a file, then everything below it. The depth of the recursion is at most [`MAX_DEPTH`].
    fn visit(&mut self, chain: Vec<String>, text: String) -> Result<usize, Problem> {
        let name = chain.last().cloned().unwrap_or_default();
        let path = match chain.len() {
            1 => self.path.to_owned(),
            _ => self.path.with_file_name(&name),
        };
        let source = Source {
            path: &path,
            text: &text,
        };
        let own = read_own(source).map_err(|mut problem| {
            if chain.len() > 1 {
                problem
                    .causes
                    .push(format!("it is called by {}", shown(&chain)));
            }
            problem
        })?;
        let (mut calls, mut height) = (Vec::new(), 1);
        for child in own.children.iter().filter(|c| c.value.enabled) {
            let mut longer = chain.clone();
            longer.push(child.value.file.clone());
            let refuse = |message: String| source.refuse(child.span.clone(), message);
            let at = self.child(&longer, &refuse)?;
            if chain.len() + self.nodes[at].height > MAX_DEPTH {
                return Err(refuse(format!(
                    "{}: more than {MAX_DEPTH} files call each other in a row",
                    shown(&longer)
                )));
            }
            height = height.max(1 + self.nodes[at].height);
            calls.push(at);
        }
        let at = self.nodes.len();
        self.known.insert(name.clone(), at);
        self.nodes.push(Node {
            name,
            path,
            text,
            own,
            chain,
            calls,
            height,
        });
        Ok(at)
    }

    fn child(
        &mut self,
        chain: &[String],
        refuse: &dyn Fn(String) -> Problem,
    ) -> Result<usize, Problem> {
        let Some((name, callers)) = chain.split_last() else {
            return Err(Problem::new(
                ProblemCode::Internal,
                "an empty chain of files",
            ));
        };
        if callers.contains(name) {
            let message = format!("{}: the files call each other in a circle", shown(chain));
            return Err(refuse(message).advise(format!("take `{name}` out of `children` here")));
        }
        if let Some(at) = self.known.get(name) {
            return Ok(*at);
        }
        if chain.len() > MAX_DEPTH {
            return Err(refuse(format!(
                "{}: more than {MAX_DEPTH} files call each other in a row",
                shown(chain)
            )));
        }
        if self.begun == MAX_FILES {
            return Err(refuse(format!(
                "{}: the configuration has more than {MAX_FILES} files",
                shown(chain)
            )));
        }
        self.begun += 1;
        let left = MAX_FILE_BYTES.saturating_sub(self.bytes);
        let too_large = || {
            refuse(format!(
                "{}: the files have more than {MAX_FILE_BYTES} bytes together",
                shown(chain)
            ))
        };
        let text = (self.fetch)(name, left).map_err(|unfetched| {
            let mut problem = refuse(format!("{}: `{name}` {}", shown(chain), unfetched.why)).advise(
                "a child is a file in the directory of the file that calls it; put it there, or take it out of `children`",
            );
            problem.causes.extend(unfetched.cause);
            problem
        })?;
        if text.len() > left {
            return Err(too_large());
        }
        self.bytes += text.len();
        self.visit(chain.to_vec(), text)
    }
}
