//! What the operator changed at run time, kept in the run directory: it survives restart and reload, and ends
//! with `--clear` or with the next boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lbx_common::target::State;
use lbx_common::wish::Owner;
use serde::{Deserialize, Serialize};

use super::wishes::WishBook;
use crate::kept::{boot, replace};

/// File name within the run directory.
const FILE: &str = "overrides.json";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    schema: u32,
    /// The boot they belong to: a run directory that is no tmpfs would otherwise keep them for ever.
    boot: String,
    #[serde(default)]
    states: BTreeMap<String, String>,
    #[serde(default)]
    weights: BTreeMap<String, u32>,
}

/// The file with the overrides.
#[derive(Debug)]
pub struct Overrides {
    path: PathBuf,
    boot: String,
    kept: Kept,
}

impl Overrides {
    /// Reads the file of a run directory. One that makes no sense is put aside and said, not fatal.
    pub fn load(run_dir: &Path) -> Self {
        Self::load_for(run_dir, boot())
    }

    fn load_for(run_dir: &Path, boot: String) -> Self {
        let path = run_dir.join(FILE);
        let fresh = Kept { schema: 1, boot: boot.clone(), ..Kept::default() };
        let kept = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Kept>(&bytes) {
                Ok(kept) if kept.schema == 1 && kept.boot == boot => kept,
                Ok(_) => fresh,
                Err(error) => {
                    let aside = path.with_extension("json.bad");
                    let _ = fs::rename(&path, &aside);
                    tracing::warn!(
                        "{} makes no sense ({error}); put aside as {}",
                        path.display(),
                        aside.display()
                    );
                    fresh
                }
            },
            Err(_) => fresh,
        };
        Self { path, boot, kept }
    }

    /// Sets or clears the state wished for a target.
    ///
    /// # Errors
    /// The file could not be written; nothing is changed then.
    pub fn set_state(&mut self, target: &str, state: Option<State>) -> Result<()> {
        let mut kept = self.kept.clone();
        match state {
            Some(state) => kept.states.insert(target.to_owned(), state.name().to_owned()),
            None => kept.states.remove(target),
        };
        self.save(kept)
    }

    /// Sets or clears the weight wished for a target.
    ///
    /// # Errors
    /// As for [`Overrides::set_state`].
    pub fn set_weight(&mut self, target: &str, weight: Option<u32>) -> Result<()> {
        let mut kept = self.kept.clone();
        match weight {
            Some(weight) => kept.weights.insert(target.to_owned(), weight),
            None => kept.weights.remove(target),
        };
        self.save(kept)
    }

    /// Puts all of them into the book.
    pub fn apply(&self, book: &mut WishBook) {
        for (target, state) in &self.kept.states {
            if let Some(state) = State::from_name(state) {
                book.set_state(target, Owner::Operator, Some(state));
            }
        }
        for (target, weight) in &self.kept.weights {
            book.set_weight(target, Some(*weight));
        }
    }

    fn save(&mut self, mut kept: Kept) -> Result<()> {
        (kept.schema, kept.boot) = (1, self.boot.clone());
        if kept == self.kept && self.path.exists() {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&kept)?;
        replace(&self.path, text.as_bytes())
            .with_context(|| format!("cannot keep the override in {}", self.path.display()))?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_survive_the_process_but_not_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let mut overrides = Overrides::load_for(dir.path(), "boot-1".into());
        overrides.set_weight("web/a", Some(7)).unwrap();
        overrides.set_state("web/a", Some(State::Draining)).unwrap();
        let mut book = WishBook::default();
        Overrides::load_for(dir.path(), "boot-1".into()).apply(&mut book);
        assert_eq!(book.weight_override("web/a"), Some(7));
        assert_eq!(book.state("web/a").state, State::Draining);

        let mut book = WishBook::default();
        Overrides::load_for(dir.path(), "boot-2".into()).apply(&mut book);
        assert_eq!(book.weight_override("web/a"), None);
    }

    #[test]
    fn a_broken_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let mut overrides = Overrides::load_for(dir.path(), "boot".into());
        assert!(dir.path().join("overrides.json.bad").exists());
        overrides.set_weight("web/a", Some(7)).unwrap();
        overrides.set_weight("web/a", None).unwrap();
        let mut book = WishBook::default();
        Overrides::load_for(dir.path(), "boot".into()).apply(&mut book);
        assert_eq!(book.weight_override("web/a"), None);
    }
}
