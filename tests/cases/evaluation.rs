//! Evaluation.

use base::npz::{Npz, write};
use tch::{Kind, Tensor};

use crate::case;
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
