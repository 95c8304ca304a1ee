//! The code of this very test, as binutils read it.

use std::process::Command;

/// What to add to an address of the file to have it in this process.
fn load_bias() -> usize {
    extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, bias: *mut libc::c_void) -> i32 {
        // SAFETY: dl_iterate_phdr passes a valid info.
        let address = unsafe { (*info).dlpi_addr };
        // SAFETY: `bias` is the pointer that is passed below, to a live usize.
        unsafe { bias.cast::<usize>().write(address as usize) };
        1 // the executable is the first; look no further
    }
    let mut bias = 0usize;
    // SAFETY: `first` has the type that is asked for, keeps nothing and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut bias).cast()) };
    bias
}

/// The address in the file of what is at `address` in this process.
pub(crate) fn in_file(address: usize) -> usize {
    address - load_bias()
}

/// What `tool` says about this executable; `None`, said aloud, where there is no such tool.
pub(crate) fn ask(tool: &str, arguments: &[String]) -> Option<String> {
    let exe = std::env::current_exe().unwrap();
    let output = match Command::new(tool).args(arguments).arg(exe).env("LC_ALL", "C").output() {
        Ok(output) => output,
        Err(e) => {
            crate::skipped(&format!("notes against the binary: {tool}: {e}"));
            return None;
        }
    };
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The `len` bytes of code that are at `start` in this process, disassembled; those of x86_64 in
/// Intel's order.
pub(crate) fn disassembly(start: usize, len: usize) -> Option<Vec<String>> {
    disassembly_in_file(in_file(start), len)
}

/// The same of an address in the file.
pub(crate) fn disassembly_in_file(start: usize, len: usize) -> Option<Vec<String>> {
    let mut arguments = vec![
        "-d".into(),
        "--no-show-raw-insn".into(),
        format!("--start-address={start:#x}"),
        format!("--stop-address={:#x}", start + len),
    ];
    if cfg!(target_arch = "x86_64") {
        arguments.push("-Mintel".into());
    }
    let text = ask("objdump", &arguments)?;
    Some(text.lines().filter_map(|line| line.split_once(":\t")).map(normal).collect())
}

/// One space between words, nothing of what objdump remarks, and of an address of the code how far
/// ahead it is.
fn normal((address, text): (&str, &str)) -> String {
    let text = ["# ", "//"].iter().fold(text, |text, mark| {
        text.split_once(mark).map_or(text, |(before, _)| before) // `#` alone begins a number
    });
    let words: Vec<&str> = text.split_whitespace().collect();
    if let ["adr", register, target, ..] = words[..] {
        let [from, to] = [address.trim(), target.trim_start_matches("0x")]
            .map(|number| usize::from_str_radix(number, 16).expect("objdump's numbers are hex"));
        return format!("adr {register} pc+{:#x}", to - from);
    }
    words.join(" ")
}
