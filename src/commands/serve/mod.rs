//! `gen serve`: models → images over HTTP.

mod config;
mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cli::serve::ServeArgs;
use server::Server;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::context::{Context, ExitStatus, stop_on_signal};
use crate::resolve::device;

/// Threads that encode pictures and wait for tokenizers.
const BLOCKING_THREADS: usize = 16;
/// Between looks at whether a signal has come.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until a signal comes and running images are finished.
pub fn run(args: &ServeArgs, context: &Context) -> Result<ExitStatus> {
    config::check_access(args)?;
    let settings = config::server(args)?;
    let device = device::resolve(&args.compute.device)?;
    let models = load::find(args, device)?;
    config::check_aliases(args, &models)?;
    server::log_to_stderr(args.log_json, context.printer.is_quiet());
    let stop = stop_on_signal()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let ended = runtime.block_on(async {
        let address = (args.host, args.port);
        let what = || format!("cannot listen on {}:{}", args.host, args.port);
        let listener = TcpListener::bind(address).await.with_context(what)?;
        context.printer.line(&format!("listening on http://{}/", listener.local_addr()?))?;
        serve(Server::new(settings), listener, models, stop, context).await
    });
    runtime.shutdown_background(); // encoders that nobody waits for
    ended.map(|()| ExitStatus::Done)
}

/// Answers from the start, with 503 while the models are loaded on a thread of their own.
async fn serve(
    server: Server,
    listener: TcpListener,
    models: Vec<engine::EngineConfig>,
    stop: Arc<AtomicBool>,
    context: &Context,
) -> Result<()> {
    let (loaded, mut failed) = oneshot::channel();
    let (to, printer) = (server.clone(), context.printer.clone());
    std::thread::Builder::new().name("load".into()).spawn(move || {
        // Nobody listens where a signal came first.
        let _ = loaded.send(load::start(models, &to, printer));
    })?;
    let mut error = None;
    server.serve(listener, async { error = stopped_or_failed(stop, &mut failed).await }).await;
    if error.is_none() && !failed.is_terminated() {
        context.printer.note("waiting for the model that is being loaded");
        let _ = failed.await; // libtorch must not be unloaded under it
    }
    error.map_or(Ok(()), Err)
}

/// Waits for a signal, or for the error that kept a model from being loaded.
async fn stopped_or_failed(
    stop: Arc<AtomicBool>,
    loaded: &mut oneshot::Receiver<Result<()>>,
) -> Option<anyhow::Error> {
    let signal = signal(stop);
    tokio::pin!(signal);
    tokio::select! {
        () = &mut signal => None,
        result = loaded => match result {
            Ok(Ok(())) => {
                signal.await;
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow::anyhow!("internal error: loading a model panicked")),
        },
    }
}

/// Waits for SIGINT or SIGTERM.
async fn signal(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK).await;
    }
}
