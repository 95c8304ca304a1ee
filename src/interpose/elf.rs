//! The loaded objects of this process, and the symbols that they define.
//!
//! Floor 8. Uses: dl_iterate_phdr(3). Used by: `next`, `status`.
//!
//! The loader's own answer, dlsym(3), may allocate and so call what we are looking for (`NEXT-2`).
//! What it would read is mapped and in the open: each object's dynamic section names its table of
//! symbols, their names, a hash table, and their versions.
//!
//! # Invariants
//!
//! - `ELF-1` An object is looked at only inside dl_iterate_phdr(3), which holds off unloading; what
//!   leaves it is a copy, or an address of code.
//! - `ELF-2` Its tables are those that the loader itself reads by the same entries. Their addresses
//!   are absolute, as glibc has made them when it loaded the object, or relative (the vDSO).
//!
//! # Source
//!
//! The System V ABI, "Dynamic Linking"; glibc `elf/dl-lookup.c` (`do_lookup_x`, `check_match`),
//! `elf/dl-hash.h`; dl_iterate_phdr(3).

#![expect(unsafe_code, reason = "what is mapped has no type")]
//! # Safety
//!
//! Every read is inside a table whose extent its own header, or the loader, vouches for (`ELF-2`).

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    ptr::null,
    sync::atomic::{AtomicUsize, Ordering},
};

use libc::{Elf64_Phdr, Elf64_Rela, Elf64_Sym, dl_phdr_info};

/// An entry of a dynamic section.
#[repr(C)]
struct Dyn {
    tag: i64,
    value: usize,
}

const DT_NULL: i64 = 0;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
const DT_PLTRELSZ: i64 = 2;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;
const DT_RPATH: i64 = 15;
const DT_RUNPATH: i64 = 29;

/// The kinds of relocations that leave the address of a symbol in a word: for its address, for
/// calls, and in data.
#[cfg(target_arch = "x86_64")]
const SLOTS: [u32; 3] = [6, 7, 1];
#[cfg(target_arch = "aarch64")]
const SLOTS: [u32; 3] = [1025, 1026, 257];

/// Bit of a version: not the default of its name.
const HIDDEN: u16 = 0x8000;

const STB_GLOBAL: u8 = 1;
const STB_WEAK: u8 = 2;
const STB_GNU_UNIQUE: u8 = 10;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// A loaded object, for as long as dl_iterate_phdr(3) shows it.
pub(super) struct Object<'a> {
    /// What is added to its addresses.
    base: usize,
    name: *const c_char,
    headers: &'a [Elf64_Phdr],
    shown: PhantomData<&'a dl_phdr_info>,
}

/// Shows `look` each loaded object, in the order in which they were loaded. For those that the
/// program was linked with, it is the order in which names are looked for. Stops at `Some`.
pub(super) fn objects<R>(look: impl FnMut(&Object<'_>) -> Option<R>) -> Option<R> {
    struct Looking<R, F> {
        look: F,
        found: Option<R>,
    }

    unsafe extern "C" fn show<R, F: FnMut(&Object<'_>) -> Option<R>>(
        info: *mut dl_phdr_info,
        _size: usize,
        looking: *mut c_void,
    ) -> c_int {
        // SAFETY: it is what was passed below, and nobody else uses it meanwhile.
        let looking = unsafe { &mut *looking.cast::<Looking<R, F>>() };
        // SAFETY: the loader's description of an object, ours to read until we return.
        let info = unsafe { &*info };
        let headers = match info.dlpi_phnum {
            0 => &[],
            // SAFETY: that many headers are there, mapped as long as the object is (ELF-1).
            count => unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count.into()) },
        };
        let base = info.dlpi_addr as usize;
        let object = Object { base, name: info.dlpi_name, headers, shown: PhantomData };
        looking.found = (looking.look)(&object);
        c_int::from(looking.found.is_some())
    }

    fn callback<R, F: FnMut(&Object<'_>) -> Option<R>>(
        _: &F,
    ) -> unsafe extern "C" fn(*mut dl_phdr_info, usize, *mut c_void) -> c_int {
        show::<R, F>
    }

    let show = callback::<R, _>(&look);
    let mut looking = Looking { look, found: None };
    // SAFETY: `show` is called with what it expects, before this returns.
    unsafe { libc::dl_iterate_phdr(Some(show), (&raw mut looking).cast()) };
    looking.found
}

impl Object<'_> {
    /// The path by which it was loaded; of the program, nothing.
    pub(super) fn name(&self) -> &CStr {
        if self.name.is_null() {
            return c"";
        }
        // SAFETY: the loader's string, which lives as long as the object is loaded (ELF-1).
        unsafe { CStr::from_ptr(self.name) }
    }

    /// Whether `address` is in one of its segments.
    pub(super) fn contains(&self, address: usize) -> bool {
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD).any(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            address.wrapping_sub(start) < header.p_memsz as usize
        })
    }

    /// Its dynamic section, entry by entry, without the last.
    fn dynamic(&self) -> impl Iterator<Item = (i64, usize)> + '_ {
        let section = self.headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
        let section = section.map_or(&[][..], |header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            let count = header.p_memsz as usize / size_of::<Dyn>();
            let start = std::ptr::with_exposed_provenance::<Dyn>(start);
            // SAFETY: the segment is mapped and has that many entries (ELF-2).
            unsafe { std::slice::from_raw_parts(start, count) }
        });
        section
            .iter()
            .take_while(|entry| entry.tag != DT_NULL)
            .map(|entry| (entry.tag, entry.value))
    }

    /// A table, of whose address the dynamic section says `value`.
    fn table<T>(&self, value: usize) -> *const T {
        // The loader has made it absolute, except in an object that cannot be written.
        let address = if value < self.base { self.base + value } else { value };
        std::ptr::with_exposed_provenance(address)
    }

    /// Its symbols. None: it has no tables of them.
    fn symbols(&self) -> Option<Symbols> {
        let mut symbols = Symbols {
            table: null(),
            names: null(),
            versions: null(),
            gnu_hash: null(),
            hash: null(),
        };
        for (tag, value) in self.dynamic() {
            match tag {
                DT_SYMTAB => symbols.table = self.table(value),
                DT_STRTAB => symbols.names = self.table(value),
                DT_VERSYM => symbols.versions = self.table(value),
                DT_GNU_HASH => symbols.gnu_hash = self.table(value),
                DT_HASH => symbols.hash = self.table(value),
                _ => {}
            }
        }
        (!symbols.table.is_null() && !symbols.names.is_null()).then_some(symbols)
    }

    /// The folders that it names for what it loads, separated by colons.
    pub(super) fn run_path(&self) -> Option<Vec<u8>> {
        let (mut names, mut old, mut new) = (None, None, None);
        for (tag, value) in self.dynamic() {
            match tag {
                DT_STRTAB => names = Some(self.table::<c_char>(value)),
                DT_RPATH => old = Some(value),
                DT_RUNPATH => new = Some(value),
                _ => {}
            }
        }
        let text = names?.wrapping_add(new.or(old)?);
        // SAFETY: a string in the table of names (ELF-2).
        Some(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
    }

    /// Shows `look` the names that it asks others for, and what address stands where it will find
    /// each: one inside itself if it has not asked yet (lazy binding).
    pub(super) fn imports(&self, mut look: impl FnMut(&[u8], usize)) {
        let Some(symbols) = self.symbols() else { return };
        let (mut lists, mut sizes) = ([null(); 2], [0; 2]);
        for (tag, value) in self.dynamic() {
            match tag {
                DT_RELA => lists[0] = self.table::<Elf64_Rela>(value),
                DT_RELASZ => sizes[0] = value,
                DT_JMPREL => lists[1] = self.table(value),
                DT_PLTRELSZ => sizes[1] = value,
                _ => {}
            }
        }
        for (list, size) in std::iter::zip(lists, sizes).filter(|(list, _)| !list.is_null()) {
            // SAFETY: that many bytes of relocations are there (ELF-2).
            let list = unsafe { std::slice::from_raw_parts(list, size / size_of::<Elf64_Rela>()) };
            for relocation in list {
                // The low half says of which kind it is, the high half of which symbol.
                let (kind, index) = (relocation.r_info as u32, (relocation.r_info >> 32) as u32);
                if !SLOTS.contains(&kind) || relocation.r_addend != 0 {
                    continue;
                }
                let symbol = symbols.symbol(index);
                if symbol.st_shndx != 0 {
                    continue;
                }
                let place = self.base.wrapping_add(relocation.r_offset as usize);
                let place = std::ptr::with_exposed_provenance::<AtomicUsize>(place);
                // SAFETY: the word that this relocation is about; the loader may be writing it.
                let slot = unsafe { &*place };
                look(symbols.name(&symbol), slot.load(Ordering::Relaxed));
            }
        }
    }

    /// The address of the function `name`, if it defines one: in its default version, or else in
    /// the first.
    pub(super) fn definition(&self, name: &str) -> Option<Definition> {
        let symbols = self.symbols()?;
        let mut old = None;
        let defined = symbols.named(name, |symbol, hidden| {
            let address = self.base.wrapping_add(symbol.st_value as usize);
            let definition = match symbol.st_info & 0xf {
                STT_NOTYPE | STT_FUNC => Definition::Plain(address),
                STT_GNU_IFUNC => Definition::Chosen,
                _ => return None,
            };
            let global = matches!(symbol.st_info >> 4, STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE);
            if symbol.st_shndx == 0 || !global {
                return None;
            }
            if hidden {
                old.get_or_insert(definition);
                return None;
            }
            Some(definition)
        });
        defined.or(old)
    }
}

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Definition {
    /// There.
    Plain(usize),
    /// A function of its library says where; the loader has asked it.
    Chosen,
}

/// The tables of symbols of an object.
struct Symbols {
    table: *const Elf64_Sym,
    names: *const c_char,
    /// Null: they have no versions.
    versions: *const u16,
    gnu_hash: *const u32,
    hash: *const u32,
}

impl Symbols {
    /// Shows `judge` the symbols called `name`, and whether their version is an old one, until it
    /// gives something.
    fn named<R>(
        &self,
        name: &str,
        mut judge: impl FnMut(&Elf64_Sym, bool) -> Option<R>,
    ) -> Option<R> {
        let mut look = |index: u32| {
            let symbol = self.symbol(index);
            if self.name(&symbol) != name.as_bytes() {
                return None;
            }
            judge(&symbol, self.is_hidden(index))
        };
        if !self.gnu_hash.is_null() {
            self.by_gnu_hash(name, &mut look)
        } else if !self.hash.is_null() {
            self.by_hash(name, &mut look)
        } else {
            None
        }
    }

    fn symbol(&self, index: u32) -> Elf64_Sym {
        // SAFETY: an index that the object's own tables gave (ELF-2).
        unsafe { self.table.wrapping_add(index as usize).read() }
    }

    fn name(&self, symbol: &Elf64_Sym) -> &[u8] {
        // SAFETY: the symbol's name is at this place in the table of names (ELF-2).
        let start = unsafe { self.names.add(symbol.st_name as usize) };
        // SAFETY: as above; names end with a zero.
        unsafe { CStr::from_ptr(start) }.to_bytes()
    }

    fn is_hidden(&self, index: u32) -> bool {
        if self.versions.is_null() {
            return false;
        }
        // SAFETY: there is a version for each symbol (ELF-2).
        let version = unsafe { self.versions.wrapping_add(index as usize).read() };
        version & HIDDEN != 0
    }

    /// The table of the GNU tools: buckets of symbols that follow one another, each with its hash,
    /// whose last bit says that it is the bucket's last.
    fn by_gnu_hash<R>(&self, name: &str, look: &mut impl FnMut(u32) -> Option<R>) -> Option<R> {
        let wanted = name
            .bytes()
            .fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        // SAFETY: the table begins with these four words (ELF-2).
        let [buckets, first, bloom, _] = unsafe { self.gnu_hash.cast::<[u32; 4]>().read() };
        if buckets == 0 {
            return None;
        }
        // Behind them and the filter (words of 64 bits) are the buckets, and then the hashes.
        let place = 4 + bloom as usize * 2 + (wanted % buckets) as usize;
        // SAFETY: a place among the buckets (ELF-2).
        let mut index = unsafe { self.gnu_hash.wrapping_add(place).read() };
        if index < first {
            return None;
        }
        loop {
            let place = 4 + bloom as usize * 2 + (buckets + index - first) as usize;
            // SAFETY: the hash of a symbol of this bucket, which has not ended (ELF-2).
            let hash = unsafe { self.gnu_hash.wrapping_add(place).read() };
            if hash | 1 == wanted | 1
                && let Some(found) = look(index)
            {
                return Some(found);
            }
            if hash & 1 == 1 {
                return None;
            }
            index += 1;
        }
    }

    /// The table of the System V ABI: buckets and chains of indices.
    fn by_hash<R>(&self, name: &str, look: &mut impl FnMut(u32) -> Option<R>) -> Option<R> {
        let hash = name.bytes().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(byte.into());
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        // SAFETY: the table begins with these two words (ELF-2).
        let [buckets, _] = unsafe { self.hash.cast::<[u32; 2]>().read() };
        let mut place = 2 + hash.checked_rem(buckets)? as usize;
        loop {
            // SAFETY: a place among the buckets or the chains (ELF-2).
            let index = unsafe { self.hash.wrapping_add(place).read() };
            if index == 0 {
                return None;
            }
            if let Some(found) = look(index) {
                return Some(found);
            }
            place = 2 + buckets as usize + index as usize;
        }
    }
}

/// The definition of `name` that follows ours: that of the first object behind this one that has
/// one, or else of any but this one and the program.
///
/// Ours is in the program; or in a library, which the program or another library may come before.
pub(super) fn next_definition(name: &str) -> Option<*mut ()> {
    let here = next_definition as *const () as usize;
    let (mut index, mut is_behind) = (0, false);
    let mut before = None;
    let behind = objects(|object| {
        let is_program = index == 0;
        index += 1;
        if object.contains(here) {
            is_behind = true;
            return None;
        }
        if is_program {
            return None;
        }
        let found = object.definition(name)?;
        if is_behind {
            return Some(found);
        }
        before.get_or_insert(found);
        None
    });
    match behind.or(before)? {
        Definition::Plain(address) => Some(std::ptr::with_exposed_provenance_mut(address)),
        Definition::Chosen => chosen(name),
    }
}

/// Asks the loader, who knows which of its variants a library has chosen.
fn chosen(name: &str) -> Option<*mut ()> {
    let mut text = [0_u8; 64];
    text.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let text = CStr::from_bytes_until_nul(&text).ok()?;
    // SAFETY: a string that ends with a zero, for the time of the call.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, text.as_ptr()) };
    (!found.is_null()).then_some(found.cast())
}
