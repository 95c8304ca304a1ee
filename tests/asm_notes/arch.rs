//! What differs between the architectures: where a side of the switch begins and goes on, and how
//! its instructions are read.
//!
//! Each page is held to its listings on every machine. Only what was built needs the architecture
//! that it was built for.

/// A word on a stack: how far above the stack pointer it lies, and what it is.
pub(crate) type Word = (usize, String);

/// One architecture.
#[derive(Debug)]
pub(crate) struct Arch {
    /// Its page.
    pub(crate) page: &'static str,
    /// The folder of its listings.
    pub(crate) target: &'static str,
    /// Its name for the program counter.
    pub(crate) counter: &'static str,
    /// Bytes of `switch_and_link` before the address at which it goes on, and in all.
    pub(crate) link_bytes: (usize, usize),
    /// The same of `switch_yield`.
    pub(crate) yield_bytes: (usize, usize),
    /// Bytes of the last instruction of the trampoline, which is never executed, and its name.
    pub(crate) trap: (usize, &'static str),
    /// How far above the initial stack pointer the trampoline's address and the closure lie.
    pub(crate) initial: [usize; 2],
    /// What the instructions store on the stack that they leave, up to the switch.
    pub(crate) saved: fn(&[String]) -> Vec<Word>,
    /// The way out of a coroutine's first function, with its one free register called `reg`.
    pub(crate) end: fn(&[String]) -> Option<Vec<String>>,
    pub(crate) loads: fn(&str) -> bool,
    pub(crate) stores: fn(&str) -> bool,
}

/// All that have a page.
pub(crate) const ALL: [&Arch; 2] = [&X86_64, &AARCH64];

/// The one that this test was built for.
#[cfg(target_arch = "x86_64")]
pub(crate) const HERE: &Arch = &X86_64;
#[cfg(target_arch = "aarch64")]
pub(crate) const HERE: &Arch = &AARCH64;

const X86_64: Arch = Arch {
    page: "x86_64.md",
    target: "x86_64-unknown-linux-gnu",
    counter: "RIP",
    link_bytes: (3, 4),
    yield_bytes: (18, 29),
    trap: (1, "int3"),
    initial: [0, 8],
    saved: pushed,
    end: |code| way_out(code, ["mov rsp,QWORD PTR [", "]"], &["pop rbp", "ret"]),
    loads: |text| {
        let from_memory = text.contains(",QWORD PTR");
        from_memory || starts(text, &["pop", "ret", "call QWORD", "jmp QWORD"])
    },
    stores: |text| starts(text, &["push", "call", "mov QWORD"]),
};

const AARCH64: Arch = Arch {
    page: "aarch64.md",
    target: "aarch64-unknown-linux-gnu",
    counter: "PC",
    link_bytes: (8, 12),
    yield_bytes: (32, 56),
    trap: (4, "brk #0x0"),
    initial: [16, 32],
    saved: stored,
    end: |code| {
        let rest = ["ldr x19, [x2, #16]", "ldp x29, x30, [x2]", "ret"];
        way_out(code, ["ldr x2, [", "]"], &rest)
    },
    loads: |text| text.starts_with("ld"),
    stores: |text| text.starts_with("st"),
};

fn starts(text: &str, with: &[&str]) -> bool {
    with.iter().any(|start| text.starts_with(start))
}

/// The only place in `code` that loads the link, in whatever register the compiler has it, and goes
/// on with `rest`.
fn way_out(code: &[String], around: [&str; 2], rest: &[&str]) -> Option<Vec<String>> {
    let is_it = |first: &str| {
        let inner = first.strip_prefix(around[0]).and_then(|t| t.strip_suffix(around[1]));
        inner.is_some_and(|register| register.chars().all(char::is_alphanumeric))
    };
    let found = code.windows(rest.len() + 1).find(|w| is_it(&w[0]) && w[1..] == *rest)?;
    let mut found = found.to_vec();
    found[0] = around.join("reg");
    Some(found)
}

/// What x86_64 pushes. A call pushes RIP, and so does a push of the register into which an address
/// of the code was put.
fn pushed(code: &[String]) -> Vec<Word> {
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
    found.into_iter().enumerate().map(|(i, word)| (8 * i, word)).collect()
}

/// What aarch64 stores below its stack pointer, up to where it leaves. X30 holds the address at
/// which this side goes on.
fn stored(code: &[String]) -> Vec<Word> {
    let mut found = Vec::new();
    for text in code.iter().take_while(|text| *text != "ret") {
        let Some((registers, place)) = text.strip_prefix("st").and_then(|t| t.split_once(", [sp"))
        else {
            continue;
        };
        let registers = registers.trim_start_matches(['r', 'p', ' ']).split(", ");
        // `[sp, #-32]!` moves the stack pointer first: the words lie where it then points.
        let is_moved = place.ends_with('!');
        let offset = place.trim_matches([',', ' ', '#', ']', '!']);
        let offset = if is_moved { 0 } else { offset.parse().unwrap_or(0) };
        let name = |register: &str| match register {
            "x30" => "PC".into(),
            other => other.to_uppercase(),
        };
        found.extend(registers.enumerate().map(|(i, r)| (offset + 8 * i, name(r))));
    }
    found.sort();
    found
}

/// Shows each reading something that it must refuse.
#[test]
fn the_readings_of_instructions_can_fail() {
    let code = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let words = |expected: &[(usize, &str)]| {
        expected.iter().map(|(at, word)| (*at, (*word).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!((X86_64.end)(&code(&["mov rsp,QWORD PTR [rax]", "pop rbx", "ret"])), None);
    assert_eq!((X86_64.end)(&code(&["mov rsp,QWORD PTR [rax+0x8]", "pop rbp", "ret"])), None);
    let end = (X86_64.end)(&code(&["nop", "mov rsp,QWORD PTR [r14]", "pop rbp", "ret"]));
    assert_eq!(end.unwrap()[0], "mov rsp,QWORD PTR [reg]");
    let swapped = code(&["push rbx", "push rbp", "lea rax,[rip+0x9]", "push rax", "mov rsi,rsp"]);
    assert_eq!((X86_64.saved)(&swapped), words(&[(0, "RIP"), (8, "RBP"), (16, "RBX")]));
    assert!((X86_64.loads)("mov rsp,QWORD PTR [rdx]"));
    assert!(!(X86_64.loads)("mov QWORD PTR [rsi-0x10],rsp"));
    assert!((X86_64.stores)("call QWORD PTR [rdx]") && !(X86_64.stores)("pop rbx"));

    let end = ["ldr x2, [x20]", "ldr x19, [x2, #16]", "ldp x29, x30, [x2]", "ret"];
    assert_eq!((AARCH64.end)(&code(&end)).unwrap()[0], "ldr x2, [reg]");
    assert_eq!((AARCH64.end)(&code(&end[..3])), None);
    let saves = code(&["stp x19, x29, [sp, #-32]!", "str x30, [sp, #16]", "ret", "str x1, [sp]"]);
    assert_eq!((AARCH64.saved)(&saves), words(&[(0, "X19"), (8, "X29"), (16, "PC")]));
    assert!((AARCH64.saved)(&code(&["str x3, [x1, #-16]!", "ldp x19, x29, [sp]"])).is_empty());
    assert!((AARCH64.loads)("ldp x19, x29, [x2]") && !(AARCH64.loads)("add sp, x2, #0x20"));
}
