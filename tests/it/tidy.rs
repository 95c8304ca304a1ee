//! The house rules that a machine can check.
//!
//! Each rule is a function from the source text to a list of offences, so that `the_rules_can_fail`
//! can show every one of them a text that breaks it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Files that may contain the keyword `unsafe`: exactly those that do.
const UNSAFE_FILES: &[&str] = &[
    "src/coro/base.rs",
    "src/coro/float.rs",
    "src/coro/guard.rs",
    "src/coro/mod.rs",
    "src/coro/overflow.rs",
    "src/coro/pool.rs",
    "src/coro/snapshot.rs",
    "src/coro/stack.rs",
    "src/coro/tests.rs",
    "src/coro/tests/notes.rs",
    "src/hub/alarm.rs",
    "src/hub/calls.rs",
    "src/hub/control.rs",
    "src/hub/fork.rs",
    "src/hub/guest.rs",
    "src/hub/io.rs",
    "src/hub/lint.rs",
    "src/hub/mod.rs",
    "src/hub/park.rs",
    "src/hub/pulse.rs",
    "src/hub/run.rs",
    "src/hub/scope.rs",
    "src/hub/spawn.rs",
    "src/hub/waker.rs",
    "src/interpose/accept.rs",
    "src/interpose/child.rs",
    "src/interpose/close.rs",
    "src/interpose/connect.rs",
    "src/interpose/create.rs",
    "src/interpose/descriptors.rs",
    "src/interpose/early.rs",
    "src/interpose/elf.rs",
    "src/interpose/elsewhere.rs",
    "src/interpose/export.rs",
    "src/interpose/flock.rs",
    "src/interpose/futex.rs",
    "src/interpose/identity.rs",
    "src/interpose/inside.rs",
    "src/interpose/locks/barrier.rs",
    "src/interpose/locks/c11.rs",
    "src/interpose/locks/condition.rs",
    "src/interpose/locks/layout.rs",
    "src/interpose/locks/mutex.rs",
    "src/interpose/locks/once.rs",
    "src/interpose/locks/rwlock.rs",
    "src/interpose/locks/semaphore.rs",
    "src/interpose/kernel.rs",
    "src/interpose/lock.rs",
    "src/interpose/marked.rs",
    "src/interpose/names.rs",
    "src/interpose/next.rs",
    "src/interpose/parts.rs",
    "src/interpose/poll.rs",
    "src/interpose/queue.rs",
    "src/interpose/receive.rs",
    "src/interpose/self_test.rs",
    "src/interpose/send.rs",
    "src/interpose/sleep.rs",
    "src/interpose/status.rs",
    "src/interpose/thread.rs",
    "src/interpose/wait.rs",
    "src/latch.rs",
    "src/interpose/transfer.rs",
    "src/net/convert.rs",
    "src/net/hyper.rs",
    "src/process.rs",
    "src/reactor/inbox.rs",
    "src/signal.rs",
    "src/sync/lane.rs",
    "src/sync/line.rs",
    "src/sync/mutex.rs",
    "src/sync/rwlock.rs",
    "src/sys/raw.rs",
    "src/thread/block.rs",
    "src/thread/layout.rs",
    "src/thread/scope.rs",
    "src/thread/spawn.rs",
];

/// The house, floor by floor (ARCHITECTURE.md).
const FLOORS: &[(&str, u32)] = &[
    ("atomics", 0),
    ("latch", 0),
    ("report", 0),
    ("trace", 0),
    ("coro", 0),
    ("time", 1),
    ("deferred", 1),
    ("sys", 2),
    ("reactor", 3),
    ("hub", 4),
    ("sync", 5),
    ("signal", 6),
    ("net", 6),
    ("io", 6),
    ("dns", 6),
    ("process", 6),
    ("offload", 6),
    ("bridge", 7),
    ("task", 7),
    ("protocol", 7),
    ("crochet", 7),
    ("db", 7),
    ("thread", 8),
    ("interpose", 8),
    ("testing", 9),
    ("guide", 9),
];

/// The longest line, in characters. A row of a table in a doc comment cannot be broken.
const COLUMNS_MAX: usize = 100;

/// A file: its path from the root of the package, and its text.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, in order.
fn sources(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

/// The text without comments, and with empty string and character literals. Lines stay lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let mut i = 0;
    while i < bytes.len() {
        let c = at(i);
        let after_name = code.chars().last().is_some_and(is_name_part);
        if c == '/' && at(i + 1) == '/' {
            while i < bytes.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    ('\n', _) => (code, i) = (code + "\n", i + 1),
                    _ => i += 1,
                }
                if depth == 0 || i >= bytes.len() {
                    break;
                }
            }
        } else if c == 'r' && !after_name && matches!(at(i + 1), '"' | '#') && raw_start(&bytes, i)
        {
            let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
            i += hashes + 2;
            let end: String = std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
            while i < bytes.len() && !(0..end.len()).all(|k| at(i + k) == end.as_bytes()[k] as char)
            {
                if at(i) == '\n' {
                    code.push('\n');
                }
                i += 1;
            }
            i += end.len();
            code.push_str("\"\"");
        } else if c == '"' {
            i += 1;
            while i < bytes.len() && at(i) != '"' {
                if at(i) == '\n' {
                    code.push('\n');
                }
                i += if at(i) == '\\' && at(i + 1) != '\n' { 2 } else { 1 };
            }
            i += 1;
            code.push_str("\"\"");
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += 2;
            while i < bytes.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
            code.push_str("''");
        } else {
            code.push(c);
            i += 1;
        }
    }
    code
}

/// Whether a raw string begins here, and not a raw name (`r#type`).
fn raw_start(text: &[char], at: usize) -> bool {
    text[at + 1..].iter().find(|c| **c != '#') == Some(&'"')
}

fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The name at the beginning of `text`.
fn name_of(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c| !is_name_part(c)).unwrap_or(text.len())]
}

/// Where `word` stands in `code` as a word of its own: the texts after it, with what was before.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
    code.match_indices(word).filter_map(move |(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let joined = before.chars().next_back().is_some_and(is_name_part)
            || after.chars().next().is_some_and(is_name_part);
        (!joined).then_some((before, after))
    })
}

/// The first names of a `use` tree: `{a::b, c}` gives a and c; `a::b` gives a.
fn first_names(tree: &str) -> Vec<&str> {
    let tree = tree.trim_start();
    let Some(group) = tree.strip_prefix('{') else { return vec![name_of(tree)] };
    let (mut depth, mut start, mut names) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if (c == ',' && depth == 1) || depth == 0 {
            names.push(name_of(&group[start..at]));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What `lib.rs` re-exports, with the module that it comes from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let code = code_of(lib);
    let mut found = BTreeMap::new();
    for (_, tree) in words(&code, "pub use") {
        let tree = tree.trim_start();
        let tree = tree.strip_prefix("crate::").unwrap_or(tree);
        let module = name_of(tree);
        let tree = &tree[..tree.find(';').unwrap_or(tree.len())];
        let names = tree[module.len()..].trim_start_matches([':', '{']).trim_end_matches('}');
        for item in names.split(',') {
            let name = item.rsplit([' ', ':']).find(|part| !part.trim().is_empty());
            if let Some(name) = name {
                found.insert(name_of(name).to_owned(), module.to_owned());
            }
        }
    }
    found
}

fn floor_of(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The module of a file: `src/hub/park.rs` and `src/hub.rs` belong to `hub`.
fn module_of(path: &str) -> &str {
    name_of(path.strip_prefix("src/").unwrap_or(path))
}

/// Uses of a higher floor, and of names that nobody knows.
fn floor_offences(source: &Source, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let module = module_of(&source.path);
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = floor_of(module) else {
        return vec![format!("{}: `{module}` is on no floor", source.path)];
    };
    let code = code_of(&source.text);
    let mut used: Vec<&str> = Vec::new();
    for (before, after) in words(&code, "crate") {
        if let Some(path) = after.strip_prefix("::")
            && !before.ends_with('$')
        {
            used.extend(first_names(path));
        }
    }
    if source.path.matches('/').count() == 2 {
        for (_, path) in
            code.match_indices("super::super::").map(|(at, m)| ((), &code[at + m.len()..]))
        {
            used.extend(first_names(path));
        }
    }
    let judge = |name: &str| {
        let target = reexports.get(name).map_or(name, String::as_str);
        match floor_of(target) {
            None => Some(format!("{}: crate::{name} is on no floor", source.path)),
            Some(floor) if floor > own => Some(format!(
                "{}: floor {own} uses crate::{name} of floor {floor} ({target})",
                source.path
            )),
            Some(_) => None,
        }
    };
    used.into_iter().filter_map(judge).collect()
}

/// Offences against line length and against words that must not be committed.
fn line_offences(source: &Source) -> Vec<String> {
    let code = code_of(&source.text);
    let banned = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let mut found = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let table = ["/// |", "//! |"].iter().any(|row| line.trim_start().starts_with(row));
        if line.chars().count() > COLUMNS_MAX && !table {
            found.push(format!("{}:{}: {} columns", source.path, number + 1, line.chars().count()));
        }
    }
    for (number, line) in code.lines().enumerate() {
        for word in banned.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: {word}", source.path, number + 1));
        }
    }
    found
}

fn has_unsafe(code: &str) -> bool {
    words(code, "unsafe").next().is_some()
}

#[track_caller]
fn assert_none(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} offence(s):\n{}", offences.len(), offences.join("\n"));
}

#[test]
fn unsafe_is_only_in_the_listed_files_and_each_says_why() {
    let listed: BTreeSet<&str> = UNSAFE_FILES.iter().copied().collect();
    let mut offences = Vec::new();
    let mut found = BTreeSet::new();
    for source in sources("src") {
        let code = code_of(&source.text);
        if !has_unsafe(&code) {
            continue;
        }
        if !listed.contains(source.path.as_str()) {
            offences.push(format!("{}: `unsafe` in a file that is not listed", source.path));
        }
        let (whole, item) = ("#![expect(unsafe_code", "#[expect(unsafe_code");
        if !code.contains(whole) && !code.contains(item) {
            offences.push(format!("{}: no #[expect(unsafe_code, reason = …)]", source.path));
        }
        found.insert(source.path);
    }
    let stale = listed.iter().filter(|path| !found.contains(**path));
    offences.extend(stale.map(|path| format!("{path}: listed, but has no `unsafe`")));
    assert_none(offences);
}

#[test]
fn unsafe_code_is_denied_for_the_crate() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.lines().any(|line| line.trim() == r#"unsafe_code = "deny""#));
}

/// PARK-1: one call site of `suspend`, and beneath it the one call of the Suspender's.
#[test]
fn greenlets_are_suspended_in_one_place() {
    let mut sites = Vec::new();
    for source in sources("src") {
        if module_of(&source.path) != "coro" {
            let code = code_of(&source.text);
            sites.extend(code.match_indices(".suspend(").map(|_| source.path.clone()));
        }
    }
    assert_eq!(sites, ["src/hub/control.rs", "src/hub/park.rs"]);
}

#[test]
fn only_coro_names_corosensei() {
    let strangers = sources("src").into_iter().filter(|source| {
        module_of(&source.path) != "coro" && code_of(&source.text).contains("corosensei")
    });
    assert_none(strangers.map(|source| source.path).collect());
}

#[test]
fn every_file_uses_its_own_floor_and_those_below() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let reexports = reexports(&lib);
    assert_eq!(reexports.get("Greenlet").map(String::as_str), Some("hub"), "{reexports:?}");
    assert_none(sources("src").iter().flat_map(|s| floor_offences(s, &reexports)).collect());
}

#[test]
fn lines_fit_and_nothing_unfinished_is_committed() {
    let folders = ["src", "tests", "examples", "benches"];
    let all = folders.into_iter().flat_map(sources);
    assert_none(all.flat_map(|source| line_offences(&source)).collect());
}

#[test]
fn the_changelog_knows_this_version() {
    let Ok(changelog) = fs::read_to_string(root().join("CHANGELOG.md")) else { return };
    let version = env!("CARGO_PKG_VERSION");
    assert!(changelog.contains(version), "CHANGELOG.md has nothing about {version}");
}

#[test]
fn every_example_is_driven_by_a_test() {
    let driver = fs::read_to_string(root().join("tests/it/examples.rs")).unwrap();
    if driver.contains("(being written)") {
        return;
    }
    let undriven = sources("examples").into_iter().filter(|example| {
        let name = Path::new(&example.path).file_stem().unwrap().to_str().unwrap();
        !driver.contains(name)
    });
    assert_none(undriven.map(|example| example.path).collect());
}

/// Shows every rule a text that breaks it.
#[test]
fn the_rules_can_fail() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let reexports = reexports("pub use hub::{spawn, Greenlet};\npub use time::Deadline as D;\n");
    assert_eq!(reexports.len(), 3);
    assert_eq!(reexports["D"], "time");
    let floors = |path: &str, text: &str| floor_offences(&source(path, text), &reexports).len();
    assert_eq!(floors("src/time/wheel.rs", "use crate::hub::Hub;"), 1);
    assert_eq!(floors("src/time/wheel.rs", "// crate::hub\nuse crate::report;"), 0);
    assert_eq!(floors("src/time/wheel.rs", "fn f() { crate::spawn(|| ()) }"), 1);
    assert_eq!(floors("src/hub/mod.rs", "use crate::{bridge::{A, B}, D, sys::X, net};"), 2);
    assert_eq!(floors("src/hub/mod.rs", "use super::super::bridge;"), 1);
    assert_eq!(floors("src/hub/mod.rs", "use crate::nowhere;"), 1);
    assert_eq!(floors("src/cellar/mod.rs", ""), 1);
    let lines = |text: &str| line_offences(&source("x", text)).len();
    assert_eq!(lines(&format!("//{}", "x".repeat(99))), 1);
    assert_eq!(lines(&format!("//{}", "ä".repeat(98))), 0);
    assert_eq!(lines(&format!("/// |{}", "x".repeat(99))), 0);
    assert_eq!(lines("fn f() { todo!() } #[ignore] fn g() { dbg!(1); }"), 3);
    assert_eq!(lines("// todo!()\nlet a = \"dbg!\";"), 0);
    assert!(has_unsafe(&code_of("unsafe { f() }")));
    let tricky = "// unsafe\n#[expect(unsafe_code)] fn f<'a>() { let _ = ('\"', \"unsafe\", '\\'', \
                  r#\"\" unsafe\"#, r#fn, 'u'); } /* unsafe /* */ unsafe */";
    assert!(!has_unsafe(&code_of(tricky)), "{}", code_of(tricky));
    assert!(has_unsafe(&code_of("let c = '\"'; unsafe { f() } \"")));
}
