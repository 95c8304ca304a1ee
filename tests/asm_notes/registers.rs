//! Lock 5: the registers that a callee must keep are the same after a park as before.

use std::{arch::naked_asm, cell::Cell, rc::Rc};

use greenloop::{run, spawn, yield_now};

/// The registers that the System V convention has a callee keep, and RSP with them.
const KEPT: [&str; 6] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];

/// Fills the kept registers with `seed`, `seed + 1`, ..., calls `callee`, and tells what is in them
/// then, and by how much the stack pointer has moved.
fn registers_after(seed: u64, callee: extern "C" fn()) -> ([u64; 6], i64) {
    let mut after = [0u64; 6];
    let moved: i64;
    // SAFETY: RBX and RBP, which no operand may name, are restored before the end; the four others
    // are outputs; the callee keeps to the C convention otherwise, and the stack is aligned at the
    // call: six words were pushed. `after` has room for six words.
    unsafe {
        std::arch::asm!(
            "push rbx", "push rbp", "push rdi", "push rsi",
            "sub rsp, 16",
            "mov [rsp], rsp",
            "mov rbx, rsi",
            "lea rbp, [rsi + 1]", "lea r12, [rsi + 2]", "lea r13, [rsi + 3]",
            "lea r14, [rsi + 4]", "lea r15, [rsi + 5]",
            "call rdx",
            "mov rax, rsp", "sub rax, [rsp]",
            "add rsp, 16",
            "pop rsi", "pop rdi",
            "mov [rdi], rbx", "mov [rdi + 8], rbp", "mov [rdi + 16], r12",
            "mov [rdi + 24], r13", "mov [rdi + 32], r14", "mov [rdi + 40], r15",
            "pop rbp", "pop rbx",
            inout("rdi") after.as_mut_ptr() => _,
            inout("rsi") seed => _,
            inout("rdx") callee => _,
            lateout("rax") moved,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("C"),
        );
    }
    (after, moved)
}

/// The names of those registers that are not what they were before `callee`.
fn lost_by(seed: u64, callee: extern "C" fn()) -> Vec<&'static str> {
    let (after, moved) = registers_after(seed, callee);
    assert_eq!(moved, 0);
    let wanted = (seed..).zip(after).zip(KEPT);
    wanted.filter(|((wanted, found), _)| wanted != found).map(|(_, name)| name).collect()
}

/// A park and all that the others do until this greenlet runs again.
extern "C" fn park() {
    yield_now();
}

#[test]
fn kept_registers_survive_a_park() {
    let rounds = Rc::new(Cell::new(0));
    run(|| {
        let greenlets = [0x1111_0000u64, 0x2222_0000, 0x3333_0000].map(|seed| {
            let rounds = Rc::clone(&rounds);
            spawn(move || {
                for round in 0..100 {
                    assert_eq!(lost_by(seed + 8 * round, park), [""; 0], "round {round}");
                    rounds.set(rounds.get() + 1);
                }
            })
        });
        greenlets.into_iter().for_each(|greenlet| greenlet.join().unwrap());
    });
    assert_eq!(rounds.get(), 300);
}

/// A function that loses one register.
macro_rules! loses {
    ($name:ident, $instruction:literal) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!($instruction, "ret")
        }
    };
}
loses!(loses_rbx, "xor ebx, ebx");
loses!(loses_rbp, "xor ebp, ebp");
loses!(loses_r12, "xor r12d, r12d");
loses!(loses_r13, "xor r13d, r13d");
loses!(loses_r14, "xor r14d, r14d");
loses!(loses_r15, "xor r15d, r15d");

/// The wrong direction: what the test above would see if a register were lost.
#[test]
fn the_sentinels_notice_each_register_that_is_lost() {
    let losers: [extern "C" fn(); 6] =
        [loses_rbx, loses_rbp, loses_r12, loses_r13, loses_r14, loses_r15];
    for (loser, name) in losers.into_iter().zip(KEPT) {
        assert_eq!(lost_by(0x4444_0000, loser), [name]);
    }
}
