//! Blocks: the thread-locals of one virtual thread.
//!
//! Floor 8. Uses: `layout`. Used by: `spawn`.
//!
//! A block lies at the top of its thread's stack, as `pthread_create` has it: in a frame of its
//! own, so that it needs no memory and no page beside the stack's. It is made as that makes it,
//! too: glibc allocates the vector of modules, and writes every module's image; then the control
//! block is filled in, field by field. Copying a live thread's control block, or libc's image,
//! would copy pointers of that thread's own with it. The vector of one that has ended goes to the
//! next.
//!
//! | field | value | why |
//! |---|---|---|
//! | `tcb`, `self` (x86_64) | the block itself | addressing |
//! | `multiple_threads` (x86_64) | 1 | else malloc takes no locks |
//! | stack and pointer guard (x86_64) | the OS thread's | code of all threads checks against them |
//! | `tid` | of our own, see `GUEST_TIDS` | who owns a recursive lock |
//! | `specific[0]` | into the block | the first 32 keys |
//! | robust list | empty, in the block | else a lock would be put into another thread's |
//! | rseq `cpu_id` | "registration failed" | the kernel does not fill it in |
//! | ctype's tables | by `__ctype_init` | as a new thread does |
//! | the allocator's words | the OS thread's | its caches are shared on purpose: same OS thread |
//!
//! # Invariants
//!
//! - `BLOCK-1` A block is used by one virtual thread, on the OS thread that made it: it is
//!   `!Send`.
//! - `BLOCK-2` A block is where it is until it is dropped. Whoever is frozen never drops it, and
//!   its stack stays.
//! - `BLOCK-3` A vector belongs to one block, or lies in the thread's pool, with all of it cleared.
//! - `BLOCK-4` A block has the image of each module that has a place there before code on it can
//!   use that: of those that were there when it was made, by glibc; of those that came later, by
//!   whoever loaded them, before it is told where they are. Each is written once: what a virtual
//!   thread has changed since stays. Beyond this: a constructor that lets virtual threads use its
//!   library, or hands it to them, before it returns; what libc loads for itself; and a library
//!   that one thread unloads while another loads it again.

#![expect(unsafe_code, reason = "control blocks of the C library's are written")]
//! # Safety
//!
//! A block is written by whoever owns it (`BLOCK-1`), at offsets of a checked layout (`LAYOUT-1`).

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    io,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use super::layout::{KEY_BLOCKS, KEYS_IN_BLOCK, Key, KeyData, Layout, control_of};
use crate::{coro::base, hub::guest::GUEST_TIDS};

/// Vectors that an OS thread keeps for later.
const SPARE_MAX: usize = 1024;

/// Rounds of destructors of keys, since one may set a value anew (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const KEY_ROUNDS: usize = 4;

/// `RSEQ_CPU_ID_REGISTRATION_FAILED`. The other value for "none" invites libraries to register.
const NO_RSEQ: u32 = -2i32 as u32;

thread_local! {
    static SPARE: RefCell<Spares> = const { RefCell::new(Spares(Vec::new())) };
}

/// Whether there are blocks, or have been.
static ARE_THERE: AtomicBool = AtomicBool::new(false);

/// All blocks of the process.
static ALL: Mutex<All> =
    Mutex::new(All { bases: Vec::new(), free: Vec::new(), loads: 0, known: Vec::new() });

fn lock_all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The list, while this thread forks. No destructor, which would have to be registered.
    static FORKS_WITH: Cell<Option<ManuallyDrop<MutexGuard<'static, All>>>> =
        const { Cell::new(None) };
}

/// Has each fork happen while no other thread holds the list: nobody would let go of it in the
/// child, where virtual threads may be made, too.
fn watch_forks() {
    extern "C" fn prepare() {
        FORKS_WITH.set(Some(ManuallyDrop::new(lock_all())));
    }
    extern "C" fn let_go() {
        drop(FORKS_WITH.take().map(ManuallyDrop::into_inner));
    }
    // SAFETY: all of them stay loaded, take nothing and do not unwind. In the child, this thread
    // lets go of a lock that it has taken itself.
    unsafe { libc::pthread_atfork(Some(prepare), Some(let_go), Some(let_go)) };
}

struct All {
    /// Their bases, each at a number of its own; zero at those that are free.
    bases: Vec<usize>,
    free: Vec<u32>,
    /// How many threads are loading a library.
    loads: u32,
    /// The modules whose images the blocks have, while somebody loads.
    known: Vec<Module>,
}

impl All {
    fn add(&mut self, base: usize) -> u32 {
        if let Some(number) = self.free.pop() {
            self.bases[number as usize] = base;
            return number;
        }
        self.bases.push(base);
        (self.bases.len() - 1) as u32
    }

    fn remove(&mut self, number: u32) {
        self.bases[number as usize] = 0;
        self.free.push(number);
    }

    fn blocks(&self) -> impl Iterator<Item = usize> {
        self.bases.iter().copied().filter(|base| *base != 0)
    }
}

/// A module with thread-locals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Module {
    /// Where it was loaded, and its number among those with thread-locals.
    address: usize,
    number: usize,
    /// What its thread-locals begin with.
    image: usize,
    image_bytes: usize,
    bytes: usize,
}

/// An entry of the vector of modules (`dtv_t`): where its thread-locals are, and what to free.
#[repr(C)]
struct Entry {
    at: usize,
    to_free: *mut c_void,
}

/// The vector of modules of a block; the first entry is that of none.
struct Vector {
    first: *mut Entry,
    count: usize,
}

/// What stands in the vector for thread-locals that are allocated when they are first used.
const UNALLOCATED: usize = usize::MAX;

/// Where a block has the address of its vector, behind its base: in the second word of the base's
/// structure here, in the first there.
const VECTOR_AT: usize = if cfg!(target_arch = "x86_64") { 8 } else { 0 };

impl Vector {
    /// The vector of the block with this base, which must be ours.
    fn of(base: usize) -> Vector {
        Vector::at(read(base + VECTOR_AT))
    }

    /// The vector at an address, which must be one.
    fn at(address: usize) -> Vector {
        let first: *mut Entry = ptr::with_exposed_provenance_mut(address);
        // SAFETY: a vector that glibc allocated has its length in front.
        let length = unsafe { first.sub(1) };
        // SAFETY: as above.
        let count = unsafe { (*length).at };
        Vector { first, count }
    }

    /// Frees the thread-locals of modules that were loaded late, and forgets all.
    fn clear(&self) {
        for number in 1..=self.count {
            // SAFETY: an entry of the vector: there are so many behind the first.
            let entry = unsafe { self.first.add(number) };
            // SAFETY: as above.
            let to_free = unsafe { (*entry).to_free };
            // SAFETY: glibc has allocated it for this block, and forgets it below.
            unsafe { libc::free(to_free) };
        }
        // SAFETY: the first entry and those behind it.
        unsafe { self.first.write_bytes(0, self.count + 1) };
    }

    /// Frees it. It is clear, and no block has it.
    fn free(self) {
        // SAFETY: the length in front of the first entry is what glibc has allocated it with.
        let allocated = unsafe { self.first.sub(1) };
        // SAFETY: glibc allocates and frees vectors by its names for everybody; nobody has it.
        unsafe { libc::free(allocated.cast()) };
    }

    /// Where the block has the thread-locals of a module, if it has.
    fn place_of(&self, number: usize) -> Option<usize> {
        if number == 0 || number > self.count {
            return None;
        }
        // SAFETY: an entry of the vector: there are so many behind the first.
        let entry = unsafe { self.first.add(number) };
        // SAFETY: as above.
        Some(unsafe { (*entry).at }).filter(|place| *place != UNALLOCATED && *place != 0)
    }
}

/// All modules with thread-locals, as they are now.
fn modules() -> Vec<Module> {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: `modules` passes its own vector.
        let found = unsafe { &mut *found.cast::<Vec<Module>>() };
        // SAFETY: the loader passes a valid description.
        let info = unsafe { &*info };
        for place in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: there are so many headers.
            let header = unsafe { info.dlpi_phdr.add(place) };
            // SAFETY: as above.
            let header = unsafe { &*header };
            if header.p_type == libc::PT_TLS {
                found.push(Module {
                    address: info.dlpi_addr as usize,
                    number: info.dlpi_tls_modid,
                    image: info.dlpi_addr as usize + header.p_vaddr as usize,
                    image_bytes: header.p_filesz as usize,
                    bytes: header.p_memsz as usize,
                });
            }
        }
        0
    }
    let mut found: Vec<Module> = Vec::new();
    // SAFETY: `look` takes what it is given.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

/// Whether a load of a library must be told of by [`begin_load`] and [`end_load`].
pub(crate) fn blocks_are_there() -> bool {
    ARE_THERE.load(Ordering::Acquire)
}

/// A library is about to be loaded by this OS thread, on its own base.
pub(crate) fn begin_load() {
    let mut all = lock_all();
    all.loads += 1;
    let now = modules();
    if all.loads == 1 {
        all.known = now;
    } else {
        // What is gone may come back in the same place, as something new.
        all.known.retain(|one| now.contains(one));
    }
}

/// It was loaded, or was not, and nobody has been told where it is: writes the images of
/// thread-locals that it has brought into every block, as the loader does for the threads that it
/// knows. Those that are allocated when they are first used are none of them.
pub(crate) fn end_load() {
    let mut all = lock_all();
    all.loads -= 1;
    let now = modules();
    let new: Vec<Module> = now.iter().filter(|one| !all.known.contains(one)).copied().collect();
    all.known = now;
    let Ok(layout) = super::layout::layout() else { return };
    if new.is_empty() || all.blocks().next().is_none() {
        return;
    }
    // What the loader writes into a new block tells which of them have a place there.
    // SAFETY: null asks for a new block.
    let fresh = unsafe { (layout.allocate)(ptr::null_mut()) };
    if fresh.is_null() {
        return;
    }
    let own = fresh.expose_provenance();
    let vector = Vector::of(own);
    for module in new {
        let Some(place) = vector.place_of(module.number) else { continue };
        let at = place.wrapping_sub(own);
        for base in all.blocks() {
            let to: *mut u8 = ptr::with_exposed_provenance_mut(base.wrapping_add(at));
            let image: *const u8 = ptr::with_exposed_provenance(module.image);
            // SAFETY: the place of a module's thread-locals is the same in every block, and all
            // blocks are of one size. The block is alive, as those in the list are, and what would
            // use them has not run on it (BLOCK-4).
            unsafe { to.copy_from_nonoverlapping(image, module.image_bytes) };
            // SAFETY: as above.
            let rest = unsafe { to.add(module.image_bytes) };
            // SAFETY: as above.
            unsafe { rest.write_bytes(0, module.bytes - module.image_bytes) };
        }
    }
    // SAFETY: just allocated, and never used.
    unsafe { (layout.deallocate)(fresh, true) };
}

/// What an ended virtual thread leaves to the next: a vector, and a thread id.
struct Spare {
    vector: usize,
    tid: i32,
}

/// Those of an OS thread.
struct Spares(Vec<Spare>);

impl Drop for Spares {
    fn drop(&mut self) {
        for spare in self.0.drain(..) {
            Vector::at(spare.vector).free();
        }
    }
}

/// Lines of a cache, which is what glibc aligns thread-locals to, at least.
#[repr(align(64))]
struct Room<const BYTES: usize>(MaybeUninit<[u8; BYTES]>);

/// Calls `f` with so many bytes, aligned to 64, that are there until it returns: on the stack, if
/// they are no more than a few pages.
fn with_room(bytes: usize, f: &mut dyn FnMut(*mut u8)) {
    #[inline(never)]
    fn on_stack<const BYTES: usize>(f: &mut dyn FnMut(*mut u8)) {
        let mut room = Room::<BYTES>(MaybeUninit::uninit());
        f(room.0.as_mut_ptr().cast());
    }
    match bytes {
        // 4.5 KiB is what a program has that loads few libraries.
        0..=4544 => on_stack::<4544>(f),
        4545..=5120 => on_stack::<5120>(f),
        5121..=6144 => on_stack::<6144>(f),
        6145..=8192 => on_stack::<8192>(f),
        8193..=16_384 => on_stack::<16_384>(f),
        _ => {
            let mut room: Vec<Room<64>> = Vec::with_capacity(bytes.div_ceil(64));
            f(room.as_mut_ptr().cast());
        }
    }
}

/// The thread-locals of one virtual thread.
#[derive(Debug)]
pub(super) struct Block<'room> {
    base: usize,
    tid: i32,
    /// Its number in the list of all.
    number: u32,
    layout: &'static Layout,
    room: PhantomData<*mut &'room mut u8>,
}

impl Block<'_> {
    /// Calls `f` with a fresh block, which lies in a frame of this call's.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, when there is no memory for its vector of modules.
    pub(super) fn with(layout: &'static Layout, f: &mut dyn FnMut(io::Result<&Block<'_>>)) {
        let Layout { below, above, alignment, .. } = *layout;
        with_room(below + above + alignment.saturating_sub(64), &mut |room| {
            f(Block::make(room, layout).as_ref().map_err(|_| {
                let text = "no memory for the thread-locals of another virtual thread";
                io::Error::new(io::ErrorKind::OutOfMemory, text)
            }));
        });
    }

    /// Makes a block of what `with_room` has given for it.
    fn make<'room>(room: *mut u8, layout: &'static Layout) -> Result<Block<'room>, ()> {
        let Layout { below, above, alignment, .. } = *layout;
        let base = (room.expose_provenance() + below).next_multiple_of(alignment);
        let lowest: *mut u8 = ptr::with_exposed_provenance_mut(base - below);
        // SAFETY: BLOCK-1: room for a block, by the size that was asked for.
        unsafe { lowest.write_bytes(0, below + above) };
        let at: *mut c_void = ptr::with_exposed_provenance_mut(base);
        let spare = SPARE.try_with(|spare| spare.borrow_mut().0.pop()).ok().flatten();
        let tid = spare.as_ref().map_or_else(draw_tid, |spare| spare.tid);
        if !ARE_THERE.swap(true, Ordering::AcqRel) {
            watch_forks();
        }
        // Until it is in the list: a library that is loaded meanwhile would not be told of to it.
        let mut all = lock_all();
        if let Some(Spare { vector, .. }) = spare {
            let place: *mut usize = ptr::with_exposed_provenance_mut(base + VECTOR_AT);
            // SAFETY: BLOCK-1; the vector is this block's now (BLOCK-3).
            unsafe { place.write(vector) };
            // SAFETY: a zeroed block with a cleared vector is what it is for; glibc does the same
            // with the stacks that it keeps.
            unsafe { (layout.initialise)(at, true) };
        } else {
            // SAFETY: a zeroed block, of the size and alignment that glibc has asked for.
            let made = unsafe { (layout.allocate)(at) };
            if made.is_null() {
                return Err(());
            }
        }
        let number = all.add(base);
        drop(all);
        let block = Block { base, tid, number, layout, room: PhantomData };
        block.fill_in();
        Ok(block)
    }

    /// Its base.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// The thread id in it.
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    fn control(&self) -> usize {
        control_of(self.base, self.layout.control_bytes)
    }

    /// Writes a word at an address in the block.
    fn write(&self, address: usize, word: usize) {
        // SAFETY: BLOCK-1: the block is ours; the address is one of a field in it (LAYOUT-1).
        unsafe { ptr::with_exposed_provenance_mut::<usize>(address).write_unaligned(word) };
    }

    fn write_half(&self, address: usize, half: u32) {
        // SAFETY: as in `write`.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(address).write_unaligned(half) };
    }

    /// Fills the control block in, which is all zeroes but for the vector.
    fn fill_in(&self) {
        let Layout { tid_at, specific_at, robust_at, rseq_at, ref malloc_words, .. } = *self.layout;
        let (base, control, own) = (self.base, self.control(), base::current());
        #[cfg(target_arch = "x86_64")]
        {
            self.write(base, base);
            self.write(base + 0x10, base);
            self.write_half(base + 0x18, 1);
            for at in [0x20, 0x28, 0x30] {
                self.write(base + at, read(own + at));
            }
        }
        self.write_half(control + tid_at, self.tid as u32);
        let keys = control + specific_at - size_of::<KeyData>() * KEYS_IN_BLOCK;
        self.write(control + specific_at, keys);
        let robust = control + robust_at;
        self.write(robust, robust);
        self.write(robust + 8, read(own_control(own, self.layout) + robust_at + 8));
        self.write(robust - 8, robust); // `robust_prev`, the word in front.
        if let Some(at) = rseq_at {
            self.write_half(base.wrapping_add_signed(at) + 4, NO_RSEQ);
        }
        for &at in malloc_words {
            self.write(base.wrapping_add_signed(at), read(own.wrapping_add_signed(at)));
        }
    }

    /// What a new thread does first. On the block's own base.
    pub(super) fn begin(layout: &Layout) {
        // SAFETY: takes nothing, and sets libc's own thread-locals of whoever calls.
        unsafe { (layout.init_ctype)() };
    }

    /// What an ending thread does last: destructors of thread-locals, then those of keys. On the
    /// block's own base. What they raise must not unwind: they are `extern "C"`.
    pub(super) fn end(layout: &Layout) {
        // SAFETY: takes nothing, and runs what was registered on this base.
        unsafe { (layout.call_destructors)() };
        end_keys(layout);
    }
}

fn own_control(own: usize, layout: &Layout) -> usize {
    control_of(own, layout.control_bytes)
}

/// Runs the destructors of the values of keys, on the base that they belong to.
fn end_keys(layout: &Layout) {
    let control = control_of(base::current(), layout.control_bytes);
    let specific = control + layout.specific_at;
    let used: *mut u8 = ptr::with_exposed_provenance_mut(specific + 8 * KEY_BLOCKS);
    for _ in 0..KEY_ROUNDS {
        // SAFETY: a flag in the control block of the thread that this is (LAYOUT-1).
        if unsafe { used.replace(0) } == 0 {
            break;
        }
        for place in 0..KEY_BLOCKS {
            let block: *mut KeyData = ptr::with_exposed_provenance_mut(read(specific + 8 * place));
            if block.is_null() {
                continue;
            }
            for number in 0..KEYS_IN_BLOCK {
                // SAFETY: the block has so many entries, and is this thread's.
                let data = unsafe { block.add(number) };
                // SAFETY: as above; nobody else refers to it.
                let data = unsafe { &mut *data };
                let value = std::mem::replace(&mut data.value, ptr::null_mut());
                // SAFETY: the table has an entry for each key (1,024).
                let key = unsafe { layout.keys.add(place * KEYS_IN_BLOCK + number) };
                // SAFETY: as above. What other threads write to it is read as it is.
                let key: Key = unsafe { key.read_volatile() };
                if !value.is_null()
                    && data.sequence == key.sequence
                    && let Some(destructor) = key.destructor
                {
                    // SAFETY: what was registered for the values of this key.
                    unsafe { destructor(value) };
                }
            }
        }
    }
    for place in 1..KEY_BLOCKS {
        let at = specific + 8 * place;
        let block = read(at);
        if block != 0 {
            // SAFETY: a word in the control block of the thread that this is (LAYOUT-1).
            unsafe { ptr::with_exposed_provenance_mut::<usize>(at).write(0) };
            // SAFETY: glibc has allocated it for this thread's values, and nobody reads them now.
            unsafe { libc::free(ptr::with_exposed_provenance_mut(block)) };
        }
    }
}

fn read(address: usize) -> usize {
    // SAFETY: called for fields of a block of ours, or of the control block of this thread
    // (LAYOUT-1).
    unsafe { ptr::with_exposed_provenance::<usize>(address).read_unaligned() }
}

fn draw_tid() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(*GUEST_TIDS.start());
    let next = |tid: i32| Some(if tid < *GUEST_TIDS.end() { tid + 1 } else { *GUEST_TIDS.start() });
    // It never fails: there is always a next one.
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default()
}

impl Drop for Block<'_> {
    /// Its destructors have run, or nothing has.
    fn drop(&mut self) {
        lock_all().remove(self.number);
        let vector = Vector::of(self.base);
        vector.clear();
        let address = vector.first.expose_provenance();
        let kept = SPARE.try_with(|spare| {
            let Spares(spare) = &mut *spare.borrow_mut();
            let has_room = spare.len() < SPARE_MAX;
            if has_room {
                spare.push(Spare { vector: address, tid: self.tid });
            }
            has_room
        });
        if !kept.unwrap_or(false) {
            vector.free();
        }
    }
}
