//! Training a transformer on the codes of a frozen tokenizer: cross-entropy of every code given the
//! previous ones and the class or caption.

mod recipe;

use std::collections::BTreeMap;
use std::path::Path;

use ar_model::{Conditioning, ConditioningConfig, Gpt, TeacherForced};
use base::config::to_yaml;
use base::{Build, Mode, TensorKind, Vars};
use data::codes::CodeBatch;
use data::{Class, ClassTable};
use tch::{Device, Kind, Tensor};

pub use self::recipe::ArRecipe;
use super::codes::{CodeSets, CodeStream, CodesConfig};
use super::text::{Text, TextInputs};
use crate::files::write_atomically;
use crate::losses::language::chunked_cross_entropy;
use crate::recipe::Recipe as _;
use crate::share::Share;
use crate::task::{Gradients, InitPolicy, Module, Phase, Task};
use crate::{Error, Losses, Result, recompute};

/// A transformer in training.
pub struct ArTask {
    recipe: ArRecipe,
    vars: Vars,
    model: Gpt,
    condition: CondSource,
    data: CodeSets,
}

/// Source of the conditions.
enum CondSource {
    Class { num_classes: i64, classes: Vec<Class> },
    Text(Box<Text>),
}

const PHASES: [Phase; 1] = [Phase { name: "model", start: 1 }];

impl ArTask {
    /// Initialises the weights on `device` and opens the data. The tokenizer should be in fp32, as
    /// in the official trainers.
    ///
    /// # Errors
    /// Returns an error if the recipe contradicts itself, the tokenizer or the stored codes, or
    /// there is no data.
    pub fn new(recipe: ArRecipe, tokenizer: tokenizer::Loaded, device: Device) -> Result<Self> {
        recipe.check()?;
        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let mut model = Gpt::new(&vars.root(), &recipe.model)?;
        model.set_compute(recipe.optimization.precision.kind());
        let codes = CodesConfig {
            data: &recipe.data,
            num_tokens: recipe.model.num_tokens,
            batch_size: recipe.optimization.micro_batch_size(),
            seed: recipe.seed,
        };
        let data = CodeSets::open(codes, tokenizer)?;
        let condition = CondSource::new(&recipe, &vars, &data.train)?;
        if let CondSource::Class { num_classes, .. } = &condition {
            // Known labels, before the first batch that has one.
            let labels: Vec<i64> = data.classes().map(|c| c.index).collect();
            check_labels(&labels, *num_classes)?;
        }
        Ok(ArTask { recipe, vars, model, condition, data })
    }

    /// The model's variables.
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// The model.
    pub fn model(&self) -> &Gpt {
        &self.model
    }

    /// The tokenizer whose codes it learns.
    pub fn tokenizer(&self) -> &tokenizer::Loaded {
        &self.data.tokenizer
    }

    /// `n` conditions for samples during training, always the same, and their names: classes of the
    /// data or all of the model's, or texts.
    ///
    /// # Errors
    /// Returns an error if captions cannot be read or encoded.
    pub fn examples(&self, n: usize) -> Result<(Conditioning, Vec<String>)> {
        match &self.condition {
            CondSource::Class { classes, .. } => {
                let chosen = (0..n).filter_map(|i| classes.get(i * classes.len() / n));
                let (ids, names): (Vec<i64>, _) = chosen.map(|c| (c.index, c.name.clone())).unzip();
                Ok((Conditioning::Class(Tensor::from_slice(&ids).to_device(self.vars.device())), names))
            }
            CondSource::Text(text) => {
                let texts = text.examples(&self.data.train, n)?;
                Ok((text.condition(&text.encode(&texts)?), texts))
            }
        }
    }

    /// Size of the model and its data in one line.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        let text = match &self.condition {
            CondSource::Class { .. } => String::new(),
            CondSource::Text(text) => format!("; {}", text.describe()),
        };
        format!("transformer of {millions:.2} M parameters{text}; {}", self.data.train.describe())
    }

    fn conditioning(&self, batch: &ArBatch) -> Conditioning {
        match (&batch.condition, &self.condition) {
            (BatchCond::Class(labels), _) => Conditioning::Class(labels.shallow_clone()),
            (BatchCond::Text(inputs), CondSource::Text(text)) => text.condition(inputs),
            (BatchCond::Text(_), CondSource::Class { .. }) => {
                unreachable!("only a text encoder makes text inputs")
            }
        }
    }
}

impl CondSource {
    /// Opens or builds the text encoder, or finds the names of the classes.
    fn new(recipe: &ArRecipe, vars: &Vars, train: &CodeStream) -> Result<Self> {
        match (recipe.model.conditioning, &recipe.text) {
            (ConditioningConfig::Class { num_classes, .. }, None) => {
                Ok(CondSource::Class { num_classes, classes: classes(train.classes(), num_classes)? })
            }
            (ConditioningConfig::Text { length, feature_width }, Some(text)) => {
                let compute = recipe.optimization.precision.kind();
                let sizes = (length, feature_width);
                Ok(CondSource::Text(Box::new(Text::new(text, sizes, (vars, compute), train, recipe.seed)?)))
            }
            _ => unreachable!("the recipe was checked"),
        }
    }
}

fn check_labels(labels: &[i64], num_classes: i64) -> Result<()> {
    match labels.iter().find(|l| !(0..num_classes).contains(*l)) {
        None => Ok(()),
        Some(&data::NO_CLASS) => Err(Error::Recipe(
            "an image without a class: a class-conditional model needs a label for each".into(),
        )),
        Some(label) => Err(Error::Recipe(format!(
            "label {label} is outside the model's {num_classes} classes; raise `model.conditioning.num_classes`"
        ))),
    }
}

/// Conditions and codes (B, N) on the device.
#[derive(Debug)]
pub struct ArBatch {
    condition: BatchCond,
    codes: Tensor,
}

#[derive(Debug)]
enum BatchCond {
    Class(Tensor), // (B,)
    Text(TextInputs),
}

/// Classes of the data; if unknown, ImageNet's for a model of as many classes, else numbers.
fn classes(known: &[Class], num_classes: i64) -> Result<Vec<Class>> {
    if !known.is_empty() {
        return Ok(known.to_vec());
    }
    let all = ClassTable::imagenet();
    Ok(if all.classes().len() as i64 == num_classes {
        all.classes().cloned().collect()
    } else {
        let numbered = |index| Class { index, wnid: String::new(), name: index.to_string() };
        (0..num_classes).map(numbered).collect()
    })
}

impl Task for ArTask {
    type Batch = ArBatch;
    type Recipe = ArRecipe;
    type Data = CodeSets;

    fn recipe(&self) -> &ArRecipe {
        &self.recipe
    }

    fn data(&self) -> &CodeSets {
        &self.data
    }

    fn data_mut(&mut self) -> &mut CodeSets {
        &mut self.data
    }

    fn phases(&self) -> &[Phase] {
        &PHASES
    }

    fn module(&self, _phase: usize) -> Module<'_> {
        Module { name: "model", vars: &self.vars }
    }

    /// The condition's embedding may differ, such as for other classes or for texts; nothing else.
    fn init_policy(&self) -> InitPolicy {
        let known = ar_model::released::signatures;
        InitPolicy { map: ar_model::key_map(), reinit_allowed: &["cls_embedding", "text_encoder"], known }
    }

    fn prepare(&self, batch: CodeBatch) -> Result<ArBatch> {
        let codes = batch.codes.tensor().to_device(self.vars.device());
        let condition = match &self.condition {
            CondSource::Text(text) => BatchCond::Text(text.prepare(&batch)?),
            CondSource::Class { num_classes, .. } => {
                check_labels(&batch.labels, *num_classes)?;
                BatchCond::Class(Tensor::from_slice(&batch.labels).to_device(self.vars.device()))
            }
        };
        Ok(ArBatch { condition, codes })
    }

    fn losses(&self, batch: &mut ArBatch, _phase: usize, _step: u64) -> Result<Losses> {
        let mut losses = Losses::new();
        losses.add("loss", self.loss(batch, Mode::Train), 1.0);
        Ok(losses)
    }

    fn recomputed(
        &self,
        batch: &mut ArBatch,
        params: &[Tensor],
        scale: f64,
    ) -> Result<Option<(Losses, Gradients)>> {
        if !self.recipe.recompute {
            return Ok(None);
        }
        let (pass, first) = self.model.teacher_forced(&self.conditioning(batch), &batch.codes, Mode::Train);
        let mut losses = Losses::new();
        let head = |x: &Tensor| {
            let loss = self.head_loss(&pass, x, &batch.codes);
            losses.add("loss", loss, 1.0);
            losses.total().expect("just added") * scale
        };
        let layer = |i: usize, x: &Tensor| pass.layer(i, x);
        let gradients = recompute::backward(&first, pass.num_layers(), layer, head, params);
        Ok(Some((losses, gradients)))
    }

    fn codes_per_image(&self) -> Option<u64> {
        u64::try_from(self.recipe.model.num_tokens).ok()
    }

    /// `loss`: cross-entropy per code in nats, without dropout, over all held-out images.
    fn validate(&mut self, share: Share<'_>) -> Result<Vec<(&'static str, f64)>> {
        let Some(mut codes) = self.data.validation.take() else { return Ok(vec![]) };
        let sums = self.validation_losses(&mut codes);
        self.data.validation = Some(codes);
        let [sum, count] = share.sum(&sums?)?;
        if count == 0.0 {
            return Err(Error::Recipe("the validation data is empty".into()));
        }
        Ok(vec![("loss", sum / count)])
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.recipe.model)?.as_bytes())?;
        match &self.condition {
            CondSource::Class { classes, .. } => {
                write_atomically(&dir.join("classes.tsv"), data::to_tsv(classes).as_bytes())?;
            }
            CondSource::Text(text) => text.write(dir)?,
        }
        let folder = dir.join("tokenizer");
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        write_atomically(&folder.join("config.yaml"), to_yaml(&self.tokenizer().config)?.as_bytes())?;
        // As in the file, so that the copy has the fingerprint of the original.
        let source = self.tokenizer().source.as_ref();
        let read = |name: &str| Ok((name.to_owned(), source.read(name, Device::Cpu)?));
        let tensors = source.names().into_iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(weights::save_safetensors(&folder.join("weights.safetensors"), &tensors, &BTreeMap::new())?)
    }
}

impl ArTask {
    /// Mean cross-entropy of a batch, in nats per code.
    fn loss(&self, batch: &ArBatch, mode: Mode) -> Tensor {
        let (pass, x) = self.model.teacher_forced(&self.conditioning(batch), &batch.codes, mode);
        let x = pass.layers(x, pass.num_layers());
        self.head_loss(&pass, &x, &batch.codes)
    }

    fn head_loss(&self, pass: &TeacherForced, x: &Tensor, codes: &Tensor) -> Tensor {
        chunked_cross_entropy(&pass.head_input(x), self.model.output_weight(), codes, None)
    }

    /// Sum of the losses and number of sequences of each batch.
    fn validation_losses(&self, codes: &mut CodeStream) -> Result<Vec<[f64; 2]>> {
        let _guard = tch::no_grad_guard();
        codes.rewind()?;
        let mut rows = vec![];
        while let Some(batch) = codes.next(self.tokenizer())? {
            let n = batch.labels.len() as f64;
            rows.push(match batch.labels.is_empty() {
                true => [0.0; 2],
                false => [n * self.loss(&self.prepare(batch)?, Mode::Eval).double_value(&[]), n],
            });
        }
        Ok(rows)
    }
}
