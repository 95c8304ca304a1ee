//! What the C library keeps of a thread, and where: found by asking it, and believed when proved.
//!
//! Floor 8. Uses: glibc's names for debuggers and for its own parts. Used by: `block`.
//!
//! A virtual thread needs what `pthread_create` makes for a thread but no thread: a block of
//! thread-locals with a control block (`struct pthread`). glibc exports the functions that allocate
//! and initialise one, for its own parts (`GLIBC_PRIVATE`), and tables of offsets for debuggers
//! (`_thread_db_*`). Both may change with any release, so each is checked against a fact before it
//! is used: the thread id that is read must be the kernel's, a value that a key was given must be
//! found where it is expected, and so on. What does not hold is refused, with its reason, and
//! `thread` uses OS threads instead.
//!
//! | name | of | since | without it |
//! |---|---|---|---|
//! | `_dl_allocate_tls`, `_dl_allocate_tls_init`, `_dl_deallocate_tls` | ld.so | 2.0 | refused |
//! | `_dl_get_tls_static_info` | ld.so | 2.0 | refused |
//! | `__ctype_init`, `__call_tls_dtors` | libc.so | 2.0, 2.18 | refused |
//! | `__pthread_keys` | libc.so | 2.34 (libpthread before) | refused |
//! | `_thread_db_sizeof_pthread`, `_thread_db_pthread_tid`, `_thread_db_pthread_specific` | libc.so | 2.34 | refused |
//! | `__rseq_offset` | ld.so | 2.35 | nothing to do: no rseq |
//!
//! # Invariants
//!
//! - `LAYOUT-1` A `Layout` exists only when every check has passed in this process.

#![expect(unsafe_code, reason = "the C library's own memory is read")]
//! # Safety
//!
//! What is read lies in the control block of the thread that reads it, at offsets that were checked
//! to be inside of it, or in the C library's tables for debuggers.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    fmt, ptr,
    sync::OnceLock,
};

use crate::coro::base;

/// Why virtual threads cannot be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The C library is not glibc, or is linked statically: a name that is needed is missing.
    Missing(&'static str),
    /// The processor or the kernel does not let programs change the thread-local base.
    NoBase,
    /// A sanitizer keeps books on thread-locals and stacks that virtual threads would upset.
    Sanitizer,
    /// The C library's thread structure is not as expected.
    Unknown(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Missing(name) => write!(
                f,
                "the C library has no {name} (it is not glibc 2.34 or later, or is linked \
                 statically)"
            ),
            Refusal::NoBase => write!(
                f,
                "the thread-local base cannot be changed (no FSGSBASE in the processor, the \
                 kernel, or valgrind)"
            ),
            Refusal::Sanitizer => write!(f, "the program runs under a sanitizer"),
            Refusal::Unknown(what) => {
                write!(f, "the C library's thread structure is not as expected: {what}")
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// One of a thread's values of the first 32 keys (`pthread_key_data`).
#[repr(C)]
pub(super) struct KeyData {
    pub(super) sequence: usize,
    pub(super) value: *mut c_void,
}

/// A key (`pthread_key_struct`).
#[repr(C)]
pub(super) struct Key {
    pub(super) sequence: usize,
    pub(super) destructor: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// Keys in a block, and blocks (`PTHREAD_KEY_2NDLEVEL_SIZE`, `PTHREAD_KEY_1STLEVEL_SIZE`).
pub(super) const KEYS_IN_BLOCK: usize = 32;
pub(super) const KEY_BLOCKS: usize = 32;

/// What must be known to make the thread-locals of a virtual thread.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    pub(super) initialise: unsafe extern "C" fn(*mut c_void, bool) -> *mut c_void,
    pub(super) deallocate: unsafe extern "C" fn(*mut c_void, bool),
    pub(super) init_ctype: unsafe extern "C" fn(),
    pub(super) call_destructors: unsafe extern "C" fn(),
    pub(super) keys: *const Key,
    /// The size of the control block.
    pub(super) control_bytes: usize,
    /// How far a block reaches below its base and above, and what its base is a multiple of.
    pub(super) below: usize,
    pub(super) above: usize,
    pub(super) alignment: usize,
    /// Offsets in the control block.
    pub(super) tid_at: usize,
    pub(super) specific_at: usize,
    pub(super) robust_at: usize,
    /// Offset from the base.
    pub(super) rseq_at: Option<isize>,
    /// Words of libc's own thread-locals that belong to the allocator: offsets from the base.
    pub(super) malloc_words: Vec<isize>,
}

// SAFETY: functions, offsets, and a pointer to a table of the process's.
unsafe impl Send for Layout {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Layout {}

/// The layout, or why there is none; found out once a process.
pub(super) fn layout() -> Result<&'static Layout, Refusal> {
    static LAYOUT: OnceLock<Result<Layout, Refusal>> = OnceLock::new();
    LAYOUT.get_or_init(probe).as_ref().map_err(|refusal| *refusal)
}

/// Where the control block of the thread with this base begins.
pub(super) fn control_of(base: usize, control_bytes: usize) -> usize {
    // On x86_64 the base points to it, on aarch64 it ends where the base points to.
    if cfg!(target_arch = "x86_64") { base } else { base - control_bytes }
}

fn find(name: &'static CStr) -> Option<*mut c_void> {
    // SAFETY: a C string; the answer is an address or null.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn need(name: &'static CStr) -> Result<*mut c_void, Refusal> {
    find(name).ok_or(Refusal::Missing(name.to_str().unwrap_or("?")))
}

/// The offset in a debugger's description of a field: its third word.
fn offset_in(name: &'static CStr) -> Result<usize, Refusal> {
    let words: *const [u32; 3] = need(name)?.cast_const().cast();
    // SAFETY: glibc's tables for debuggers are three words each: size in bits, count, offset.
    Ok(unsafe { (*words)[2] } as usize)
}

fn check(holds: bool, what: &'static str) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::Unknown(what)) }
}

fn probe() -> Result<Layout, Refusal> {
    may_change_base()?;
    if cfg!(asan) || find(c"__asan_init").is_some() || find(c"__tsan_init").is_some() {
        return Err(Refusal::Sanitizer);
    }
    let allocate = need(c"_dl_allocate_tls")?;
    let initialise = need(c"_dl_allocate_tls_init")?;
    let deallocate = need(c"_dl_deallocate_tls")?;
    let init_ctype = need(c"__ctype_init")?;
    let call_destructors = need(c"__call_tls_dtors")?;
    let keys = need(c"__pthread_keys")?;
    let control_bytes: *const u32 = need(c"_thread_db_sizeof_pthread")?.cast_const().cast();
    // SAFETY: a word of glibc's for debuggers.
    let control_bytes = unsafe { *control_bytes } as usize;
    check((1024..65_536).contains(&control_bytes), "its size")?;
    let (static_bytes, alignment) = static_info()?;
    check(alignment.is_power_of_two() && alignment <= 65_536, "the alignment of thread-locals")?;
    check((control_bytes..1 << 24).contains(&static_bytes), "the size of thread-locals")?;
    // On x86_64 thread-locals end where the control block begins, and it is counted with them; on
    // aarch64 it ends where they begin.
    let (below, above) = if cfg!(target_arch = "x86_64") {
        (static_bytes - control_bytes, control_bytes)
    } else {
        (control_bytes, static_bytes)
    };
    let tid_at = offset_in(c"_thread_db_pthread_tid")?;
    let specific_at = offset_in(c"_thread_db_pthread_specific")?;
    let keys_bytes = size_of::<KeyData>() * KEYS_IN_BLOCK;
    check(tid_at + 4 <= control_bytes, "the place of the thread id")?;
    check(
        specific_at >= keys_bytes && specific_at + 8 * KEY_BLOCKS < control_bytes,
        "the place of the keys' values",
    )?;
    let base = base::current();
    let control = control_of(base, control_bytes);
    #[cfg(target_arch = "x86_64")]
    check(word(base) == base && word(base + 0x10) == base, "its pointers to itself")?;
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    check(word(control + tid_at) as u32 as i32 == tid, "the thread id in it")?;
    check_keys(control, specific_at)?;
    let robust_at = robust_list(control, control_bytes)?.wrapping_sub(control);
    check(robust_at + 24 <= control_bytes, "the place of the robust list")?;
    let rseq_at = find(c"__rseq_offset").map(|at| {
        // SAFETY: a `ptrdiff_t` that glibc exports for just this.
        unsafe { *at.cast_const().cast::<isize>() }
    });
    let (libc_at, libc_bytes) = libc_image().ok_or(Refusal::Unknown("libc's own thread-locals"))?;
    check(
        libc_at >= -(below as isize) && libc_at + libc_bytes as isize <= above as isize,
        "the place of thread-locals",
    )?;
    let malloc_words = malloc_words(libc_at, libc_bytes)?;
    Ok(Layout {
        // SAFETY: the name is that of a function with this type, as are those below.
        allocate: unsafe { function(allocate) },
        // SAFETY: as above. Before glibc 2.35 it takes no second argument, and then ignores it.
        initialise: unsafe { function(initialise) },
        // SAFETY: as above.
        deallocate: unsafe { function(deallocate) },
        // SAFETY: as above.
        init_ctype: unsafe { function(init_ctype) },
        // SAFETY: as above.
        call_destructors: unsafe { function(call_destructors) },
        keys: keys.cast_const().cast(),
        control_bytes,
        below,
        above,
        alignment,
        tid_at,
        specific_at,
        robust_at,
        rseq_at,
        malloc_words,
    })
}

/// How many bytes thread-locals take in all that have a place in each block, and their alignment.
fn static_info() -> Result<(usize, usize), Refusal> {
    let tell = need(c"_dl_get_tls_static_info")?;
    // SAFETY: the name is that of a function with this type.
    let tell: unsafe extern "C" fn(*mut usize, *mut usize) = unsafe { function(tell) };
    let (mut bytes, mut alignment) = (0, 0);
    // SAFETY: it writes two numbers, for which there is room.
    unsafe { tell(&raw mut bytes, &raw mut alignment) };
    Ok((bytes, alignment))
}

/// The function at an address.
///
/// # Safety
///
/// `F` is the type of a pointer to that function.
unsafe fn function<F: Copy>(address: *mut c_void) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: a pointer to a function has the size of an address; the caller vouches for its type.
    unsafe { std::mem::transmute_copy(&address) }
}

/// Whether programs may change the base.
#[cfg(target_arch = "x86_64")]
fn may_change_base() -> Result<(), Refusal> {
    /// `HWCAP2_FSGSBASE`: the kernel allows it, and the processor can.
    const FSGSBASE: libc::c_ulong = 1 << 1;
    // SAFETY: reads the vector that the kernel gave the process.
    let allowed = unsafe { libc::getauxval(libc::AT_HWCAP2) } & FSGSBASE != 0;
    if allowed { Ok(()) } else { Err(Refusal::NoBase) }
}

#[cfg(target_arch = "aarch64")]
fn may_change_base() -> Result<(), Refusal> {
    Ok(()) // `tpidr_el0` is the program's own.
}

fn word(address: usize) -> usize {
    // SAFETY: called for addresses in the control block of this thread, whose size was checked.
    unsafe { ptr::with_exposed_provenance::<usize>(address).read_unaligned() }
}

/// A value that a key was given is where it should be.
fn check_keys(control: usize, specific_at: usize) -> Result<(), Refusal> {
    let keys_at = specific_at - size_of::<KeyData>() * KEYS_IN_BLOCK;
    let mark = 0x5eed_usize;
    let mut key = 0;
    // SAFETY: an out-parameter of ours, no destructor.
    check(unsafe { libc::pthread_key_create(&raw mut key, None) } == 0, "no key is left")?;
    let value: *const c_void = ptr::without_provenance(mark);
    // SAFETY: the key was just made; its value is never dereferenced.
    unsafe { libc::pthread_setspecific(key, value) };
    let number = key as usize;
    let used = word(control + specific_at + 8 * KEY_BLOCKS) & 0xff;
    let block = word(control + specific_at + 8 * (number / KEYS_IN_BLOCK));
    let found = block != 0 && {
        let at = block + size_of::<KeyData>() * (number % KEYS_IN_BLOCK) + size_of::<usize>();
        // The first block lies in the control block; others are glibc's heap, of the same shape.
        (number >= KEYS_IN_BLOCK || block == control + keys_at) && word(at) == mark
    };
    // SAFETY: as above.
    unsafe { libc::pthread_setspecific(key, ptr::null()) };
    // SAFETY: the key is ours, and nobody has a value of it.
    unsafe { libc::pthread_key_delete(key) };
    check(found && used == 1, "the value of a key")
}

/// Where the kernel was told that this thread's robust list is. Where it takes no such list (an
/// emulator's does not), where the one thing lies that looks like an empty one.
fn robust_list(control: usize, control_bytes: usize) -> Result<usize, Refusal> {
    let (mut head, mut len) = (0usize, 0usize);
    // SAFETY: two out-parameters of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    if result == 0 {
        check(len == 24, "the robust list")?;
        return Ok(head);
    }
    find_empty_list(control, control_bytes).ok_or(Refusal::Unknown("the robust list"))
}

/// The one word of a control block that points to itself behind another that points to it: the head
/// of a robust list that is empty.
fn find_empty_list(control: usize, control_bytes: usize) -> Option<usize> {
    let is_empty_list = |at: &usize| word(*at) == *at && word(*at - 8) == *at;
    let places = (control + 8..control + control_bytes - 8).step_by(8);
    let found: Vec<_> = places.filter(is_empty_list).collect();
    <[usize; 1]>::try_from(found).ok().map(|[head]| head)
}

/// What the helper thread is given and gives back.
struct Seen {
    /// Where libc's own thread-locals lie, relative to the base, and how many words they are.
    at: isize,
    words: usize,
    before: Vec<usize>,
    after: Vec<usize>,
    #[cfg(target_arch = "x86_64")]
    header: [usize; 8],
}

/// The words of libc's thread-locals that its allocator sets when a thread first allocates: those
/// that change in a thread that does just that. `at` and `bytes` are those of libc's image.
fn malloc_words(at: isize, bytes: usize) -> Result<Vec<isize>, Refusal> {
    let words = bytes / size_of::<usize>();
    check(words < 4096, "the size of libc's own thread-locals")?;
    let mut seen = Seen {
        at,
        words,
        before: vec![0; words],
        after: vec![0; words],
        #[cfg(target_arch = "x86_64")]
        header: [0; 8],
    };
    extern "C" fn look(seen: *mut c_void) -> *mut c_void {
        // SAFETY: `malloc_words` passes its own `Seen` and waits for this thread.
        let seen = unsafe { &mut *seen.cast::<Seen>() };
        let base = base::current();
        let image = base.wrapping_add_signed(seen.at);
        let read = |to: &mut Vec<usize>| {
            for (place, to) in to.iter_mut().enumerate().take(seen.words) {
                *to = word(image + place * size_of::<usize>());
            }
        };
        read(&mut seen.before);
        // SAFETY: allocates; a compiler must not leave it out, so it is looked at.
        let memory = std::hint::black_box(unsafe { libc::malloc(24) });
        // SAFETY: it was just allocated.
        unsafe { libc::free(memory) };
        read(&mut seen.after);
        #[cfg(target_arch = "x86_64")]
        for (place, to) in seen.header.iter_mut().enumerate() {
            *to = word(base + place * size_of::<usize>());
        }
        ptr::null_mut()
    }
    let mut thread = 0;
    // SAFETY: `look` takes what it is given, which lives until the thread has been joined.
    let started =
        unsafe { libc::pthread_create(&raw mut thread, ptr::null(), look, (&raw mut seen).cast()) };
    check(started == 0, "no thread could be started to look at it")?;
    // SAFETY: the thread was just started, and is joined once.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    #[cfg(target_arch = "x86_64")]
    {
        let base = base::current();
        let threads = |header: usize| header as u32;
        check(
            threads(seen.header[3]) == 1 && threads(word(base + 0x18)) == 1,
            "its count of threads",
        )?;
        let same = (4..7).all(|place| seen.header[place] == word(base + 8 * place));
        check(same, "the guards of stacks and pointers")?;
    }
    let changed = (0..words).filter(|&place| seen.before[place] != seen.after[place]);
    let changed: Vec<_> = changed.collect();
    check(
        changed.len() <= 4 && changed.iter().all(|&place| seen.before[place] == 0),
        "the allocator's words",
    )?;
    Ok(changed.iter().map(|place| at + (place * size_of::<usize>()) as isize).collect())
}

/// Where libc's own thread-locals lie, relative to the base, and their size in bytes.
fn libc_image() -> Option<(isize, usize)> {
    struct Found {
        errno: usize,
        image: Option<(usize, usize)>,
    }
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: `libc_image` passes its own `Found`.
        let found = unsafe { &mut *found.cast::<Found>() };
        // SAFETY: the loader passes a valid description.
        let info = unsafe { &*info };
        let start = info.dlpi_tls_data.expose_provenance();
        for place in 0..usize::from(info.dlpi_phnum) {
            // SAFETY: there are so many headers.
            let header = unsafe { info.dlpi_phdr.add(place) };
            // SAFETY: as above.
            let header = unsafe { &*header };
            let size = header.p_memsz as usize;
            if header.p_type == libc::PT_TLS && (start..start + size).contains(&found.errno) {
                found.image = Some((start, size));
                return 1;
            }
        }
        0
    }
    // SAFETY: the address of this thread's `errno`, which is one of libc's own thread-locals.
    let errno = unsafe { libc::__errno_location() }.expose_provenance();
    let mut found = Found { errno, image: None };
    // SAFETY: `look` takes what it is given.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    let (start, size) = found.image?;
    Some((start.wrapping_sub(base::current()) as isize, size))
}

/// The C library's version.
pub(super) fn c_library() -> &'static str {
    let Some(version) = find(c"gnu_get_libc_version") else { return "not glibc" };
    // SAFETY: the name is that of a function with this type.
    let version: extern "C" fn() -> *const c_char = unsafe { function(version) };
    // SAFETY: it returns a string of the library's.
    unsafe { CStr::from_ptr(version()) }.to_str().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::{base, control_of, find_empty_list, layout};

    #[test]
    fn the_robust_list_is_where_it_is_searched_for() {
        let Ok(layout) = layout() else { return };
        let control = control_of(base::current(), layout.control_bytes);
        let found = find_empty_list(control, layout.control_bytes);
        assert_eq!(found, Some(control + layout.robust_at));
    }
}
