//! Classes of a model.

use data::{Class, ClassTable};

use crate::error::{Error, Result};
use crate::locate::Location;

/// The classes of a transformer of `num_classes`: `classes.tsv` beside the weights, else ImageNet's
/// if their number is 1000, else bare numbers; `None` for a model of prompts.
///
/// # Errors
/// Returns an error if `classes.tsv` cannot be read, or lists a class that the model does not have.
pub fn classes_of(transformer: &Location, num_classes: Option<i64>) -> Result<Option<ClassTable>> {
    let Some(n) = num_classes else { return Ok(None) };
    if let Some(path) = transformer.beside("classes.tsv")? {
        let table = ClassTable::read(&path)?;
        if let Some(class) = table.classes().find(|c| !(0..n).contains(&c.index)) {
            return Err(Error::ForeignClass { path, class: class.to_string(), num_classes: n });
        }
        return Ok(Some(table));
    }
    if n == 1000 {
        return Ok(Some(ClassTable::imagenet().clone()));
    }
    let bare = |index| Class { index, wnid: String::new(), name: format!("class {index}") };
    Ok(Some(ClassTable::of(&(0..n).map(bare).collect::<Vec<_>>())))
}
