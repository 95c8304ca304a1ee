//! What is written for people, held to what is there: links, the guide, the tour of examples, the
//! README's numbers.
//!
//! Each rule is a function from texts to a list of offences, as in `tidy`.

use std::{fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files in `folder` whose names end in `ending`, in order.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let names = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    found.sort();
    found
}

/// Whether this is the package as it is published, which leaves folders out.
fn is_published() -> bool {
    root().join("Cargo.toml.orig").exists()
}

/// Where the links of a page go that name files: without those that are URLs, paths of Rust, or
/// places in the same page. Code is not looked at.
fn linked_files(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    let targets = prose.flat_map(|text| {
        let inline = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
        let defined = text.lines().filter(|line| line.starts_with('['));
        let defined = defined.filter_map(|line| Some(line.split_once("]: ")?.1));
        inline.chain(defined).filter_map(|target| target.split([')', '#']).next())
    });
    let is_file = |target: &&str| !target.is_empty() && !target.contains(':') && *target != "…";
    targets.filter(is_file).collect()
}

/// Links of the page at `path` to what does not exist.
fn dead_links(path: &str, text: &str) -> Vec<String> {
    let root = root();
    let folder = root.join(path).parent().unwrap().to_owned();
    let is_dead = |target: &&str| {
        let left_out = is_published() && {
            let mut parts = target.split('/').filter(|part| *part != "..");
            let top = parts.next().unwrap_or_default();
            parts.next().is_some() && !root.join(top).exists() && !folder.join(top).exists()
        };
        !left_out && !folder.join(target).exists()
    };
    let dead = linked_files(text).into_iter().filter(is_dead);
    dead.map(|target| format!("{path}: a link to {target}, which does not exist")).collect()
}

/// What an example's header lacks of what each one has.
fn missing_in_header(example: &str) -> Vec<&'static str> {
    let header: Vec<&str> = example.lines().take_while(|line| line.starts_with("//!")).collect();
    let has = |part: &&str| header.iter().any(|line| line.starts_with(part));
    ["//! Run:    `cargo run ", "//! Poke:   ", "//! Prints:"]
        .into_iter()
        .filter(|part| !has(part))
        .collect()
}

#[track_caller]
fn assert_none(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} offence(s):\n{}", offences.len(), offences.join("\n"));
}

#[test]
fn links_between_pages_go_somewhere() {
    let mut offences = Vec::new();
    for folder in ["", "asm-notes/", "benches/", "examples/", "src/guide/"] {
        for name in files(folder, ".md") {
            let path = format!("{folder}{name}");
            offences.extend(dead_links(&path, &read(&path)));
        }
    }
    assert_none(offences);
}

/// On docs.rs no file lies beside the README: `lib.rs` defines its links to files anew.
#[test]
fn the_readmes_links_to_files_are_defined_for_the_docs_too() {
    let (readme, lib) = (read("README.md"), read("src/lib.rs"));
    let has = |way: &str, file: &str| lib.contains(&format!("\"/{way}/main/{file}\")"));
    let lacks = |file: &&str| !has(if file.ends_with(".svg") { "raw" } else { "blob" }, file);
    let lost = linked_files(&readme).into_iter().filter(lacks);
    assert_none(lost.map(|file| format!("src/lib.rs does not define a link to {file}")).collect());
}

#[test]
fn every_page_of_the_guide_is_declared_and_listed() {
    let index = read("src/guide/mod.rs");
    let pages = files("src/guide", ".md");
    assert!(pages.len() >= 13, "{pages:?}");
    let lost = pages.iter().filter(|page| {
        let name = page.strip_suffix(".md").unwrap();
        !index.contains(&format!("    {name} \"{page}\""))
            || !index.contains(&format!("[`{name}`]"))
    });
    assert_none(lost.map(|page| format!("src/guide/mod.rs does not have {page}")).collect());
}

#[test]
fn every_example_is_on_the_tour_and_says_how_to_run_it() {
    let tour = read("examples/README.md");
    let mut offences = Vec::new();
    for file in files("examples", ".rs") {
        let text = read(&format!("examples/{file}"));
        let missing = missing_in_header(&text).into_iter();
        offences.extend(missing.map(|part| format!("examples/{file} has no line {part:?}")));
        if !tour.contains(&format!("({file})")) {
            offences.push(format!("examples/README.md does not have {file}"));
        }
    }
    assert_none(offences);
}

/// Each crate that comes along is one more to trust and to build.
#[test]
fn the_default_features_bring_as_many_crates_as_the_readme_says() {
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let mut tree = Command::new(cargo);
    tree.current_dir(root()).args(["tree", "--offline", "-e", "normal", "--prefix", "none"]);
    let tree = tree.output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let mut crates: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    crates.sort_unstable();
    crates.dedup();
    crates.retain(|name| *name != "greenloop");
    assert!(crates.len() <= 8, "{crates:?}");
    let said = format!("{} crates beside itself: {}", crates.len(), crates.join(", "));
    let readme = read("README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.replace('`', "").contains(&said), "the README does not say: {said}");
}

/// Shows every rule a text that breaks it.
#[test]
fn the_rules_for_pages_can_fail() {
    let text = "[a](there.md) [b](https://x.y/z) [c](crate::run) [d](#e) `[f](g)`\n\
                ```text\n[h](i)\n```\n[j](../k.md#l)\n[m]: n.md\n[o]: https://x.y";
    assert_eq!(linked_files(text), ["there.md", "g", "../k.md", "n.md"]);
    assert_eq!(dead_links("examples/README.md", "[a](parked.rs) [b](../README.md)").len(), 0);
    assert_eq!(dead_links("examples/README.md", "[a](driven.rs) [b](../../README.md)").len(), 2);
    let header = "//! Shows.\n//!\n//! Run:    `cargo run --example x`\n//! Poke:   it\n";
    assert_eq!(missing_in_header(&format!("{header}//! Prints: x\n")), [""; 0]);
    assert_eq!(missing_in_header(&format!("{header}\n//! Prints: x\n")), ["//! Prints:"]);
    assert_eq!(missing_in_header("fn main() {}").len(), 3);
}
