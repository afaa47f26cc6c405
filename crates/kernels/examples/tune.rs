//! t
use kernels::*;
fn cpu() -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1e9
}
fn main() {
    let (d, n_mat) = (2048usize, 24usize);
    let w: Vec<f32> = (0..d * d).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect();
    let team = Team::new(1);
    for format in [Format::F32, Format::Bf16, Format::Int8] {
        let mats: Vec<Matrix> = (0..n_mat).map(|_| Matrix::pack(&w, d, 64, format)).collect();
        for rows in [1usize, 2, 4, 8, 16, 32] {
            let x: Vec<f32> = (0..rows * d).map(|i| (i % 13) as f32 / 13.0).collect();
            let mut best = f64::MAX;
            for _ in 0..6 {
                let t = cpu();
                team.run(|m| {
                    let mut r = Rows::new(format, rows, d);
                    let mut out = vec![0.0; rows * 64];
                    for mat in &mats {
                        r.set(Isa::best(Format::F32), &x);
                        for s in m.share(mat.sections()) {
                            mat.product(s, &r, &mut out);
                        }
                        m.barrier();
                    }
                });
                best = best.min(cpu() - t);
            }
            let bytes = mats.iter().map(|m| m.bytes()).sum::<usize>() as f64;
            println!(
                "{format:?} rows {rows}: {:.2} ms  {:.1} GB/s  {:.0} GFLOP/s",
                best * 1e3,
                bytes / best / 1e9,
                2.0 * rows as f64 * (d * d * n_mat) as f64 / best / 1e9
            );
        }
    }
}
