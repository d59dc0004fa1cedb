//! What a run leaves behind in its `--artifacts` folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::config::MachineSpec;
use crate::exit::{Exit, Failure};

/// The folder of `--artifacts`, if there is one.
pub(super) struct Artifacts {
    folder: Option<PathBuf>,
}

impl Artifacts {
    /// Makes the folder and writes the config as it runs.
    ///
    /// # Errors
    /// The folder or the file can't be written.
    pub(super) fn open(folder: Option<&Path>, spec: &MachineSpec) -> Result<Self, Failure> {
        let artifacts = Self {
            folder: folder.map(Path::to_owned),
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
            artifacts.write_json("config.json", &spec.to_config())?;
        }
        Ok(artifacts)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// Where every event goes, a line each.
    pub(super) fn events(&self) -> Result<Option<File>, Failure> {
        let create = |path: PathBuf| File::create(&path).map_err(|error| unwritable(&path, &error));
        self.path("events.ndjson").map(create).transpose()
    }

    /// Where the serial port's output goes.
    pub(super) fn serial(&self) -> Option<PathBuf> {
        self.path("serial.log")
    }

    /// Where the last picture of `head` goes.
    pub(super) fn screenshot(&self, head: usize) -> Option<PathBuf> {
        self.path(&format!("head{head}.png"))
    }

    /// Writes how the run ended.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn report(&self, exit: Exit) -> Result<(), Failure> {
        let report = serde_json::json!({ "exit": exit.code(), "reason": exit.word() });
        self.write_json("exit.json", &report)
    }

    fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<(), Failure> {
        let Some(path) = self.path(name) else {
            return Ok(());
        };
        let text = serde_json::to_vec_pretty(value)
            .map_err(|error| Failure::of(Exit::Internal, &error).context(name.to_owned()))?;
        std::fs::write(&path, text).map_err(|error| unwritable(&path, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::of(Exit::Resource, error)
        .context(format!("can't write {}", path.display()))
        .hint("check that its folder is there and may be written")
}
