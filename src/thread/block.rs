//! Blocks: the thread-locals of one virtual thread.
//!
//! Floor 8. Uses: `layout`. Used by: `vthread`.
//!
//! A block is made as `pthread_create` makes a thread's: glibc allocates it and writes every
//! module's image into it; then the control block is filled in, field by field. Copying a live
//! thread's control block, or libc's image, would copy pointers of that thread's own with it.
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
//! - `BLOCK-1` A block is used by one virtual thread at a time, on the OS thread that made it: it
//!   is `!Send`. Between two it lies in that thread's pool, reset.
//! - `BLOCK-2` While a block is in use nobody frees it: whoever is frozen leaks it.

#![expect(unsafe_code, reason = "control blocks of the C library's are written")]
//! # Safety
//!
//! A block is written by whoever owns it (`BLOCK-1`), at offsets of a checked layout (`LAYOUT-1`).

use std::{
    cell::RefCell,
    ffi::{c_int, c_void},
    io,
    ptr::{self, NonNull},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use super::layout::{KEY_BLOCKS, KEYS_IN_BLOCK, Key, KeyData, Layout, control_of};
use crate::{coro::base, hub::guest::GUEST_TIDS};

/// Blocks that an OS thread keeps for later.
const SPARE_MAX: usize = 1024;

/// Rounds of destructors of keys, since one may set a value anew (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const KEY_ROUNDS: usize = 4;

/// `RSEQ_CPU_ID_REGISTRATION_FAILED`. The other value for "none" invites libraries to register.
const NO_RSEQ: u32 = -2i32 as u32;

thread_local! {
    static SPARE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Where all blocks of the process are: their bases.
static ALL: Mutex<Vec<usize>> = Mutex::new(Vec::new());

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

/// The vector of the block with this base, which must be ours.
fn vector_of(base: usize) -> Vector {
    // The second word of the base's structure here, the first there.
    let at = if cfg!(target_arch = "x86_64") { 8 } else { 0 };
    let first: *mut Entry = ptr::with_exposed_provenance_mut(read(base + at));
    // SAFETY: the vector that glibc allocated for the block has its length in front.
    let length = unsafe { first.sub(1) };
    // SAFETY: as above.
    let count = unsafe { (*length).at };
    Vector { first, count }
}

impl Vector {
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

/// The modules that were there before a library is loaded.
pub(crate) struct Before(Vec<Module>);

/// Notes what is there, before a library is loaded.
pub(crate) fn before_dlopen() -> Before {
    Before(modules())
}

/// A library was loaded by this OS thread, on its own base: writes the images of thread-locals that
/// it has brought into every block, as the loader does for the threads that it knows. Those that
/// are allocated when they are first used are none of them.
pub(crate) fn after_dlopen(Before(before): &Before) {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(layout) = super::layout::layout() else { return };
    let now = modules();
    let is_known = |module: &Module| {
        before.iter().any(|k| (k.address, k.number) == (module.address, module.number))
    };
    let new: Vec<&Module> = now.iter().filter(|module| !is_known(module)).collect();
    if new.is_empty() || all.is_empty() {
        return;
    }
    // What the loader writes into a new block tells which of them have a place there.
    // SAFETY: null asks for a new block.
    let Some(fresh) = NonNull::new(unsafe { (layout.allocate)(ptr::null_mut()) }) else { return };
    let vector = vector_of(fresh.as_ptr().expose_provenance());
    for module in new {
        let Some(place) = vector.place_of(module.number) else { continue };
        let at = place.wrapping_sub(fresh.as_ptr().expose_provenance());
        for &base in all.iter() {
            let to: *mut u8 = ptr::with_exposed_provenance_mut(base.wrapping_add(at));
            let image: *const u8 = ptr::with_exposed_provenance(module.image);
            // SAFETY: the place of a module's thread-locals is the same in every block, and all
            // blocks are of one size. The module was just loaded: no code that would use them has
            // run, but for its constructors, on this thread's own. The block is alive, as those in
            // the list are.
            unsafe { to.copy_from_nonoverlapping(image, module.image_bytes) };
            // SAFETY: as above.
            let rest = unsafe { to.add(module.image_bytes) };
            // SAFETY: as above.
            unsafe { rest.write_bytes(0, module.bytes - module.image_bytes) };
        }
    }
    // SAFETY: just allocated, and never used.
    unsafe { (layout.deallocate)(fresh.as_ptr(), true) };
}

/// The thread-locals of one virtual thread.
#[derive(Debug)]
pub(super) struct Block {
    base: NonNull<c_void>,
    tid: i32,
    layout: &'static Layout,
}

impl Block {
    /// A block of this OS thread's, fresh or as if it were.
    pub(super) fn take(layout: &'static Layout) -> io::Result<Block> {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        if let Some(block) = spare {
            block.reset();
            return Ok(block);
        }
        // SAFETY: null asks for a new block.
        let base = unsafe { (layout.allocate)(ptr::null_mut()) };
        let base = NonNull::new(base).ok_or_else(|| {
            let text = "no memory for the thread-locals of another virtual thread";
            io::Error::new(io::ErrorKind::OutOfMemory, text)
        })?;
        let block = Block { base, tid: draw_tid(), layout };
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(block.base());
        drop(all);
        block.fill_in();
        Ok(block)
    }

    /// Gives it back, for the next one. Its destructors have run.
    pub(super) fn put(self) {
        let mut block = Some(self);
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.extend(block.take());
            }
        });
        drop(block);
    }

    /// Its base.
    pub(super) fn base(&self) -> usize {
        self.base.as_ptr().expose_provenance()
    }

    /// The thread id in it.
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    fn control(&self) -> usize {
        control_of(self.base(), self.layout.control_bytes)
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

    /// Makes a block that was used as one that was just allocated.
    fn reset(&self) {
        self.clear_vector();
        let control = self.control();
        #[cfg(target_arch = "x86_64")]
        let vector = read(self.base() + 8);
        // SAFETY: BLOCK-1: nobody uses the control block, and all of it is written anew below.
        unsafe {
            ptr::with_exposed_provenance_mut::<u8>(control)
                .write_bytes(0, self.layout.control_bytes);
        }
        #[cfg(target_arch = "x86_64")]
        self.write(self.base() + 8, vector);
        // SAFETY: a block of `_dl_allocate_tls`'s with a cleared vector is what it is for; glibc
        // does the same with the stacks that it keeps.
        unsafe { (self.layout.initialise)(self.base.as_ptr(), false) };
        self.fill_in();
    }

    /// Frees the thread-locals of modules that were loaded late, and forgets them.
    fn clear_vector(&self) {
        let Vector { first, count } = vector_of(self.base());
        for number in 1..=count {
            // SAFETY: an entry of the vector: there are so many behind the first.
            let entry = unsafe { first.add(number) };
            // SAFETY: as above.
            let to_free = unsafe { (*entry).to_free };
            // SAFETY: glibc has allocated it for this block, and forgets it below.
            unsafe { libc::free(to_free) };
        }
        // SAFETY: the first entry and those behind it.
        unsafe { first.write_bytes(0, count + 1) };
    }

    /// Fills the control block in, which is all zeroes but for the vector.
    fn fill_in(&self) {
        let Layout { tid_at, specific_at, robust_at, rseq_at, ref malloc_words, .. } = *self.layout;
        let (base, control, own) = (self.base(), self.control(), base::current());
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

impl Drop for Block {
    fn drop(&mut self) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let base = self.base();
        if let Some(place) = all.iter().position(|known| *known == base) {
            all.swap_remove(place);
        }
        drop(all);
        // SAFETY: allocated by `_dl_allocate_tls`, and nobody runs on it (BLOCK-2).
        unsafe { (self.layout.deallocate)(self.base.as_ptr(), true) };
    }
}
