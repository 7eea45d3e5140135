//! What comes back and what does not: whole files of our own do, everything else is compiled again.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_base::clock;
use wasmtime::{Config, Engine, Module};

use crate::Artefacts;

const LIMIT: u64 = 1 << 20;

fn engine(epochs: bool) -> Engine {
    Engine::new(Config::new().epoch_interruption(epochs)).unwrap()
}

fn compiled(engine: &Engine) -> Module {
    let bytes = wat::parse_str(r#"(module (func (export "f") (result i32) i32.const 7))"#).unwrap();
    Module::new(engine, bytes).unwrap()
}

struct Scene {
    directory: tempfile::TempDir,
    engine: Engine,
    artefacts: Artefacts,
}

impl Scene {
    /// One module is kept, under the digest `one`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scene = Self {
            engine: engine(true),
            artefacts: Artefacts::open(directory.path().join("compiled"), LIMIT).unwrap(),
            directory,
        };
        scene.artefacts.keep(&compiled(&scene.engine), "one").unwrap();
        scene
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("compiled")
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .filter(|path| path.extension().is_some_and(|ending| ending == "cwasm"))
            .collect();
        files.sort();
        files
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1);
        files[0].clone()
    }

    fn loads(&self) -> bool {
        self.artefacts.load(&self.engine, "one").is_some()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_kept_comes_back_after_a_restart_and_runs() {
    let scene = Scene::new();
    let again = Artefacts::open(scene.path(), LIMIT).unwrap();
    let module = again.load(&scene.engine, "one").unwrap();
    assert!(module.get_export("f").is_some());
    assert!(again.load(&scene.engine, "two").is_none());
    assert_eq!((mode(&scene.path()), mode(&scene.only_file())), (0o700, 0o600));
    assert_eq!(mode(&scene.path().join("key")), 0o600);
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_never_loaded() {
    let scene = Scene::new();
    let file = scene.only_file();
    let whole = fs::read(&file).unwrap();
    for at in [0, 7, 8, 39, 40, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        assert!(!scene.loads(), "damaged at {at}");
    }
    for length in [0, 8, 39, 40, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(!scene.loads(), "cut to {length}");
    }
    fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
    assert!(!scene.loads(), "one byte more");
    fs::write(&file, &whole).unwrap();
    assert!(scene.loads());
}

#[test]
fn a_file_that_is_not_ours_or_for_something_else_is_never_loaded() {
    let scene = Scene::new();
    let file = scene.only_file();
    // Another module's file under this one's name.
    scene.artefacts.keep(&compiled(&scene.engine), "two").unwrap();
    let other = scene.files().into_iter().find(|path| *path != file).unwrap();
    fs::copy(&other, &file).unwrap();
    assert!(!scene.loads(), "another module's");
    // The same module's from another gateway's directory.
    let foreign = Scene::new();
    fs::copy(foreign.only_file(), &file).unwrap();
    assert!(!scene.loads(), "another gateway's");
    scene.artefacts.keep(&compiled(&scene.engine), "one").unwrap();
    assert!(scene.loads());
    // Another compiler's settings look for another file, and do not take this one.
    assert!(scene.artefacts.load(&engine(false), "one").is_none());
    let renamed = scene.path().join(crate::file_name(&engine(false), "one"));
    fs::copy(&file, renamed).unwrap();
    assert!(
        scene.artefacts.load(&engine(false), "one").is_none(),
        "another compiler's"
    );
}

#[test]
fn a_file_that_others_could_have_written_is_never_loaded() {
    let scene = Scene::new();
    let file = scene.only_file();
    fs::set_permissions(&file, Permissions::from_mode(0o620)).unwrap();
    assert!(!scene.loads(), "open to the group");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(scene.loads());
    let moved = scene.directory.path().join("moved");
    fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    assert!(!scene.loads(), "a link");
    // A key that others could read seals nothing: a new one is made, and old files are not believed.
    fs::remove_file(&file).unwrap();
    fs::rename(&moved, &file).unwrap();
    fs::set_permissions(scene.path().join("key"), Permissions::from_mode(0o644)).unwrap();
    let again = Artefacts::open(scene.path(), LIMIT).unwrap();
    assert!(again.load(&scene.engine, "one").is_none(), "an old key's");
    assert_eq!(mode(&scene.path().join("key")), 0o600);
}

#[test]
fn a_directory_that_was_open_is_closed_and_what_was_cut_off_is_removed() {
    let scene = Scene::new();
    fs::set_permissions(scene.path(), Permissions::from_mode(0o777)).unwrap();
    fs::write(scene.path().join("x.1.partial"), b"half").unwrap();
    drop(Artefacts::open(scene.path(), LIMIT).unwrap());
    assert_eq!(mode(&scene.path()), 0o700);
    assert!(!scene.path().join("x.1.partial").exists());
    let file = scene.directory.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(Artefacts::open(file, LIMIT).is_err());
}

#[test]
fn the_module_used_longest_ago_goes_when_room_is_short() {
    let scene = Scene::new();
    let length = fs::metadata(scene.only_file()).unwrap().len();
    let small = Artefacts::open(scene.path(), length * 2).unwrap();
    small.keep(&compiled(&scene.engine), "two").unwrap();
    for (age, file) in [10, 20].into_iter().zip(scene.files()) {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(clock::wall() - Duration::from_secs(age))
            .unwrap();
    }
    // The older one is `two`; being used makes it the younger one.
    assert!(small.load(&scene.engine, "two").is_some());
    small.keep(&compiled(&scene.engine), "three").unwrap();
    assert!(small.load(&scene.engine, "one").is_none());
    assert!(small.load(&scene.engine, "two").is_some());
    assert!(small.load(&scene.engine, "three").is_some());
    let tiny = Artefacts::open(scene.path(), length - 1).unwrap();
    assert!(tiny.keep(&compiled(&scene.engine), "four").is_err());
}
