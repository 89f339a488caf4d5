//! The header, the sources and the built library name the same functions, each once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Names that end at a parenthesis.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('(').filter_map(|(at, _)| {
        let name = text[..at].trim_end();
        let start = name.rfind(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')? + 1;
        name[start..].starts_with("lanline_").then_some(&name[start..])
    })
}

/// The header without its comments and without the bodies and names of its inline functions.
fn header() -> String {
    let mut text = fs::read_to_string(root().join("include/lanline.h")).unwrap();
    while let Some(start) = text.find("/*") {
        let end = start + text[start..].find("*/").expect("a comment ends") + 2;
        text.replace_range(start..end, " ");
    }
    while let Some(start) = text.find("LANLINE_INLINE void") {
        let end = start + text[start..].find("\n}\n").expect("an inline function ends") + 3;
        text.replace_range(start..end, " ");
    }
    text
}

/// What `src/ffi` exports.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root().join("src/ffi")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for export in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = functions(export).next().expect("an export is a function");
            assert!(names.insert(name.to_owned()), "{name} is exported twice");
        }
    }
    names
}

#[test]
fn the_header_declares_each_export_once_and_nothing_else() {
    let exported = exported();
    assert!(exported.len() > 30, "{exported:?}");
    let header = header();
    let mut declared = BTreeSet::new();
    for name in functions(&header) {
        assert!(declared.insert(name.to_owned()), "{name} is declared twice");
    }
    assert_eq!(declared, exported);
    // Types and constants are there once, too.
    let lines: Vec<_> = header.lines().filter(|line| line.starts_with("typedef ")).collect();
    let distinct: BTreeSet<_> = lines.iter().collect();
    assert_eq!(lines.len(), distinct.len(), "{lines:?}");
}

/// The library of this very build, which cargo puts beside the tests or above them.
fn built_library() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let candidates = [folder.join("liblanline.so"), folder.parent()?.join("liblanline.so")];
    candidates.into_iter().find(|path| path.is_file())
}

fn symbols(library: &Path) -> Option<BTreeSet<String>> {
    let output = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(library)
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).ok()?;
    Some(
        text.lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn the_library_has_the_symbols_of_the_header_and_no_others() {
    let Some(library) = built_library() else {
        // Windows and macOS name it otherwise; there the sources are compared alone.
        if cfg!(target_os = "linux") {
            panic!("liblanline.so was not built");
        }
        return;
    };
    match symbols(&library) {
        Some(symbols) => assert_eq!(symbols, exported(), "{}", library.display()),
        None => assert!(std::env::var("CI").as_deref() != Ok("true"), "nm is missing"),
    }
}
