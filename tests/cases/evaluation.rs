//! Evaluation.

use base::npz::{Npz, write};
use tch::{Kind, Tensor};

use super::case;
use crate::common::Place;

const NET: &str = "--inception random:11";
const COMPUTING: &str = "--device cpu --threads 1";

#[test]
fn impossible_scores_are_refused_before_the_work() {
    let Some(folder) = case("one_metric_loses_all") else { return };
    let place = Place::new("eval", COMPUTING);
    let images = folder.join("i.npz").display().to_string();
    let said = place.fails(&format!("{images} --reference {images} --metrics fid,is,kid {NET}"));
    assert!(said.contains("kid needs at least 1000 images; 8 are judged"), "{said}");
}

#[test]
fn statistics_that_are_none_are_refused() {
    let Some(folder) = case("stats_not_checked") else { return };
    let place = Place::new("eval", COMPUTING);
    let images = folder.join("i.npz").display().to_string();
    place.ok(&format!("stats {images} --kind other {NET} -o good.npz"));
    let mut good = Npz::open(&place.path("good.npz")).unwrap();
    let [mu, sigma, tag] = ["mu", "sigma", "gen_reference"].map(|name| good.read(name).unwrap());
    let d = mu.size()[0];
    let cpu = (Kind::Double, tch::Device::Cpu);
    let upper = Tensor::ones([d, d], cpu).triu(1) * 0.5;
    let nan = mu.copy();
    let _ = nan.get(3).fill_(f64::NAN);
    let cases = [
        ("neg.npz", mu.copy(), -&sigma - Tensor::eye(d, cpu), "`sigma` has negative variances"),
        ("asym.npz", mu.copy(), &sigma + upper, "`sigma` is not symmetric"),
        ("nan.npz", nan, sigma.copy(), "`mu` holds values that are not finite"),
    ];
    for (file, mu, sigma, expected) in cases {
        let members = [("mu", &mu), ("sigma", &sigma), ("gen_reference", &tag)];
        write(&place.path(file), &members).unwrap();
        let said = place.fails(&format!("{images} --reference {file} --metrics fid {NET}"));
        assert!(said.contains(file) && said.contains(expected), "{file}: {said}");
    }
}

#[test]
fn archives_of_other_programs_are_read_and_damaged_ones_named() {
    let Some(folder) = case("npz_readers") else { return };
    let place = Place::new("eval", COMPUTING);
    let line = |file: &str| {
        let (file, reference) = (folder.join(file), folder.join("ok.npz"));
        format!("{} --reference {} --metrics psnr", file.display(), reference.display())
    };
    for file in ["ok.npz", "macos.npz", "python2_long.npz"] {
        assert_eq!(place.json(&line(file), 0)["samples"]["images"], 8, "{file}");
    }
    let said = place.fails(&line("huge_shape.npz"));
    assert!(said.contains("huge_shape.npz") && said.contains("arr_0"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("internal error"), "{said}");
}
