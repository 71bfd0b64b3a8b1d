//! `docs/unsafe.md` names every module that may say `unsafe`, and no other; drivers and
//! applications say none.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The checkout that is tested. Not what was known when this was compiled: another checkout may share
/// the folder that cargo builds in.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

/// All Rust files below `folder`, as paths from the root.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Whether a file lets itself say `unsafe`, on one line or on several.
fn claims_unsafe(text: &str) -> bool {
    let dense: String = text.split_whitespace().collect();
    dense.contains("expect(unsafe_code,") || dense.contains("allow(unsafe_code")
}

#[test]
fn the_list_of_unsafe_modules_is_complete_and_has_no_more() {
    let claiming: BTreeSet<String> = sources("src")
        .iter()
        .filter(|path| claims_unsafe(&text(path)))
        .map(|path| path.display().to_string())
        .collect();
    let document = text(Path::new("docs/unsafe.md"));
    // What stands between backquotes and is a source file.
    let named: BTreeSet<String> = document
        .split('`')
        .filter(|word| word.starts_with("src/") && word.ends_with(".rs"))
        .map(str::to_owned)
        .collect();
    assert_eq!(claiming, named, "modules that say `unsafe`, and modules in docs/unsafe.md");
}

#[test]
fn drivers_and_applications_forbid_it() {
    for folder in ["drivers", "apps", "tests/wire"] {
        for path in sources(folder) {
            let text = text(&path);
            assert!(!claims_unsafe(&text), "{}", path.display());
            if path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") {
                assert!(text.contains("#![forbid(unsafe_code)]"), "{}", path.display());
            }
        }
    }
}
