//! Checkpoints.

use super::case;
use crate::common::Place;

#[test]
fn what_holds_weights_in_another_form_is_refused_by_name() {
    let Some(folder) = case("convert_drops_weights") else { return };
    let forms = [
        ("meta", "a tensor of the meta device"),
        ("nested", "a nested tensor"),
        ("numpy", "a numpy array"),
        ("quantized", "a quantized tensor"),
        ("sparse", "a sparse tensor"),
        ("xla", "a tensor of another kind of device"),
    ];
    let place = Place::new("", "");
    for (file, what) in forms {
        let path = folder.join(file).with_extension("pt");
        let said = place.fails(&format!("convert {} out.safetensors", path.display()));
        assert!(said.contains("`weight`") && said.contains(what), "{file}: {said}");
        assert!(!place.path("out.safetensors").exists());
        assert!(place.ok(&format!("inspect {}", path.display())).contains(what), "{file}");
    }
}

#[test]
fn distributed_tensors_and_whole_modules_are_refused() {
    let Some(folder) = case("dtensor_becomes_garbage_names") else { return };
    let place = Place::new("", "");
    let convert = |file| place.fails(&format!("convert {} out.safetensors", folder.join(file).display()));
    let said = convert("dtensor.pt");
    assert!(
        said.contains("`weight`") && said.contains("DTensor") && said.contains("full_tensor()"),
        "{said}"
    );
    let said = convert("whole_module.pt");
    assert!(said.contains("a whole module") && said.contains("state_dict()"), "{said}");
}

#[test]
fn configurations_and_other_objects_stop_nothing() {
    let Some(folder) = case("omegaconf_checkpoint_refused") else { return };
    let place = Place::new("", "");
    for (file, left_out) in [("omegaconf.pt", "config"), ("cyclic.pt", "trainer"), ("deep.pt", "deep")] {
        let path = folder.join(file);
        let shown = place.ok(&format!("inspect {}", path.display()));
        assert!(shown.contains(&format!("{left_out}: not shown")), "{file}: {shown}");
        let report = place.json(&format!("convert {} {file}.safetensors", path.display()), 0);
        assert_eq!((&report["section"], &report["tensors"]), (&"model".into(), &1.into()), "{file}");
        assert!(report["left_out"][0].as_str().unwrap().starts_with(left_out), "{report}");
    }
}
