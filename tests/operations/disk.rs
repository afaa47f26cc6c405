//! A full disk.

use std::path::Path;
use std::process::Command;

use crate::common::{TINY, TrainingPlace};

/// A small file system in memory, unmounted on drop. `None`, with a message, if mounting is not
/// permitted.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Tmpfs> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        match mount {
            Ok(out) if out.status.success() => Some(Tmpfs(at.to_owned())),
            Ok(out) => {
                eprintln!("not run: no tmpfs here: {}", String::from_utf8_lossy(&out.stderr).trim());
                None
            }
            Err(e) => {
                eprintln!("not run: no `mount` here: {e}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_no_more_than_the_work_since_the_last_save() {
    let place = TrainingPlace::with_pictures();
    let changes = [TINY, &["optimization.steps=6", "every={log: 1, validate: 0, save: 2}"]].concat();
    place.ends(0, "train-tokenizer --data images --output whole", &changes);
    let disk = place.path("disk");
    let Some(_mounted) = Tmpfs::mount(&disk, "16m") else { return };

    let stopped = [&changes[..], &["optimization.steps=2"]].concat();
    place.ends(0, "train-tokenizer --data images --output disk/run", &stopped);
    let state = disk.join("run/state/step-000000002.safetensors");
    let before = std::fs::read(&state).unwrap();
    // Leaves room for the log, not for another state.
    let filler = disk.join("filler");
    let block = vec![7u8; 4096];
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);
    let length = std::fs::metadata(&filler).unwrap().len();
    let room = 64 << 10;
    std::fs::OpenOptions::new().write(true).open(&filler).unwrap().set_len(length - room).unwrap();

    let more = ["optimization.steps=6"];
    let (_, stderr) = place.ends(2, "train-tokenizer --resume --output disk/run", &more);
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stderr.contains("hint: the states saved before are whole"), "{stderr}");
    assert!(std::fs::read(&state).unwrap() == before, "the old state changed");
    let names = std::fs::read_dir(disk.join("run/state")).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(names.count(), 2, "nothing half written is left");

    std::fs::remove_file(&filler).unwrap();
    place.ends(0, "train-tokenizer --resume --output disk/run", &more);
    assert!(place.weights("whole") == place.weights("disk/run"), "the weights differ");
}
