//! A program that says `interpose!()`: what libc's names are in it.
//!
//! Nobody here is a virtual thread, so every call passes through.

#![expect(unsafe_code, reason = "it calls C by its names")]

use std::{
    ffi::{CStr, c_int, c_void},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    ptr::{null, null_mut},
};

use greenloop::interpose;

greenloop::interpose!();

#[test]
fn the_names_of_libc_are_ours() {
    assert_eq!(interpose::is_active(), Ok(()));
}

#[test]
fn std_works_as_before() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"ping")?;
    let mut answer = [0; 4];
    server.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

#[test]
fn errno_is_what_the_next_definition_says() {
    // SAFETY: the kernel refuses it.
    assert_eq!(unsafe { libc::close(-1) }, -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
}

/// All arguments arrive, also those behind the dots.
#[test]
fn variadic_functions_get_what_they_were_given() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let copy = listener.try_clone()?; // fcntl with an argument
    copy.set_nonblocking(true)?; // ioctl with a pointer
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // Six arguments: the file begins at an offset of one page.
    let file = std::fs::File::open("/proc/self/exe")?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // Whole words: of a smaller argument the other half is anything.
    let (nowhere, page, fd) = (0_i64, 4096_i64, i64::from(fd));
    let (read, kind) = (i64::from(libc::PROT_READ), i64::from(libc::MAP_PRIVATE));
    // SAFETY: a new mapping, anywhere.
    let mapped = unsafe { libc::syscall(libc::SYS_mmap, nowhere, page, read, kind, fd, page) };
    assert!(mapped > 0, "{}", io::Error::last_os_error());
    let mut expected = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut expected, page as u64)?;
    let mapped = std::ptr::with_exposed_provenance::<[u8; 16]>(mapped as usize);
    // SAFETY: it was mapped to be read, and is a page long.
    assert_eq!(unsafe { mapped.read() }, expected);
    Ok(())
}

#[test]
fn a_thread_blocked_in_a_hooked_call_can_be_cancelled() {
    extern "C" fn block(fd: *mut c_void) -> *mut c_void {
        let mut byte = 0_u8;
        // SAFETY: one byte of room. Nothing in this frame is dropped.
        unsafe { libc::read(fd.addr() as c_int, (&raw mut byte).cast(), 1) };
        null_mut()
    }
    unsafe extern "C" {
        fn pthread_cancel(thread: libc::pthread_t) -> c_int;
    }
    let mut pair = [0; 2];
    // SAFETY: room for two.
    assert_eq!(unsafe { libc::pipe(pair.as_mut_ptr()) }, 0);
    let mut thread = 0;
    let argument = std::ptr::without_provenance_mut(pair[0] as usize);
    // SAFETY: `block` takes the number, and may be cancelled.
    let error = unsafe { libc::pthread_create(&raw mut thread, null(), block, argument) };
    assert_eq!(error, 0);
    // SAFETY: it has not been joined.
    assert_eq!(unsafe { pthread_cancel(thread) }, 0);
    let mut value = null_mut();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut value) }, 0);
    assert_eq!(value.addr(), usize::MAX, "PTHREAD_CANCELED");
}

#[test]
fn a_child_of_vfork_returns_before_its_parent() {
    unsafe extern "C" {
        fn vfork() -> libc::pid_t;
    }
    // SAFETY: the child ends at once, and changes nothing that the parent needs.
    let child = unsafe { vfork() };
    if child == 0 {
        // SAFETY: what a child of vfork may do.
        unsafe { libc::_exit(7) };
    }
    let mut status = 0;
    // SAFETY: room for a status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
}

#[test]
fn libraries_are_loaded_and_errors_are_told() {
    // SAFETY: libc has no constructor that does harm, and is loaded anyway.
    let library = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null());
    // SAFETY: there is no such library.
    assert!(unsafe { libc::dlopen(c"libnowhere.so".as_ptr(), libc::RTLD_NOW) }.is_null());
    // SAFETY: it takes nothing.
    let error = unsafe { libc::dlerror() };
    // SAFETY: a string, for there was an error.
    let error = unsafe { CStr::from_ptr(error) };
    assert!(error.to_string_lossy().contains("libnowhere.so"), "{error:?}");
}

/// std starts children by posix_spawn; with something to do in between, by fork.
#[test]
fn children_are_started_and_waited_for() -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    assert_eq!(Command::new("true").status()?.code(), Some(0));
    // SAFETY: it does nothing.
    let forked = unsafe { Command::new("false").pre_exec(|| Ok(())).status()? };
    assert_eq!(forked.code(), Some(1));
    Ok(())
}

/// A library of C, whose calls are bound when it is loaded, or not before they are made.
fn load(binding: &str) -> (String, *mut c_void) {
    let folder = std::env::temp_dir().join(format!("greenloop-{}-{binding}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("calls.c"), folder.join("libcalls.so"));
    let text = "#include <sys/socket.h>\n#include <unistd.h>\n\
                int sends(int fd) { return send(fd, \"x\", 1, 0); }\n\
                int sleeps(void) { return usleep(1); }\n";
    std::fs::write(&source, text).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", &format!("-Wl,-z,{binding}"), "-o"]).arg(&library);
    assert!(compiler.arg(&source).status().expect("a C compiler").success());
    let path = std::ffi::CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: it has no constructors.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
    assert!(!handle.is_null());
    std::fs::remove_dir_all(folder).unwrap();
    (library.to_str().unwrap().to_owned(), handle)
}

#[test]
fn the_status_knows_who_calls() {
    for binding in ["now", "lazy"] {
        let (path, handle) = load(binding);
        let status = interpose::status();
        let library = status.object(&path).expect("it is loaded");
        assert_eq!(library.ours(), ["send", "usleep"], "{status}");
        assert!(library.is_cooperative());
        // SAFETY: it has this function.
        let sleeps = unsafe { libc::dlsym(handle, c"sleeps".as_ptr()) };
        // SAFETY: as above, of this type.
        let sleeps =
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(sleeps) };
        assert_eq!(sleeps(), 0);
        let status = interpose::status();
        assert_eq!(status.object(&path).unwrap().ours(), ["send", "usleep"], "{status}");
        assert!(status.to_string().contains(&path), "{status}");
    }
    let status = interpose::status();
    let program = &status.objects()[0];
    assert_eq!(program.path(), "the program");
    for name in ["recv", "__read", "fcntl64", "syscall", "pthread_mutex_lock", "dlopen"] {
        assert!(program.ours().contains(&name), "{name}\n{status}");
    }
    // What libc itself calls is its own.
    let libc = status.object("libc.so").expect("it is linked");
    assert!(libc.ours().is_empty(), "{status}");
}

/// The page on interposition has the instructions of a hook that has no frame.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_jump_on_the_page_is_what_was_built() {
    let page = include_str!("../asm-notes/interposition.md");
    let block = page.lines().skip_while(|line| *line != "```jump x86_64").skip(1);
    let block = block.take_while(|line| *line != "```");
    let wanted: Vec<String> = block.map(|line| normal(line.split(';').next().unwrap())).collect();
    let tool = |tool: &str, arguments: &[&str]| {
        let exe = std::env::current_exe().unwrap();
        let output = Command::new(tool).args(arguments).arg(exe).output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(symbols) = tool("nm", &["-C"]) else {
        let _ = writeln!(io::stderr(), "SKIPPED: a page against the binary: no nm");
        return;
    };
    let name = "greenloop::interpose::thread::dlopen";
    let line = symbols.lines().find(|line| line.ends_with(name)).expect("it is linked");
    let start = format!("--start-address=0x{}", line.split(' ').next().unwrap());
    let code = tool("objdump", &["-d", "-Mintel", "--no-show-raw-insn", &start]).unwrap();
    let built = code.lines().filter_map(|line| line.split_once(":\t"));
    let built = built.map(|(_, text)| {
        let text = normal(text);
        if text.starts_with("call ") { "call CHOOSE".to_owned() } else { text }
    });
    assert_eq!(built.take(wanted.len()).collect::<Vec<_>>(), wanted);
}

/// One space between words.
#[cfg(target_arch = "x86_64")]
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
