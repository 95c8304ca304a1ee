//! Lock 4: how an unwinder gets from a coroutine to whoever resumed it.

use std::{backtrace::Backtrace, cell::RefCell, rc::Rc};

use crate::{
    arch::HERE,
    block,
    built::{ask, in_file},
    listings::symbols,
    switch::{bare, resume, two_stacks},
};

/// The rules for the code that begins at `address`, and the flags of the entry that they refer to.
fn rules_at(frames: &str, address: usize) -> Option<(Vec<String>, String)> {
    let start = format!("pc={address:016x}..");
    let mut lines = frames.lines();
    let head = lines.find(|line| line.contains("FDE cie=") && line.contains(&start))?;
    let rules = lines.take_while(|line| line.trim_start().starts_with("DW_"));
    let rules = rules.map(str::trim).filter(|line| !line.contains("advance_loc"));
    let rules = rules.filter(|line| *line != "DW_CFA_nop").map(str::to_owned).collect();
    let cie = head.split("cie=").nth(1)?.split(' ').next()?;
    let mut lines = frames.lines();
    lines.find(|line| line.starts_with(cie) && line.ends_with("CIE"))?;
    let flags = lines.find_map(|line| line.trim().strip_prefix("Augmentation:"))?;
    Some((rules, flags.trim().trim_matches('"').to_owned()))
}

#[test]
fn the_unwind_rule_is_what_was_built() {
    let Some(frames) = ask("readelf", &["--debug-dump=frames".into()]) else { return };
    let address = in_file(symbols()[0]);
    let (rules, flags) = rules_at(&frames, address).expect("the trampoline has a rule");
    let page = if cfg!(target_arch = "x86_64") { "unwinding.md" } else { HERE.page };
    assert_eq!(rules, block(&crate::page(page), "text stack_init_trampoline"));
    assert!(flags.contains('S'), "it is marked as a signal frame: {flags}");
}

#[test]
fn the_reading_of_rules_can_fail() {
    let frames = "\
0001 0014 0000 CIE
  Augmentation:          \"zR\"

0030 001c 0034 FDE cie=0001 pc=00000000000000a0..00000000000000bf
  DW_CFA_advance_loc: 16 to 00000000000000b0
  DW_CFA_offset: r3 (rbx) at cfa-16
  DW_CFA_nop
";
    let (rules, flags) = rules_at(frames, 0xa0).unwrap();
    assert_eq!((rules[0].as_str(), rules.len()), ("DW_CFA_offset: r3 (rbx) at cfa-16", 1));
    assert!(!flags.contains('S'));
    assert_eq!(rules_at(frames, 0xa1), None);
}

#[inline(never)]
fn look_for_this_resumer(f: impl FnOnce()) {
    f();
    std::hint::black_box(()); // no tail call
}

#[inline(never)]
fn nobody_here_calls_this(f: impl FnOnce()) {
    f();
    std::hint::black_box(());
}

#[test]
fn a_backtrace_of_a_greenlet_goes_on_with_the_frames_that_called_run() {
    let mut main = String::new();
    let mut spawned = String::new();
    look_for_this_resumer(|| {
        let capture = || Backtrace::force_capture().to_string();
        (main, spawned) = greenloop::run(|| {
            // The second time round it has been suspended, and was resumed by another frame.
            let greenlet = greenloop::spawn(move || {
                greenloop::yield_now();
                capture()
            });
            (Backtrace::force_capture().to_string(), greenlet.join().unwrap())
        });
    });
    for trace in [main, spawned] {
        assert!(trace.contains("stack_init_trampoline"), "{trace}");
        assert!(trace.contains("look_for_this_resumer"), "{trace}");
        assert!(trace.contains("a_backtrace_of_a_greenlet_goes_on"), "{trace}");
        assert!(!trace.contains("nobody_here_calls_this"), "{trace}");
    }
    nobody_here_calls_this(|| ());
}

#[test]
fn a_backtrace_crosses_to_a_parent_whose_stack_is_above_and_to_one_below() {
    for order in [[0, 1], [1, 0]] {
        let mut stacks = two_stacks().map(Some);
        let [outer, inner] = order.map(|i| stacks[i].take().unwrap());
        let trace = Rc::new(RefCell::new(String::new()));
        let written = Rc::clone(&trace);
        let mut outer = bare(outer, move |_| {
            let mut inner = bare(inner, move |_| {
                *written.borrow_mut() = Backtrace::force_capture().to_string();
            });
            look_for_this_resumer(|| assert!(resume(&mut inner)));
        });
        nobody_here_calls_this(|| assert!(resume(&mut outer)));
        let trace = trace.borrow();
        let at = |name| trace.find(name).unwrap_or_else(|| panic!("no {name} in {trace}"));
        assert!(at("look_for_this_resumer") < at("nobody_here_calls_this"), "{trace}");
        assert_eq!(trace.matches("stack_init_trampoline").count(), 2, "{trace}");
    }
}
