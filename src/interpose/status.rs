//! Who calls us: each loaded object, and whom it finds by the names that are hooked.
//!
//! Floor 8. Uses: `elf`, `export`, dlsym(3). Used by: users.
//!
//! "Is library X cooperative?" A library calls the names of others through words that the loader
//! has filled in. Those words are read: what stands there is what a call reaches.

#![expect(unsafe_code, reason = "dlsym is C")]
//! # Safety
//!
//! dlsym(3) is given strings that end with a zero; what it finds is compared, never called.

use std::{collections::BTreeMap, fmt};

use super::{elf, export};

/// Which blocking functions each object of this process calls, and whose: see [`status`].
#[derive(Clone, Debug)]
pub struct Status {
    objects: Vec<ObjectStatus>,
}

/// A loaded object, of [`Status`].
#[derive(Clone, Debug)]
pub struct ObjectStatus {
    path: String,
    ours: Vec<&'static str>,
    others: Vec<&'static str>,
}

/// Looks at each loaded object, which blocking functions of libc it calls, and whether it finds
/// those that [`interpose!`](crate::interpose!) has defined.
///
/// The program itself is the first. It has our definitions inside, and so what is linked into it
/// statically, std for example, finds them. A name that a library has not called yet, and that the
/// loader would look for when it does, counts as what it would find.
///
/// What calls the kernel by itself asks for no name: nobody can tell.
///
/// # Examples
///
/// ```
/// greenloop::interpose!();
///
/// fn main() {
///     let status = greenloop::interpose::status();
///     println!("{status}");
///     for library in status.objects().iter().filter(|object| !object.is_cooperative()) {
///         println!("{} would stop the loop", library.path());
///     }
/// }
/// ```
#[must_use]
pub fn status() -> Status {
    let defined = export::found_beside(export::defined().unwrap_or(&[]));
    // By name: where ours is, and whether it is what the loader would find now.
    let mut names: BTreeMap<&'static [u8], (&'static str, Option<usize>, bool)> = BTreeMap::new();
    for entry in super::next::names() {
        names.insert(entry.as_bytes(), (entry, None, false));
    }
    for definition in &defined {
        let ours = definition.address as usize;
        // SAFETY: a string that ends with a zero.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, definition.name.as_ptr()) };
        if let Some(entry) = names.get_mut(definition.name.to_bytes()) {
            (entry.1, entry.2) = (Some(ours), found as usize == ours);
        }
    }
    let mut objects = Vec::new();
    let _: Option<()> = elf::objects(|object| {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        object.imports(|name, address| {
            let Some((name, own, is_found)) = names.get(name) else { return };
            let is_ours = if object.contains(address) && *own != Some(address) {
                *is_found
            } else {
                *own == Some(address)
            };
            if is_ours { &mut ours } else { &mut others }.push(*name);
        });
        for definition in &defined {
            if object.contains(definition.address as usize)
                && let Some((name, ..)) = names.get(definition.name.to_bytes())
            {
                ours.push(*name);
            }
        }
        for list in [&mut ours, &mut others] {
            list.sort_unstable();
            list.dedup();
        }
        let path = match object.name().to_string_lossy() {
            name if name.is_empty() => String::from("the program"),
            name => name.into_owned(),
        };
        objects.push(ObjectStatus { path, ours, others });
        None
    });
    Status { objects }
}

impl Status {
    /// The loaded objects, in the order in which they were loaded.
    #[must_use]
    pub fn objects(&self) -> &[ObjectStatus] {
        &self.objects
    }

    /// The first object whose path contains `name`: `"libpq"`, say.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<&ObjectStatus> {
        self.objects.iter().find(|object| object.path.contains(name))
    }
}

impl ObjectStatus {
    /// Where it was loaded from; `the program` for the program.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The names that mean ours to it.
    #[must_use]
    pub fn ours(&self) -> &[&'static str] {
        &self.ours
    }

    /// The names by which it finds somebody else: libc, or a library that was preloaded.
    #[must_use]
    pub fn others(&self) -> &[&'static str] {
        &self.others
    }

    /// Whether none of the blocking functions that it calls is another's.
    #[must_use]
    pub fn is_cooperative(&self) -> bool {
        self.others.is_empty()
    }
}

/// A line for each object that calls any: how many names are ours, how many are not, and which.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:>6}  object: names that are others'", "ours", "others")?;
        let has_any = |object: &&ObjectStatus| object.ours.len() + object.others.len() > 0;
        for ObjectStatus { path, ours, others } in self.objects.iter().filter(has_any) {
            write!(f, "\n{:>5} {:>6}  {path}", ours.len(), others.len())?;
            if !others.is_empty() {
                write!(f, ": {}", others.join(" "))?;
            }
        }
        Ok(())
    }
}
