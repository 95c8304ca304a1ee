//! A bare coroutine, looked at while it runs and while it is suspended.
//!
//! corosensei's switch is inlined and has no symbol. But each side leaves the address at which it
//! goes on in its stack, where the other side can read it: so the notes are compared with code that
//! has really run, whatever the compiler put around it.

use std::{cell::Cell, num::NonZeroUsize, ptr, rc::Rc};

use corosensei::{Coroutine as Switch, CoroutineResult, Yielder};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::{arch::HERE, page, table};

/// Bytes of a stack, and of the guard below it.
const STACK_BYTES: usize = 512 << 10;
const GUARD_BYTES: usize = 64 << 10;

/// A stack that stays mapped until the process ends.
pub(crate) struct Stack {
    base: NonZeroUsize,
    limit: NonZeroUsize,
}

// SAFETY: mapped for ever with a guard at its lowest end (`two_stacks`), larger than is asked;
// both ends are page boundaries.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> NonZeroUsize {
        self.base
    }

    fn limit(&self) -> NonZeroUsize {
        self.limit
    }
}

/// Two stacks, the lower one first.
pub(crate) fn two_stacks() -> [Stack; 2] {
    let each = STACK_BYTES + GUARD_BYTES;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
    let start =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), 2 * each, prot, MapFlags::PRIVATE) };
    let start = start.unwrap().expose_provenance();
    [start, start + each].map(|limit| {
        let guard = ptr::with_exposed_provenance_mut(limit);
        // SAFETY: the range is the lowest part of what was just mapped, and not in use.
        unsafe { rustix::mm::mprotect(guard, GUARD_BYTES, MprotectFlags::empty()) }.unwrap();
        let ends = [limit + each, limit].map(|end| NonZeroUsize::new(end).unwrap());
        Stack { base: ends[0], limit: ends[1] }
    })
}

pub(crate) type Bare = Switch<(), (), (), Stack>;

/// A coroutine on `stack`.
pub(crate) fn bare(stack: Stack, body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Bare {
    Bare::with_stack(stack, move |yielder, ()| body(yielder))
}

/// Resumes `coroutine`; whether it has ended.
#[inline(never)]
pub(crate) fn resume(coroutine: &mut Bare) -> bool {
    matches!(coroutine.resume(()), CoroutineResult::Return(()))
}

/// The word at `address`.
fn word(address: usize) -> usize {
    // SAFETY: every caller passes an aligned place in a live stack of this thread.
    unsafe { ptr::with_exposed_provenance::<usize>(address).read() }
}

/// What a switch leaves in memory.
#[derive(Debug)]
pub(crate) struct Seen {
    /// base - 8: where the coroutine begins.
    pub(crate) initial_function: usize,
    /// Where a new coroutine is entered: the word of that name at its stack pointer.
    pub(crate) initial_return: usize,
    /// Where its closure lies: it captures one marker.
    pub(crate) initial_object: usize,
    /// base - 16 while the coroutine runs.
    pub(crate) link: usize,
    /// A place on the parent's stack above everything that a switch pushes there.
    pub(crate) parent_above: usize,
    /// Where the resumer goes on: the word of that name at the link, while the coroutine runs.
    pub(crate) resumer: usize,
    /// Where the suspended coroutine goes on: the word of that name at its stack pointer.
    pub(crate) suspender: usize,
    /// The address of the yielder, from the base down.
    pub(crate) yielder_below_base: usize,
}

/// What the closure of the coroutine carries, to be found again at the initial stack pointer.
const MARKER: usize = 0x6d61_726b_6d61_726b;

/// Where in the stack between `limit` and `base` the coroutine would go on.
fn stack_pointers(coroutine: &Bare, limit: usize, base: usize) -> Vec<usize> {
    const WORDS: usize = size_of::<Bare>() / size_of::<usize>();
    // SAFETY: a coroutine with this stack is five words without padding: the two of the stack, the
    // two stack pointers (an empty `Option` of one is zero) and a function.
    let words = unsafe { ptr::from_ref(coroutine).cast::<[usize; WORDS]>().read() };
    words.into_iter().filter(|word| (limit + 1..base).contains(word)).collect()
}

/// Where the page says that `content` lies above `place`, in bytes.
fn offset(place: &str, content: &str) -> usize {
    let page = page(HERE.page);
    let rows = table(&page, "## Offsets");
    let mut rows = rows.iter().filter(|row| row[1] == content);
    let prefix = format!("`{place} + ");
    let found = rows.find_map(|row| row[0].strip_prefix(&prefix)?.strip_suffix('`')?.parse().ok());
    let found: usize = found.unwrap_or_else(|| panic!("{}: no {prefix}: {content}", HERE.page));
    assert!(found.is_multiple_of(8) && found < 64, "{found}");
    found
}

/// Runs a coroutine and looks, at the offsets that the page has: a wrong one finds something else.
pub(crate) fn look() -> Seen {
    let [stack, _] = two_stacks();
    let (base, limit) = (stack.base.get(), stack.limit.get());
    let cell: &'static Cell<[usize; 3]> = Box::leak(Box::default());
    let body = Marked { marker: MARKER, seen: cell, base };
    let mut coroutine = Bare::with_stack(stack, move |yielder, ()| body.run(yielder));
    let initial = stack_pointers(&coroutine, limit, base);
    assert_eq!(initial[0], initial[1], "it was not resumed yet");
    let initial_sp = initial[0];
    let initial_return = word(initial_sp + offset("initial sp", "`stack_init_trampoline`"));
    let initial_object = word(initial_sp + offset("initial sp", "the closure"));
    let above = Rc::new(0u8);
    let parent_above = ptr::from_ref(&above).addr();
    assert!(!resume(&mut coroutine));
    let suspended = stack_pointers(&coroutine, limit, base);
    let sp = *suspended.iter().find(|sp| **sp != initial_sp).expect("it is suspended");
    let [link, resumer, yielder] = cell.get();
    let result = Seen {
        initial_function: word(base - 8),
        initial_return,
        initial_object,
        link,
        parent_above,
        resumer,
        suspender: word(sp + offset("sp", HERE.counter)),
        yielder_below_base: base - yielder,
    };
    assert!(resume(&mut coroutine));
    result
}

/// The closure's content, in one order.
#[repr(C)]
struct Marked {
    marker: usize,
    seen: &'static Cell<[usize; 3]>,
    base: usize,
}

impl Marked {
    fn run(self, yielder: &Yielder<(), ()>) {
        assert_eq!(self.marker, MARKER);
        let link = word(self.base - 16);
        let resumer = word(link + offset("link", HERE.counter));
        self.seen.set([link, resumer, ptr::from_ref(yielder).addr()]);
        yielder.suspend(());
    }
}

/// Whether `word` is the beginning of the closure of a new coroutine.
pub(crate) fn is_the_marker(word: usize) -> bool {
    word == MARKER
}
