//! Temporary driver.
use std::sync::atomic::AtomicBool;
struct P;
impl base::Progress for P {
    fn start(&mut self, _: &str, _: Option<u64>) {}
    fn advance(&mut self, _: u64) {}
    fn message(&mut self, t: &str) { println!("{t}") }
    fn warn(&mut self, t: &str) { println!("warn {t}") }
    fn finish(&mut self) {}
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut d = base::config::Document::read(a[1].as_ref()).unwrap();
    d.set(&a[3..]).unwrap();
    let recipe: train::tasks::TokenizerRecipe = d.typed().unwrap();
    let mut task = train::tasks::TokenizerTask::new(recipe, tch::Device::Cpu).unwrap();
    println!("{}", task.describe());
    let dir = std::path::Path::new(&a[2]);
    let saved = train::Saved::newest(dir).ok();
    let stop = AtomicBool::new(false);
    println!("{:?}", train::train(&mut task, dir, saved.as_ref().map(|s| &s.0), &stop, &mut P).map_err(|e| e.to_string()));
}
