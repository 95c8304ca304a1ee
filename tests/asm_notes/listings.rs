//! Locks 2 and 3: offsets, and every instruction of the switch.
//!
//! The built code is compared with `asm-notes/listings/`, and that with the annotated blocks of the
//! page: so a changed instruction parts a comment from what it was written about. Only what the
//! assembly templates say is compared, and not what the compiler puts around them: a newer
//! compiler does not turn the notes red.

use std::fs;

use crate::{
    block,
    built::disassembly,
    page,
    switch::{Seen, is_the_marker, look},
    table, text,
};

unsafe extern "C" {
    /// The two symbols that the switch has; their addresses alone are used.
    static stack_init_trampoline: [u8; 0];
    static stack_init_trampoline_return: [u8; 0];
}

const NAMES: [&str; 4] =
    ["stack_init_trampoline", "switch_and_link", "switch_yield", "switch_and_reset"];

/// Bytes of each template before the address at which its side goes on, and in all.
const LINK_BYTES: (usize, usize) = (3, 4);
const YIELD_BYTES: (usize, usize) = (18, 29);

/// Bytes of a coroutine's first function in which its end is looked for.
const FIRST_FUNCTION_BYTES: usize = 4096;

fn symbols() -> [usize; 2] {
    [(&raw const stack_init_trampoline).addr(), (&raw const stack_init_trampoline_return).addr()]
}

/// The instructions of one piece of the switch, as they were built.
fn built(name: &str, seen: &Seen) -> Option<Vec<String>> {
    match name {
        "stack_init_trampoline" => {
            let [start, end] = symbols();
            disassembly(start, end - start + 1)
        }
        "switch_and_link" => disassembly(seen.parent[1] - LINK_BYTES.0, LINK_BYTES.1),
        "switch_yield" => disassembly(seen.suspended[0] - YIELD_BYTES.0, YIELD_BYTES.1),
        _ => {
            let code = disassembly(seen.initial_function, FIRST_FUNCTION_BYTES)?;
            Some(the_end(&code).unwrap_or(code))
        }
    }
}

/// The way out of a coroutine's first function: the only place that loads the stack pointer, takes
/// RBP and returns. In which register the link is, the compiler chooses.
fn the_end(code: &[String]) -> Option<Vec<String>> {
    let three = code
        .windows(3)
        .find(|w| w[0].starts_with("mov rsp,QWORD PTR [r") && w[1] == "pop rbp" && w[2] == "ret")?;
    let mut three = three.to_vec();
    three[0] = "mov rsp,QWORD PTR [reg]".into();
    Some(three)
}

fn path(name: &str) -> String {
    format!("asm-notes/listings/x86_64-unknown-linux-gnu/{name}.s")
}

fn listing(name: &str) -> Vec<String> {
    text(&path(name)).lines().map(str::to_owned).collect()
}

/// A block of the page without its comments.
fn instructions(block: &[&str]) -> Vec<String> {
    let bare = block.iter().map(|line| line.split(';').next().unwrap_or_default().trim());
    bare.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn number_of(code: &[String], counts: fn(&str) -> bool) -> usize {
    code.iter().filter(|text| counts(text)).count()
}

/// Whether an instruction of these listings reads memory: the stack, or what it names in brackets.
fn loads(text: &str) -> bool {
    let from_memory = text.split_once(",QWORD PTR").is_some();
    from_memory || ["pop", "ret", "call QWORD", "jmp QWORD"].iter().any(|op| text.starts_with(op))
}

fn stores(text: &str) -> bool {
    ["push", "call", "mov QWORD"].iter().any(|op| text.starts_with(op))
}

/// What `code` pushes, the last one first: as it lies in memory from the stack pointer up. A call
/// pushes RIP, and so does a push of the register into which an address of the code was put.
fn pushed(code: &[String]) -> Vec<String> {
    let (mut found, mut label) = (Vec::new(), "");
    for text in code {
        if let Some(register) = text.strip_prefix("lea r").and_then(|t| t.split_once(",[rip+")) {
            label = register.0;
        } else if let Some(register) = text.strip_prefix("push ") {
            let is_label = register.strip_prefix('r') == Some(label);
            found.insert(0, if is_label { "RIP".into() } else { register.to_uppercase() });
        } else if text.starts_with("call") {
            found.insert(0, "RIP".into());
        } else if text.starts_with("pop") || text.ends_with(",rsp") {
            break; // what is saved is complete when the stack pointer is
        }
    }
    found
}

/// Lock 3, first half.
#[test]
fn the_listings_are_what_was_built() {
    let seen = look();
    for name in NAMES {
        let Some(built) = built(name, &seen) else { return };
        if std::env::var_os("UPDATE_NOTES").is_some() {
            let path = format!("{}/{}", env!("CARGO_MANIFEST_DIR"), path(name));
            fs::write(path, built.join("\n") + "\n").unwrap();
        }
        assert_eq!(listing(name), built, "{name}: see what has changed; UPDATE_NOTES=1 rewrites");
    }
}

/// Lock 3, second half: it needs no tools.
#[test]
fn the_annotated_blocks_are_the_listings() {
    let page = page("x86_64.md");
    for name in NAMES {
        let block = block(&page, &format!("asm {name}"));
        assert_eq!(instructions(&block), listing(name), "{name}");
        let annotated = block.iter().filter(|line| line.contains(';')).count();
        assert!(annotated * 2 > block.len(), "{name}: most lines say why");
    }
}

/// Lock 2: what lies in memory, seen there or counted from the pushes.
#[test]
fn the_offsets_are_those_in_memory() {
    let seen = look();
    assert_eq!(seen.initial_return, symbols()[0]);
    assert!(is_the_marker(seen.initial_object));
    assert_eq!(seen.yielder_below_base, 16, "the yielder is the link");
    assert!((1..4096).contains(&(seen.parent_above - seen.link)), "the link is to the parent");
    let [link_code, yield_code] = ["switch_and_link", "switch_yield"].map(listing);
    // The resumer pushes the first two, and whoever is entered the third.
    let entered = listing("stack_init_trampoline");
    let mut parent = pushed(&entered);
    parent.extend(pushed(&link_code));
    assert_eq!(parent, ["RBP", "RIP", "RBX"]);
    let after_ret = yield_code.iter().position(|text| text == "ret").unwrap() + 1;
    assert_eq!(pushed(&yield_code[after_ret..]), ["RBP"], "entered again as at first");
    let suspended = pushed(&yield_code);
    assert_eq!(suspended.len(), 3);
    let mut expected = vec![
        ["`base - 8`".into(), "the first function".into()],
        ["`base - 16`".into(), "the link: the stack pointer of the resumer".into()],
        ["`initial sp + 0`".into(), "`stack_init_trampoline`".into()],
        ["`initial sp + 8`".into(), "the closure".into()],
    ];
    for (place, words) in [("link", parent), ("sp", suspended)] {
        let rows = words.iter().enumerate();
        expected.extend(rows.map(|(i, word)| [format!("`{place} + {}`", 8 * i), word.clone()]));
    }
    let page = page("x86_64.md");
    let rows: Vec<_> = table(&page, "## Offsets").iter().map(|r| [r[0], r[1]]).collect();
    assert_eq!(rows, expected);
}

/// Lock 2: the numbers in the table of costs are counted.
#[test]
fn the_costs_are_counted_from_the_listings() {
    let of = |names: &[&str]| names.iter().flat_map(|n| listing(n)).collect::<Vec<_>>();
    let pieces = [
        ("resume and suspend", of(&["switch_and_link", "switch_yield"])),
        ("the first entry", of(&["stack_init_trampoline"])),
        ("the end", of(&["switch_and_reset"])),
    ];
    let expected = pieces.map(|(what, code)| {
        // The last byte of the trampoline is never executed.
        let all = number_of(&code, |text| text != "int3");
        [what.into(), all.to_string(), number_of(&code, loads).to_string(), {
            number_of(&code, stores).to_string()
        }]
    });
    let page = page("x86_64.md");
    let rows: Vec<_> =
        table(&page, "## Cost").iter().map(|r| [0, 1, 2, 3].map(|i| r[i].to_owned())).collect();
    assert_eq!(rows, expected);
}

/// Shows each comparison something that it must refuse.
#[test]
fn the_comparisons_can_fail() {
    assert_eq!(instructions(&["push rbx ; why", "; only words", "", "ret"]), ["push rbx", "ret"]);
    let code = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    assert_eq!(the_end(&code(&["mov rsp,QWORD PTR [rax]", "pop rbx", "ret"])), None);
    let end = the_end(&code(&["nop", "mov rsp,QWORD PTR [r14]", "pop rbp", "ret"]));
    assert_eq!(end.unwrap()[0], "mov rsp,QWORD PTR [reg]");
    let swapped = code(&["push rbx", "push rbp", "lea rax,[rip+0x9]", "push rax", "mov rsi,rsp"]);
    assert_eq!(pushed(&swapped), ["RIP", "RBP", "RBX"]);
    assert!(loads("mov rsp,QWORD PTR [rdx]") && !loads("mov QWORD PTR [rsi-0x10],rsp"));
    assert!(stores("call QWORD PTR [rdx]") && !stores("pop rbx"));
}
