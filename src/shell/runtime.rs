//! One background thread for all nodes of the process, and the task that drives a node there.

use std::net::IpAddr;
use std::sync::{Arc, Weak, mpsc};
use std::thread;

use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::node::{Next, Node};
use super::signals::Sleeper;
use crate::codes::Code;
use crate::peer::api::SideEffectAnswer;

/// Names that may be resolved at the same time in the process; more wait their turn. Each takes a thread while it runs.
const MAX_RESOLVING: usize = 4;

/// Tasks with a thread of their own that may run at the same time in the process, besides those that resolve names; more wait their turn. And one
/// thread for what they ask of the system meanwhile.
const MAX_THREADS: usize = 2;

/// Addresses of a name that are of use.
const MAX_RESOLVED: usize = 16;

struct Background {
    handle: Handle,
    /// The process that has the thread: threads do not survive a fork.
    process: u32,
    resolving: Semaphore,
    threads: Semaphore,
}

static BACKGROUND: OnceCell<Background> = OnceCell::new();

/// Starts the thread with its first use. It stays for the life of the process: an idle thread costs nothing, and no
/// code of the library must ever run in a thread that somebody else ends.
fn background() -> Result<&'static Background, Failure> {
    let background = BACKGROUND.get_or_try_init(start).map_err(|error: std::io::Error| {
        Failure::new(
            Code::OutOfResources,
            format!("the background thread could not be started: {error}"),
        )
    })?;
    if background.process != std::process::id() {
        return Err(Failure::new(
            Code::Unsupported,
            "this process was forked from one that already used the library; use it only after the fork, or exec",
        ));
    }
    Ok(background)
}

fn start() -> std::io::Result<Background> {
    let (send, receive) = mpsc::channel();
    thread::Builder::new().name("lanline".into()).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_RESOLVING + MAX_THREADS + 1)
            .build();
        match runtime {
            Ok(runtime) => {
                let _ = send.send(Ok(runtime.handle().clone()));
                runtime.block_on(std::future::pending::<()>());
            }
            Err(error) => {
                let _ = send.send(Err(error));
            }
        }
    })?;
    let handle = receive.recv().map_err(std::io::Error::other)??;
    Ok(Background {
        handle,
        process: std::process::id(),
        resolving: Semaphore::new(MAX_RESOLVING),
        threads: Semaphore::new(MAX_THREADS),
    })
}

/// Runs `open` inside the runtime, which sockets of some systems need.
///
/// # Errors
/// OUT_OF_RESOURCES, UNSUPPORTED (after a fork), and what `open` returns.
pub fn inside<R>(open: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    let _guard = background()?.handle.enter();
    open()
}

/// Begins to drive a node.
///
/// # Errors
/// As [`inside`].
pub fn run(node: Arc<Node>) -> Result<(), Failure> {
    background()?.handle.spawn(drive(node));
    Ok(())
}

/// The loop of a node: a turn, then sleep until there is something to do.
async fn drive(node: Arc<Node>) {
    match Sleeper::new(&node) {
        Ok(mut sleeper) => loop {
            match node.background_turn() {
                Next::Again => tokio::task::yield_now().await,
                Next::Sleep(until) => {
                    if let Err(error) = sleeper.sleep(&node, until).await {
                        node.fail(&format!("waiting for sockets failed: {error}"));
                    }
                }
                Next::Ended => break,
            }
        },
        Err(error) => node.fail(&format!("sockets could not be watched: {error}")),
    }
    node.background_ended();
}

/// Runs a task in the background; with `own_thread`, where it may compute for a while without holding up any node. False: there is no
/// background (the process was forked).
pub fn spawn(own_thread: bool, task: impl Future<Output = ()> + Send + 'static) -> bool {
    let Ok(background) = background() else { return false };
    if !own_thread {
        background.handle.spawn(task);
        return true;
    }
    background.handle.spawn(async move {
        let _permit = background.threads.acquire().await;
        // Its sockets and timers are the background thread's; a panic in it ends there.
        let _ = tokio::task::spawn_blocking(move || background.handle.block_on(task)).await;
    });
    true
}

/// Resolves a name; the answer finds its way to the engine if the node still lives then.
pub fn resolve(node: Weak<Node>, id: u32, host: String) {
    let Ok(background) = background() else { return };
    background.handle.spawn(async move {
        let _permit = background.resolving.acquire().await;
        let addresses = match tokio::net::lookup_host((host.as_str(), 0)).await {
            Ok(found) => distinct(found.map(|address| address.ip())),
            Err(error) => Err(error.to_string()),
        };
        if let Some(node) = node.upgrade() {
            node.answer(SideEffectAnswer::Resolved { id, addresses });
        }
    });
}

fn distinct(found: impl Iterator<Item = IpAddr>) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for ip in found {
        if !addresses.contains(&ip) && addresses.len() < MAX_RESOLVED {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        Err("the name has no addresses".into())
    } else {
        Ok(addresses)
    }
}
