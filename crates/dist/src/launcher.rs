//! Starts the processes of a run on this machine, with the variables that torchrun sets.

use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtorch_ext::c10d::Store;

use crate::{Error, Result};

/// The processes to start.
#[derive(Debug)]
pub struct LaunchPlan<'a> {
    /// Number of processes, at least 1.
    pub processes: usize,
    /// Times that all are started again after one failed.
    pub max_restarts: u32,
    /// CPU threads of each, unless the environment sets them.
    pub threads: usize,
    /// Set by a signal: the processes are asked to stop, and not started again.
    pub stop: &'a AtomicBool,
}

/// Time that the other processes get to exit after one failed, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Runs `command` as several processes, again after a failure if the plan asks for it, and returns
/// the exit code: that of the first one that failed, or the largest. `note` receives failures and
/// restarts.
///
/// # Errors
/// Returns an error if the store or a process cannot be started.
pub fn launch(plan: &LaunchPlan<'_>, command: impl Fn() -> Command, note: impl Fn(&str)) -> Result<i32> {
    let join = |source| Error::Join { rank: 0, world: plan.processes, place: "127.0.0.1".into(), source };
    // It outlives all processes, so that the cause of a failure can always be read.
    let store = Store::tcp("127.0.0.1", 0, true, "gen", Duration::from_secs(60)).map_err(join)?;
    let port = store.port().map_err(join)?;
    for attempt in 0.. {
        let (code, failed) = attempt_once(plan, &command, port, attempt)?;
        let again = failed.is_some() && attempt < plan.max_restarts && !plan.stop.load(Ordering::Relaxed);
        if let Some((rank, status)) = failed {
            let ending = if again {
                format!("; starting again ({} of {})", attempt + 1, plan.max_restarts)
            } else {
                String::new()
            };
            note(&format!("rank {rank} of {} ended first, with {status}{ending}", plan.processes));
        }
        if !again {
            return Ok(code);
        }
    }
    unreachable!("the attempts are bounded")
}

type First = Option<(usize, ExitStatus)>;

fn attempt_once(
    plan: &LaunchPlan<'_>,
    command: &impl Fn() -> Command,
    port: u16,
    attempt: u32,
) -> Result<(i32, First)> {
    let mut running = Running::default();
    for rank in 0..plan.processes {
        let mut command = command();
        command.envs(variables(plan, rank, port, attempt));
        let child = command.spawn().map_err(|source| Error::Start { rank, world: plan.processes, source })?;
        running.0.push((rank, child));
    }
    Ok(running.wait(plan.stop))
}

fn variables(plan: &LaunchPlan<'_>, rank: usize, port: u16, attempt: u32) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", plan.processes.to_string()),
        ("LOCAL_WORLD_SIZE", plan.processes.to_string()),
        ("MASTER_ADDR", "127.0.0.1".into()),
        ("MASTER_PORT", port.to_string()),
        ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
        ("TORCHELASTIC_RUN_ID", "launch".into()),
        ("TORCHELASTIC_RESTART_COUNT", attempt.to_string()),
    ];
    for name in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if std::env::var_os(name).is_none() {
            variables.push((name, plan.threads.to_string()));
        }
    }
    variables
}

/// The processes of an attempt; none outlives it.
#[derive(Default)]
struct Running(Vec<(usize, Child)>);

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    /// Waits for all processes, and terminates those that remain after one failed. Returns the exit
    /// code and the first that failed: with an error (2 and more) or by a signal; 1 is a result.
    fn wait(&mut self, stop: &AtomicBool) -> (i32, First) {
        let (mut code, mut first) = (0, None);
        let mut asked: Option<Instant> = None;
        let mut since: Option<Instant> = None;
        while !self.0.is_empty() {
            let mut ended = vec![];
            self.0.retain_mut(|(rank, child)| match child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    ended.push((*rank, status));
                    false
                }
                Err(_) => false,
            });
            for (rank, status) in ended {
                let own = status.code().unwrap_or(2);
                if own >= 2 && first.is_none() {
                    first = Some((rank, status));
                    code = own;
                    since = Some(Instant::now());
                }
                code = if first.is_none() { code.max(own) } else { code };
            }
            let late = since.is_some_and(|since| since.elapsed() > PATIENCE);
            if asked.is_none() && (late || stop.load(Ordering::Relaxed)) {
                self.0.iter().for_each(|(_, child)| terminate(child));
                asked = Some(Instant::now());
            } else if late && asked.is_some_and(|asked| asked.elapsed() > PATIENCE) {
                self.0.iter_mut().for_each(|(_, child)| drop(child.kill()));
            }
            std::thread::sleep(LOOK);
        }
        (code, first)
    }
}

/// Asks a process to stop in good order.
fn terminate(child: &Child) {
    // It may have ended meanwhile.
    let _ =
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
}
