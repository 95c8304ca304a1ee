//! The control of floating-point arithmetic: rounding, masked exceptions, flushing to zero.
//!
//! Floor 0. Uses: nothing. Used by: `hub::guest`.
//!
//! The switch between coroutines leaves it alone (`asm-notes/not-saved.md`): greenlets share their
//! thread's. A guest has its own, which is put in force when it goes on.

#![expect(unsafe_code, reason = "inline assembly")]
//! # Safety
//!
//! Reading these registers changes nothing. What is written was read from them before.

/// What the registers that control arithmetic had at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloatControl {
    /// MXCSR without its flags, and the x87 control word above it.
    #[cfg(target_arch = "x86_64")]
    words: u64,
    #[cfg(target_arch = "aarch64")]
    fpcr: u64,
}

/// The bits of MXCSR that say what has happened, not what is to happen.
#[cfg(target_arch = "x86_64")]
const MXCSR_FLAGS: u32 = 0x3f;

impl FloatControl {
    /// What is in force now.
    #[inline]
    pub(crate) fn current() -> FloatControl {
        #[cfg(target_arch = "x86_64")]
        {
            let (mut mxcsr, mut x87) = (0u32, 0u16);
            // SAFETY: both store to memory that is ours.
            unsafe {
                std::arch::asm!("stmxcsr [{m}]", "fnstcw [{x}]",
                    m = in(reg) &raw mut mxcsr, x = in(reg) &raw mut x87,
                    options(nostack, preserves_flags));
            }
            FloatControl { words: u64::from(mxcsr & !MXCSR_FLAGS) | u64::from(x87) << 32 }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let fpcr: u64;
            // SAFETY: reads a register that every thread may read.
            unsafe {
                std::arch::asm!("mrs {}, fpcr", out(reg) fpcr,
                    options(nomem, nostack, preserves_flags));
            }
            FloatControl { fpcr }
        }
    }

    /// Puts it in force, unless `now` says that it is.
    #[inline]
    pub(crate) fn replace(self, now: FloatControl) {
        #[cold]
        fn set(control: FloatControl) {
            #[cfg(target_arch = "x86_64")]
            {
                let mxcsr = control.words as u32;
                let x87 = (control.words >> 32) as u16;
                // SAFETY: both values were read by `current`, hence are valid ones.
                unsafe {
                    std::arch::asm!("ldmxcsr [{m}]", "fldcw [{x}]",
                        m = in(reg) &raw const mxcsr, x = in(reg) &raw const x87,
                        options(nostack, preserves_flags));
                }
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the value was read by `current`.
            unsafe {
                std::arch::asm!("msr fpcr, {}", in(reg) control.fpcr,
                    options(nomem, nostack, preserves_flags));
            }
        }
        if self != now {
            set(self);
        }
    }
}
