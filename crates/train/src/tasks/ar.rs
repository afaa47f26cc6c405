//! Training a transformer on the codes of a frozen tokenizer: cross-entropy of every code given those before it
//! and the class, or the caption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ar_model::{ArConfig, Conditioning, ConditioningConfig, Gpt, ModulationConfig, TeacherForced};
use base::config::{Document, to_yaml};
use base::{Build, Mode, TensorKind, Vars};
use data::{Class, ClassTable, LeftOut};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tokenizer::TokenizerSpec;

use super::codes::{CodeBatch, Codes};
use super::images;
use super::text::{Prepared, Text, TextRecipe};
use crate::initial::Adoption;
use crate::losses::language::chunked_cross_entropy;
use crate::recipe::{ImageData, Intervals, Optimization, with_overrides};
use crate::state::write_atomically;
use crate::task::{Common, DataFacts, Gradients, Module, Phase, Recipe, Task};
use crate::{Error, Losses, Plan, Result, plan, recompute};

/// Everything that decides a transformer's training, but for the tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArRecipe {
    /// Seed of the first weights, the order of the data, augmentation, dropout and all else that is random.
    pub seed: u64,
    /// The transformer. In a file, `vocab_size` and `num_tokens` may be null: they are the tokenizer's then.
    pub model: ArConfig,
    /// A checkpoint or a model's directory whose weights it begins with (`--init-from`).
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Parameters that are not trained: names or their beginnings, `*` for one part (`layers.*.attention`).
    #[serde(default)]
    pub freeze: Vec<String>,
    /// What it learns from.
    pub data: ArData,
    /// From captions to features, for a text-conditional transformer.
    #[serde(default)]
    pub text: Option<TextRecipe>,
    /// Run each layer a second time in the backward pass instead of keeping what it computed: about a third more
    /// arithmetic, and memory for one layer's activations instead of all layers'.
    #[serde(default)]
    pub recompute: bool,
    /// How.
    pub optimization: Optimization,
    /// How often to log, validate and save, in steps.
    pub every: Intervals,
}

/// Codes that were stored before, or images that are encoded on the fly; one of the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArData {
    /// Folders of stored codes; several are joined as further views of the same images.
    #[serde(default)]
    pub codes: Vec<PathBuf>,
    /// The same of held-out images.
    #[serde(default)]
    pub validation_codes: Vec<PathBuf>,
    /// Images.
    pub images: ImageData,
}

impl Recipe for ArRecipe {
    fn common(&self) -> Common<'_> {
        Common {
            seed: self.seed,
            optimization: &self.optimization,
            every: self.every,
            init_from: self.init_from.as_deref(),
            freeze: &self.freeze,
        }
    }

    fn plan(&self) -> Result<Plan> {
        let mut plan = plan::transformer(&self.model, &self.optimization, self.recompute)?;
        if self.data.codes.is_empty() {
            plan.left_out.push("the tokenizer, where images are encoded on the fly");
        }
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        self.optimization.check()?;
        self.model.check()?;
        self.data.images.check("data.images")?;
        self.check_conditioning()?;
        if self.recompute && self.model.modulation != ModulationConfig::None {
            return Err(Error::Recipe("recompute: adaptive layer norms are not prepared for it".into()));
        }
        self.text.as_ref().map_or(Ok(()), TextRecipe::check)
    }

    fn can_recompute(&self) -> bool {
        !self.recompute && self.model.modulation == ModulationConfig::None
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let data = &mut self.data;
        let codes = data.codes.iter_mut().chain(data.validation_codes.iter_mut());
        let texts = self.text.iter_mut().flat_map(TextRecipe::paths);
        codes.chain(data.images.paths()).chain(self.init_from.iter_mut()).chain(texts).collect()
    }
}

impl ArRecipe {
    fn check_conditioning(&self) -> Result<()> {
        match (self.model.conditioning, &self.text) {
            (ConditioningConfig::Text { .. }, None) => Err(Error::Recipe(
                "`model.conditioning` is text, and `text` does not say where features come from; \
                 configs/train/text-64.yaml has an example"
                    .into(),
            )),
            (ConditioningConfig::Class { .. }, Some(_)) => Err(Error::Recipe(
                "`text` is given, but `model.conditioning` is by class; which is it to be?".into(),
            )),
            _ => Ok(()),
        }
    }

    /// A recipe that names its number of codes, with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong kind.
    pub fn complete(document: &Document, changes: &[String]) -> Result<Self> {
        with_overrides(document, changes)
    }

    /// A recipe for the codes of this tokenizer, with `key=value` changes.
    ///
    /// # Errors
    /// An unknown key, or a model that is not made for the tokenizer's codes.
    pub fn from_document(
        mut document: Document,
        changes: &[String],
        tokenizer: &TokenizerSpec,
    ) -> Result<Self> {
        let json = document.to_json()?;
        let sizes = [("vocab_size", tokenizer.codebook_size), ("num_tokens", tokenizer.num_tokens)];
        for (key, value) in sizes {
            if json["model"].get(key).is_some_and(serde_json::Value::is_null) {
                document.set(&[format!("model.{key}={value}")])?;
            }
        }
        let recipe = Self::complete(&document, changes)?;
        let model = &recipe.model;
        let fits = [
            model.vocab_size == tokenizer.codebook_size,
            tokenizer.image_size_of(model.num_tokens).is_some(),
        ];
        for (((key, expected), found), fits) in
            sizes.into_iter().zip([model.vocab_size, model.num_tokens]).zip(fits)
        {
            if !fits {
                return Err(Error::Recipe(format!(
                    "`model.{key}` is {found}, but the tokenizer's is {expected}; write null in the recipe to take \
                     the tokenizer's"
                )));
            }
        }
        Ok(recipe)
    }
}

/// A transformer in training.
pub struct ArTask {
    recipe: ArRecipe,
    vars: Vars,
    model: Gpt,
    condition: Condition,
    train: Codes,
    validation: Option<Codes>,
    tokenizer: tokenizer::Loaded,
}

/// What the codes are learned to depend on.
enum Condition {
    Class { num_classes: i64, classes: Vec<Class> },
    Text(Box<Text>),
}

const PHASES: [Phase; 1] = [Phase { name: "model", start: 1 }];

impl ArTask {
    /// Draws the first weights on the tokenizer's device and opens the data. The tokenizer should be in fp32, as
    /// in the official trainers.
    ///
    /// # Errors
    /// The recipe contradicts itself, the tokenizer or the stored codes, or there is no data.
    pub fn new(recipe: ArRecipe, tokenizer: tokenizer::Loaded, device: Device) -> Result<Self> {
        recipe.check()?;
        tch::manual_seed(recipe.seed as i64);
        let vars = Vars::new(device, Kind::Float, Build::Random);
        let mut model = Gpt::new(&vars.root(), &recipe.model)?;
        model.set_compute(recipe.optimization.precision.kind());
        let train = Codes::training(&recipe, &tokenizer)?;
        let validation = Codes::validation(&recipe, &tokenizer)?;
        if let Some(held_out) = &validation {
            images::same_classes(train.classes(), held_out.classes())?;
        }
        let condition = Condition::new(&recipe, &vars, &train)?;
        if let Condition::Class { num_classes, .. } = &condition {
            for codes in [Some(&train), validation.as_ref()].into_iter().flatten() {
                let labels: Vec<i64> = codes.classes().iter().map(|c| c.index).collect();
                check_labels(&labels, *num_classes)?; // those that are known, before the first batch that has one
            }
        }
        Ok(ArTask { recipe, vars, model, condition, train, validation, tokenizer })
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
        &self.tokenizer
    }

    /// `n` conditions to look at in training, always the same, and what they are called: classes of the data or all that
    /// the model has, or texts.
    pub fn examples(&self, n: usize) -> Result<(Conditioning, Vec<String>)> {
        match &self.condition {
            Condition::Class { classes, .. } => {
                let chosen = (0..n).filter_map(|i| classes.get(i * classes.len() / n));
                let (ids, names): (Vec<i64>, _) = chosen.map(|c| (c.index, c.name.clone())).unzip();
                Ok((Conditioning::Class(Tensor::from_slice(&ids).to_device(self.vars.device())), names))
            }
            Condition::Text(text) => {
                let texts = text.examples(&self.train, n)?;
                Ok((text.condition(&text.encode(&texts)?), texts))
            }
        }
    }

    /// One line on model and data, for people.
    pub fn describe(&self) -> String {
        let millions = self.vars.num_parameters() as f64 / 1e6;
        let text = match &self.condition {
            Condition::Class { .. } => String::new(),
            Condition::Text(text) => format!("; {}", text.describe()),
        };
        format!("transformer of {millions:.2} M parameters{text}; {}", self.train.describe())
    }

    fn to_device(&self, batch: CodeBatch) -> Result<ArBatch> {
        let codes = batch.codes.to_device(self.vars.device());
        let condition = match &self.condition {
            Condition::Text(text) => Given::Text(text.prepare(&batch)?),
            Condition::Class { num_classes, .. } => {
                check_labels(&batch.labels, *num_classes)?;
                Given::Class(Tensor::from_slice(&batch.labels).to_device(self.vars.device()))
            }
        };
        Ok(ArBatch { condition, codes })
    }

    fn conditioning(&self, batch: &ArBatch) -> Conditioning {
        match (&batch.condition, &self.condition) {
            (Given::Class(labels), _) => Conditioning::Class(labels.shallow_clone()),
            (Given::Text(prepared), Condition::Text(text)) => text.condition(prepared),
            (Given::Text(_), Condition::Class { .. }) => unreachable!("texts are prepared by a text side"),
        }
    }
}

impl Condition {
    /// Opens or makes the text encoder, or finds the names of the classes.
    fn new(recipe: &ArRecipe, vars: &Vars, train: &Codes) -> Result<Self> {
        match (recipe.model.conditioning, &recipe.text) {
            (ConditioningConfig::Class { num_classes, .. }, None) => {
                Ok(Condition::Class { num_classes, classes: classes(train.classes(), num_classes)? })
            }
            (ConditioningConfig::Text { length, feature_width }, Some(text)) => {
                let compute = recipe.optimization.precision.kind();
                let sizes = (length, feature_width);
                Ok(Condition::Text(Box::new(Text::new(text, sizes, (vars, compute), train, recipe.seed)?)))
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
    condition: Given,
    codes: Tensor,
}

#[derive(Debug)]
enum Given {
    Class(Tensor), // (B,)
    Text(Prepared),
}

/// The classes that occur in the data, or ImageNet's where the data does not tell and there are as many.
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

    fn recipe(&self) -> &ArRecipe {
        &self.recipe
    }

    fn phases(&self) -> &[Phase] {
        &PHASES
    }

    fn module(&self, _phase: usize) -> Module<'_> {
        Module { name: "model", vars: &self.vars }
    }

    /// The condition's embedding may be another one, such as for other classes or for texts; nothing else.
    fn adoption(&self) -> Adoption {
        let known = ar_model::released::signatures;
        Adoption { map: ar_model::key_map(), replaceable: &["cls_embedding", "text_encoder"], known }
    }

    fn batch(&mut self) -> Result<ArBatch> {
        let batch = self.train.next(&self.tokenizer)?;
        self.to_device(batch.ok_or_else(|| Error::Recipe("the training data ended".into()))?)
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

    fn position(&self) -> Result<String> {
        self.train.position()
    }

    fn restore(&mut self, position: &str) -> Result<()> {
        self.train.restore(position)
    }

    fn data(&self) -> Result<DataFacts> {
        self.train.facts()
    }

    fn left_out(&self) -> Vec<LeftOut> {
        images::left_out(self.train.left_out(), self.validation.as_ref().map(Codes::left_out))
    }

    fn codes_per_image(&self) -> Option<u64> {
        u64::try_from(self.recipe.model.num_tokens).ok()
    }

    /// `loss`: cross-entropy per code in nats, without dropout, over all held-out images.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let Some(mut codes) = self.validation.take() else { return Ok(vec![]) };
        let result = self.validation_loss(&mut codes);
        self.validation = Some(codes);
        Ok(vec![("loss", result?)])
    }

    fn write_model_files(&self, dir: &Path) -> Result<()> {
        write_atomically(&dir.join("config.yaml"), to_yaml(&self.recipe.model)?.as_bytes())?;
        match &self.condition {
            Condition::Class { classes, .. } => {
                write_atomically(&dir.join("classes.tsv"), data::to_tsv(classes).as_bytes())?;
            }
            Condition::Text(text) => text.write(dir)?,
        }
        let folder = dir.join("tokenizer");
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        write_atomically(&folder.join("config.yaml"), to_yaml(&self.tokenizer.config)?.as_bytes())?;
        // As they stand in the file, so that the copy has the fingerprint of the original.
        let source = self.tokenizer.source.as_ref();
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

    fn validation_loss(&self, codes: &mut Codes) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        codes.rewind()?;
        let (mut sum, mut count) = (0.0, 0.0);
        while let Some(batch) = codes.next(&self.tokenizer)? {
            let n = batch.labels.len() as f64;
            if n == 0.0 {
                continue;
            }
            let batch = self.to_device(batch)?;
            sum += n * self.loss(&batch, Mode::Eval).double_value(&[]);
            count += n;
        }
        if count == 0.0 { Err(Error::Recipe("the validation data is empty".into())) } else { Ok(sum / count) }
    }
}
