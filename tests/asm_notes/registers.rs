//! Lock 5: the registers that a callee must keep are the same after a park as before.

use std::{cell::Cell, rc::Rc};

use greenloop::{run, spawn, yield_now};

use kept::{KEPT, LOSERS, registers_after};

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

/// The wrong direction: what the test above would see if a register were lost.
#[test]
fn the_sentinels_notice_each_register_that_is_lost() {
    for (loser, name) in LOSERS.into_iter().zip(KEPT) {
        assert_eq!(lost_by(0x4444_0000, loser), [name]);
    }
}

/// A function that loses one register, for each.
macro_rules! losers {
    ($($name:ident: $instruction:literal,)*) => {
        $(
            #[unsafe(naked)]
            extern "C" fn $name() {
                std::arch::naked_asm!($instruction, "ret")
            }
        )*
        pub(super) const LOSERS: [extern "C" fn(); KEPT.len()] = [$($name),*];
    };
}

#[cfg(target_arch = "x86_64")]
mod kept {
    /// The registers that the System V convention has a callee keep, and RSP with them.
    pub(super) const KEPT: [&str; 6] = ["rbx", "rbp", "r12", "r13", "r14", "r15"];

    /// Fills the kept registers with `seed`, `seed + 1`, ..., calls `callee`, and tells what is in
    /// them then, and by how much the stack pointer has moved.
    pub(super) fn registers_after(seed: u64, callee: extern "C" fn()) -> ([u64; 6], i64) {
        let mut after = [0u64; 6];
        let moved: i64;
        // SAFETY: RBX and RBP, which no operand may name, are restored before the end; the four
        // others are outputs; the callee keeps to the C convention otherwise, and the stack is
        // aligned at the call: six words were pushed. `after` has room for six words.
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

    losers! {
        loses_rbx: "xor ebx, ebx",
        loses_rbp: "xor ebp, ebp",
        loses_r12: "xor r12d, r12d",
        loses_r13: "xor r13d, r13d",
        loses_r14: "xor r14d, r14d",
        loses_r15: "xor r15d, r15d",
    }
}

#[cfg(target_arch = "aarch64")]
mod kept {
    /// The registers that the procedure call standard has a callee keep, and SP with them. Of the
    /// vector registers it is the lower half.
    pub(super) const KEPT: [&str; 19] = [
        "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "d8", "d9",
        "d10", "d11", "d12", "d13", "d14", "d15",
    ];

    /// As for `x86_64`. It is a function of its own, because X19 and X29 may be no operand.
    pub(super) fn registers_after(seed: u64, callee: extern "C" fn()) -> ([u64; 19], i64) {
        let mut after = [0u64; 19];
        let moved = fill_call_and_look(seed, callee, &mut after);
        (after, moved)
    }

    /// Saves all that it has to keep, fills it, calls, writes down what it finds, and puts it back.
    #[unsafe(naked)]
    extern "C" fn fill_call_and_look(
        seed: u64,
        callee: extern "C" fn(),
        after: &mut [u64; 19],
    ) -> i64 {
        std::arch::naked_asm!(
            "stp x29, x30, [sp, #-176]!",
            "stp x19, x20, [sp, #16]",
            "stp x21, x22, [sp, #32]",
            "stp x23, x24, [sp, #48]",
            "stp x25, x26, [sp, #64]",
            "stp x27, x28, [sp, #80]",
            "stp d8, d9, [sp, #96]",
            "stp d10, d11, [sp, #112]",
            "stp d12, d13, [sp, #128]",
            "stp d14, d15, [sp, #144]",
            "mov x9, sp",
            "stp x2, x9, [sp, #160]",
            "add x19, x0, #0",
            "add x20, x0, #1",
            "add x21, x0, #2",
            "add x22, x0, #3",
            "add x23, x0, #4",
            "add x24, x0, #5",
            "add x25, x0, #6",
            "add x26, x0, #7",
            "add x27, x0, #8",
            "add x28, x0, #9",
            "add x29, x0, #10",
            "add x9, x0, #11",
            "fmov d8, x9",
            "add x9, x0, #12",
            "fmov d9, x9",
            "add x9, x0, #13",
            "fmov d10, x9",
            "add x9, x0, #14",
            "fmov d11, x9",
            "add x9, x0, #15",
            "fmov d12, x9",
            "add x9, x0, #16",
            "fmov d13, x9",
            "add x9, x0, #17",
            "fmov d14, x9",
            "add x9, x0, #18",
            "fmov d15, x9",
            "blr x1",
            "ldp x2, x9, [sp, #160]",
            "mov x0, sp",
            "sub x0, x0, x9",
            "stp x19, x20, [x2, #0]",
            "stp x21, x22, [x2, #16]",
            "stp x23, x24, [x2, #32]",
            "stp x25, x26, [x2, #48]",
            "stp x27, x28, [x2, #64]",
            "str x29, [x2, #80]",
            "str d8, [x2, #88]",
            "str d9, [x2, #96]",
            "str d10, [x2, #104]",
            "str d11, [x2, #112]",
            "str d12, [x2, #120]",
            "str d13, [x2, #128]",
            "str d14, [x2, #136]",
            "str d15, [x2, #144]",
            "ldp x19, x20, [sp, #16]",
            "ldp x21, x22, [sp, #32]",
            "ldp x23, x24, [sp, #48]",
            "ldp x25, x26, [sp, #64]",
            "ldp x27, x28, [sp, #80]",
            "ldp d8, d9, [sp, #96]",
            "ldp d10, d11, [sp, #112]",
            "ldp d12, d13, [sp, #128]",
            "ldp d14, d15, [sp, #144]",
            "ldp x29, x30, [sp], #176",
            "ret",
        )
    }

    losers! {
        loses_x19: "mov x19, #0",
        loses_x20: "mov x20, #0",
        loses_x21: "mov x21, #0",
        loses_x22: "mov x22, #0",
        loses_x23: "mov x23, #0",
        loses_x24: "mov x24, #0",
        loses_x25: "mov x25, #0",
        loses_x26: "mov x26, #0",
        loses_x27: "mov x27, #0",
        loses_x28: "mov x28, #0",
        loses_x29: "mov x29, #0",
        loses_d8: "fmov d8, xzr",
        loses_d9: "fmov d9, xzr",
        loses_d10: "fmov d10, xzr",
        loses_d11: "fmov d11, xzr",
        loses_d12: "fmov d12, xzr",
        loses_d13: "fmov d13, xzr",
        loses_d14: "fmov d14, xzr",
        loses_d15: "fmov d15, xzr",
    }
}
