#![allow(missing_docs, clippy::all)]
use base::{Build, Codes, Images, Vars, config::Document};
use tch::{Device, Kind, Tensor};
use tokenizer::{Model, Tokenizer, TokenizerConfig};
fn cpu() -> (f64, f64) {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() / 100.0, f[12].parse::<f64>().unwrap() / 100.0)
}
fn main() {
    let threads: i32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let pack = std::env::args().nth(2).unwrap() == "pack";
    tch::set_num_threads(threads);
    let text = std::fs::read_to_string("configs/tokenizer/gigatok-ss256.yaml").unwrap();
    let config = TokenizerConfig::from_document(&Document::parse("x", &text).unwrap()).unwrap();
    tch::manual_seed(1);
    let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
    let mut model = Model::new(&vars.root(), &config).unwrap();
    let im = Images::new(Tensor::rand([1, 3, 256, 256], (Kind::Float, Device::Cpu)) * 2.0 - 1.0).unwrap();
    let codes = Codes::new(Tensor::randint(16384, [1, 256], (Kind::Int64, Device::Cpu))).unwrap();
    let (e0, d0) = if pack {
        (model.features(&im).unwrap(), model.decode(&codes).unwrap())
    } else {
        (Tensor::new(), Images::new(Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu))).unwrap())
    };
    if pack {
        model.pack(&vars);
        let (e1, d1) = (model.features(&im).unwrap(), model.decode(&codes).unwrap());
        let r = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
        println!(
            "packed against libtorch: features {:e} pixels {:e}",
            r(&e1, &e0),
            r(d1.tensor(), d0.tensor())
        );
    }
    for round in 0..3 {
        for what in ["encode", "decode"] {
            let (w, (u, s)) = (std::time::Instant::now(), cpu());
            if what == "encode" {
                model.encode(&im).unwrap();
            } else {
                model.decode(&codes).unwrap();
            }
            let (u1, s1) = cpu();
            println!(
                "{round} {what} wall {:.2} user {:.2} sys {:.2}",
                w.elapsed().as_secs_f64(),
                u1 - u,
                s1 - s
            );
        }
    }
}
