//! The run itself, or its cost.

use base::TensorKind;
use cli::train::RunArgs;
use tch::Device;
use train::{Observer, Recipe, Run, Task, TrainCheckpoint};

use crate::context::{Context, ExitStatus, stop_on_signal};

/// Name of the program: version, commit if known (`+` marks changes since), libtorch.
fn program() -> anyhow::Result<String> {
    let commit = option_env!("GEN_COMMIT").map(|c| format!(", commit {c}")).unwrap_or_default();
    let libtorch = libtorch_ext::runtime::libtorch_version()?;
    Ok(format!("gen {}{commit}, libtorch {libtorch}", env!("CARGO_PKG_VERSION")))
}

/// `--plan`: prints the cost of a run.
pub fn plan(recipe: &impl Recipe, context: &Context) -> anyhow::Result<ExitStatus> {
    recipe.check()?;
    let cost = recipe.cost()?;
    let mut lines = cost.lines();
    if let Some((data, size)) = recipe.images().filter(|(data, _)| data.train.is_some()) {
        let speed = train::images_per_second(data, size)?;
        lines.push(("pictures, one core".into(), format!("{speed:.0} images/s decoded and cut, measured")));
        let wanted = cost.h200_images_per_second();
        lines.push(("cores to feed an H200".into(), format!("{:.0}", (wanted / speed).ceil())));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in lines {
        context.printer.line(&format!("{name:width$}  {value}"))?;
    }
    Ok(ExitStatus::Done)
}

/// Prints the memory of the run, and a warning with remedies if the device has less.
fn say_memory(recipe: &impl Recipe, device: Device, context: &Context) -> anyhow::Result<()> {
    let (cost, available) = (recipe.cost()?, base::device::memory(device));
    context.printer.note(&cost.memory_line(available));
    if let Some(free) = available.filter(|free| cost.bytes() > *free as f64) {
        let parts = cost.micro_batches_for(free as f64).map(|n| format!("`optimization.micro_batches={n}`"));
        let recompute = recipe.can_recompute().then(|| "`recompute=true`".to_owned());
        let ways: Vec<String> = parts.into_iter().chain(recompute).collect();
        let ways = if ways.is_empty() { "a smaller model".to_owned() } else { ways.join(" or ") };
        context.printer.warning(&format!("that may be more than the device has; {ways} would take less"));
    }
    Ok(())
}

/// Trains until the last step or the first SIGINT or SIGTERM; a second signal ends the program at
/// once.
pub fn run<T: Task>(
    mut task: T,
    args: &RunArgs,
    saved: Option<TrainCheckpoint>,
    device: Device,
    observer: &mut dyn Observer<T>,
    context: &Context,
) -> anyhow::Result<ExitStatus> {
    say_memory(task.recipe(), device, context)?;
    libtorch_ext::runtime::keep_freed_memory();
    let tf32 = device.is_cuda() && task.optimization().tf32;
    libtorch_ext::tf32::set(tf32)?;
    let stop = stop_on_signal()?;
    let mut progress = context.printer.clone();
    let kind = task.optimization().precision.kind();
    let given = args.peak_tflops.map(|n| n * 1e12);
    // Only the first process logs.
    let peak = given.or_else(|| context.world.is_first().then(|| train::peak::measure(device, kind)));
    let how = if given.is_some() { "as given" } else { "measured now" };
    let of = if context.world.size() > 1 { " a process" } else { "" };
    context.printer.note(&format!("MFU is a share of {:.3} TFLOP/s{of}, {how}", peak.unwrap_or(0.0) / 1e12));
    if let Some(text) = saved.as_ref().and_then(|saved| saved.rate_jump(task.optimization())) {
        context.printer.warning(&text);
    }
    match (&saved, args.resumes()) {
        (Some(saved), true) => context.printer.note(&format!("resuming after step {}", saved.step)),
        (Some(saved), false) => {
            saved.check_fork(task.optimization())?;
            context.printer.note(&format!(
                "continuing from {} after its step {}",
                saved.describe(),
                saved.step
            ));
        }
        _ => {}
    }
    let run = Run {
        dir: args.output(),
        resume: saved.as_ref(),
        stop: &stop,
        program: &program()?,
        device: &base::device::name(device),
        tf32,
        world: &context.world,
        peak,
    };
    let outcome = train::train_observed(&mut task, &run, &mut progress, observer)?;
    let dir = args.output().display();
    context.printer.line(&match outcome.interrupted {
        false => format!("trained {} steps; the model is in {dir}", outcome.step),
        true => format!("stopped after step {}; `--resume --output {dir}` goes on", outcome.step),
    })?;
    Ok(ExitStatus::of(!outcome.interrupted))
}
