//! Status lines of a run.

/// Scalars at a step, in one line.
pub(crate) fn line(step: u64, steps: u64, scalars: &[(String, f64)]) -> String {
    let parts: Vec<String> = scalars.iter().map(|(n, v)| format!("{n} {}", short(*v))).collect();
    format!("step {step}/{steps}  {}", parts.join("  "))
}

/// Parts of the status: step, losses, learning rates and norms, speed.
pub(crate) fn status(step: u64, steps: u64, scalars: &[(String, f64)]) -> Vec<String> {
    let value = |key: &str| scalars.iter().find(|(n, _)| n == key).map(|(_, v)| *v);
    let ending = |n: &str, names: &[&str]| names.contains(&n.rsplit('/').next().unwrap_or(n));
    let (mut losses, mut rates) = (vec![], vec![]);
    for (n, v) in scalars {
        if n.starts_with("seconds") || SPEED.contains(&n.as_str()) {
            continue;
        }
        let list = if ending(n, &["lr", "grad_norm", "skipped_steps", "left_out"]) {
            &mut rates
        } else {
            &mut losses
        };
        list.push(format!("{n} {}", short(*v)));
    }
    let mut speed = vec![];
    speed.extend(value("images_per_second").map(|v| format!("{} img/s", short(v))));
    speed.extend(value("codes_per_second").map(|v| format!("{} tok/s", short(v))));
    speed.extend(value("mfu").map(|v| format!("MFU {}", percent(v))));
    speed.extend(value("data_wait").map(|v| format!("data wait {}", percent(v))));
    let groups = [losses, rates, speed].map(|g| g.join("  "));
    std::iter::once(format!("step {step}/{steps}")).chain(groups).filter(|g| !g.is_empty()).collect()
}

const SPEED: [&str; 5] = ["images_per_second", "codes_per_second", "mfu", "data_wait", "samples"];

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

fn short(v: f64) -> String {
    match v.abs() {
        a if a < 1e9 && v.fract() == 0.0 => format!("{v:.0}"),
        a if a < 1e-3 => format!("{v:.2e}"),
        a if a < 100.0 => format!("{v:.4}"),
        _ => format!("{v:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_losses_rates_and_speed_in_this_order() {
        let all = [
            ("seconds", 3.0),
            ("l2", 0.25),
            ("grad_norm", 1.5),
            ("lr", 1e-4),
            ("discriminator/hinge", 1.0),
            ("discriminator/lr", 1e-4),
            ("images_per_second", 123.0),
            ("codes_per_second", 31488.0),
            ("mfu", 0.311),
            ("data_wait", 0.02),
            ("seconds/data", 0.1),
        ];
        let all: Vec<(String, f64)> = all.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        let parts = status(20, 100, &all);
        assert_eq!(
            parts,
            [
                "step 20/100",
                "l2 0.2500  discriminator/hinge 1",
                "grad_norm 1.5000  lr 1.00e-4  discriminator/lr 1.00e-4",
                "123 img/s  31488 tok/s  MFU 31 %  data wait 2.0 %",
            ]
        );
    }
}
