//! Locks 2 and 3: offsets, and every instruction of the switch.
//!
//! The built code is compared with `asm-notes/listings/`, and that with the annotated blocks of the
//! page: so a changed instruction parts a comment from what it was written about. Only what the
//! assembly templates say is compared, and not what the compiler puts around them: a newer
//! compiler does not turn the notes red.

use std::fs;

use crate::{
    arch::{ALL, Arch, HERE},
    block,
    built::disassembly,
    page,
    switch::{Seen, is_the_marker, look},
    table, text,
};

unsafe extern "C" {
    /// The two symbols that the switch has; their addresses alone are used. Each is of the kind
    /// that it is in corosensei, whose inlined code refers to it from this crate too: where a
    /// function meets a variable of its name in one unit, LLVM renames one of them.
    fn stack_init_trampoline();
    static stack_init_trampoline_return: [u8; 0];
}

const NAMES: [&str; 4] =
    ["stack_init_trampoline", "switch_and_link", "switch_yield", "switch_and_reset"];

/// Bytes of a coroutine's first function in which its end is looked for.
const FIRST_FUNCTION_BYTES: usize = 4096;

/// Where the trampoline begins, and its last instruction.
pub(crate) fn symbols() -> [usize; 2] {
    [stack_init_trampoline as *const () as usize, (&raw const stack_init_trampoline_return).addr()]
}

/// The instructions of one piece of the switch, as they were built.
fn built(name: &str, seen: &Seen) -> Option<Vec<String>> {
    match name {
        "stack_init_trampoline" => {
            let [start, end] = symbols();
            disassembly(start, end - start + HERE.trap.0)
        }
        "switch_and_link" => disassembly(seen.resumer - HERE.link_bytes.0, HERE.link_bytes.1),
        "switch_yield" => disassembly(seen.suspender - HERE.yield_bytes.0, HERE.yield_bytes.1),
        _ => {
            let code = disassembly(seen.initial_function, FIRST_FUNCTION_BYTES)?;
            Some((HERE.end)(&code).unwrap_or(code))
        }
    }
}

fn path(arch: &Arch, name: &str) -> String {
    format!("asm-notes/listings/{}/{name}.s", arch.target)
}

fn listing(arch: &Arch, name: &str) -> Vec<String> {
    text(&path(arch, name)).lines().map(str::to_owned).collect()
}

/// A block of the page without its comments.
fn instructions(block: &[&str]) -> Vec<String> {
    let bare = block.iter().map(|line| line.split(';').next().unwrap_or_default().trim());
    bare.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Lock 3, first half.
#[test]
fn the_listings_are_what_was_built() {
    let seen = look();
    for name in NAMES {
        let Some(built) = built(name, &seen) else { return };
        if std::env::var_os("UPDATE_NOTES").is_some() {
            let path = format!("{}/{}", env!("CARGO_MANIFEST_DIR"), path(HERE, name));
            fs::write(path, built.join("\n") + "\n").unwrap();
        }
        let listing = listing(HERE, name);
        assert_eq!(listing, built, "{name}: see what has changed; UPDATE_NOTES=1 rewrites");
    }
}

/// Lock 3, second half: it needs no tools, and no processor of the kind.
#[test]
fn the_annotated_blocks_are_the_listings() {
    for arch in ALL {
        let page = page(arch.page);
        for name in NAMES {
            let block = block(&page, &format!("asm {name}"));
            assert_eq!(instructions(&block), listing(arch, name), "{}: {name}", arch.page);
            let annotated = block.iter().filter(|line| line.contains(';')).count();
            assert!(annotated * 2 > block.len(), "{}: {name}: most lines say why", arch.page);
        }
    }
}

/// The words that a resumer and a suspended coroutine leave on their stacks, by the listings.
fn saved_words(arch: &Arch) -> [Vec<(usize, String)>; 2] {
    let [link_code, yield_code] = ["switch_and_link", "switch_yield"].map(|n| listing(arch, n));
    // The resumer saves some, and whoever is entered the rest: at first and again.
    let after_ret = yield_code.iter().position(|text| text == "ret").unwrap() + 1;
    let entered = [&listing(arch, "stack_init_trampoline"), &yield_code[after_ret..]];
    let [first, again] = entered.map(|code| {
        let mut all = (arch.saved)(code);
        let above = all.last().map_or(0, |(offset, _)| offset + 8);
        all.extend((arch.saved)(&link_code).into_iter().map(|(at, word)| (above + at, word)));
        all
    });
    assert_eq!(first, again, "{}: entered again as at first", arch.page);
    [first, (arch.saved)(&yield_code)]
}

/// Lock 2, first half: what the page says of offsets, counted from the listings.
#[test]
fn the_offsets_on_the_pages_are_those_of_the_listings() {
    for arch in ALL {
        let [parent, suspended] = saved_words(arch);
        let [pc, closure] = arch.initial;
        let mut expected = vec![
            ["`base - 8`".into(), "the first function".into()],
            ["`base - 16`".into(), "the link: the stack pointer of the resumer".into()],
            [format!("`initial sp + {pc}`"), "`stack_init_trampoline`".into()],
            [format!("`initial sp + {closure}`"), "the closure".into()],
        ];
        for (place, words) in [("link", parent), ("sp", suspended)] {
            assert_eq!(words.len(), 3);
            expected.extend(words.into_iter().map(|(at, w)| [format!("`{place} + {at}`"), w]));
        }
        let page = page(arch.page);
        let rows: Vec<_> = table(&page, "## Offsets").iter().map(|r| [r[0], r[1]]).collect();
        assert_eq!(rows, expected, "{}", arch.page);
    }
}

/// Lock 2, second half: they are those in memory.
#[test]
fn the_offsets_are_those_in_memory() {
    let seen = look();
    assert_eq!(seen.initial_return, symbols()[0]);
    assert!(is_the_marker(seen.initial_object));
    assert_eq!(seen.yielder_below_base, 16, "the yielder is the link");
    assert!((1..4096).contains(&(seen.parent_above - seen.link)), "the link is to the parent");
    let in_code = |address: usize| symbols()[0].abs_diff(address) < 64 << 20;
    assert!(in_code(seen.resumer) && in_code(seen.suspender), "{seen:x?}");
}

/// Lock 2: the numbers in the table of costs are counted.
#[test]
fn the_costs_are_counted_from_the_listings() {
    for arch in ALL {
        let of = |names: &[&str]| names.iter().flat_map(|n| listing(arch, n)).collect::<Vec<_>>();
        let pieces = [
            ("resume and suspend", of(&["switch_and_link", "switch_yield"])),
            ("the first entry", of(&["stack_init_trampoline"])),
            ("the end", of(&["switch_and_reset"])),
        ];
        let expected = pieces.map(|(what, code)| {
            // The last instruction of the trampoline is never executed.
            let all = code.iter().filter(|text| *text != arch.trap.1).count();
            let count = |counts: fn(&str) -> bool| code.iter().filter(|t| counts(t)).count();
            let numbers = [all, count(arch.loads), count(arch.stores)].map(|n| n.to_string());
            [vec![what.to_owned()], numbers.to_vec()].concat()
        });
        let page = page(arch.page);
        assert_eq!(table(&page, "## Cost"), expected, "{}", arch.page);
    }
}

#[test]
fn the_reading_of_blocks_can_fail() {
    assert_eq!(instructions(&["push rbx ; why", "; only words", "", "ret"]), ["push rbx", "ret"]);
}
