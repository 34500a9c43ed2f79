//! Which programs and tests the workspace really has, asked of cargo.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::Cmd;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The targets of the package with the labs and the tests.
#[derive(Debug)]
pub struct TestPackage {
    targets: Vec<Target>,
}

impl TestPackage {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo fails or answers something else.
    pub fn read() -> Result<Self> {
        let asked = Cmd::cargo(["metadata", "--no-deps", "--format-version", "1"]).keep(false)?;
        if !asked.status.success() {
            bail!("`cargo metadata` failed ({})", asked.status);
        }
        Self::parse(&asked.stdout)
    }

    fn parse(text: &str) -> Result<Self> {
        let metadata: Metadata = serde_json::from_str(text).context("cannot read cargo's metadata")?;
        let package = metadata.packages.into_iter().find(|package| package.name == "lbx-tests");
        Ok(Self { targets: package.context("the workspace has no package lbx-tests")?.targets })
    }

    /// Whether it has a test binary of this name.
    pub fn has_test(&self, name: &str) -> bool {
        let mut tests = self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "test"));
        tests.any(|target| target.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_by_kind_and_name() {
        let text = r#"{"packages":[{"name":"other","targets":[]},{"name":"lbx-tests","targets":[
            {"name":"lbx_tests","kind":["lib"]},{"name":"lbx-lab","kind":["bin"]},
            {"name":"vm","kind":["test"]},{"name":"bpf","kind":["test"]}]}]}"#;
        let package = TestPackage::parse(text).unwrap();
        assert!(package.has_test("vm") && package.has_test("bpf"));
        assert!(!package.has_test("lbx-lab") && !package.has_test("v") && !package.has_test("netns"));
        assert!(TestPackage::parse(r#"{"packages":[]}"#).is_err());
    }

    #[test]
    fn this_workspace_answers() {
        TestPackage::read().unwrap();
    }
}
