//! The pages in `asm-notes/` against what the compiler built and the processor does.
//!
//! Five locks: the version (here), the offsets and the listings (`listings`), the unwind rule
//! (`unwinding`), the behaviour (`registers`, `not_saved`). `UPDATE_NOTES=1` writes the listings
//! anew. What cannot run here says so on standard error, past the harness, which would hide it.

#![expect(unsafe_code, reason = "registers, stacks, and code that is looked at as bytes")]

use std::{fs, path::Path};

mod arch;
mod built;
mod listings;
mod not_saved;
mod registers;
mod switch;
mod thread_pointer;
mod unwinding;

/// The pages of the folder; `x86_64.md` is the one that teaches.
const PAGES: [&str; 8] = [
    "README.md",
    "x86_64.md",
    "aarch64.md",
    "unwinding.md",
    "not-saved.md",
    "stacks.md",
    "thread-pointer.md",
    "interposition.md",
];

/// A file of the package.
fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A page of the notes.
fn page(name: &str) -> String {
    text(&format!("asm-notes/{name}"))
}

/// Says that a check did not run, where the harness does not swallow it.
fn skipped(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// The lines of the fenced block of `page` that begins with "```" and `tag`.
fn block<'p>(page: &'p str, tag: &str) -> Vec<&'p str> {
    let mut lines = page.lines().skip_while(|line| line.strip_prefix("```") != Some(tag));
    assert!(lines.next().is_some(), "no block ```{tag}");
    lines.take_while(|line| *line != "```").collect()
}

/// The cells of the rows of the table of `page` that stands under `heading`, without its head.
fn table<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let rows = lines.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    let cells = |row: &'p str| row.trim_matches('|').split('|').map(str::trim).collect();
    let found: Vec<_> = rows.skip(2).map(cells).collect();
    assert!(!found.is_empty(), "no table under {heading:?}");
    found
}

/// The version that the lock file of the package has of `name`.
fn locked_version(lock: &str, name: &str) -> Option<String> {
    let entry = lock.split("[[package]]").find(|e| e.contains(&format!("name = \"{name}\"\n")))?;
    entry.lines().find_map(|l| l.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned))
}

/// Lock 1: a new version of the switch makes the notes red before anyone reads them.
#[test]
fn the_notes_are_about_the_version_that_is_built() {
    let version = locked_version(&text("Cargo.lock"), "corosensei").expect("it is locked");
    for name in ["x86_64.md", "aarch64.md", "unwinding.md"] {
        let page = page(name);
        let front = page.lines().find(|line| line.contains("corosensei")).unwrap_or_default();
        let about = front.split("corosensei ").nth(1).unwrap_or_default();
        let about = about.split([' ', ',']).next().unwrap_or_default();
        assert_eq!(about, version, "{name}: {front}");
    }
}

/// A page that names a test is worth as much as the test.
#[test]
fn every_test_that_a_page_names_exists() {
    fn rust(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                rust(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let (root, mut all) = (Path::new(env!("CARGO_MANIFEST_DIR")), String::new());
    ["src", "tests"].into_iter().for_each(|folder| rust(&root.join(folder), &mut all));
    let (mut named, mut missing) = (0, Vec::new());
    for name in PAGES {
        let page = page(name);
        let words = page.split(|c: char| !c.is_alphanumeric() && c != '_');
        let is_test = |word: &&str| word.matches('_').count() > 3 && !word.starts_with("DW_");
        for word in words.filter(is_test) {
            named += 1;
            if !all.contains(&format!("fn {word}(")) {
                missing.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(named > 20, "only {named} tests are named");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Where there are no notes, they must not look as if they were verified.
#[test]
fn the_targets_that_have_notes_are_those_that_this_test_knows() {
    let page = page("README.md");
    let rows: Vec<_> = table(&page, "## Status").iter().map(|row| row[0].to_owned()).collect();
    let mut expected = arch::ALL.map(|arch| arch.target.to_owned()).to_vec();
    expected.push("all others".into());
    assert_eq!(rows, expected);
    assert!(page.contains("| all others | none; **unverified** |"));
    let listings = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm-notes/listings");
    let listed = fs::read_dir(listings).unwrap().count();
    assert_eq!(listed, arch::ALL.len());
}
