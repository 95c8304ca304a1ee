//! Asks pkg-config which C libraries there are: the tests of those that are not are left out.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for (library, cfg) in [("libpq", "has_libpq"), ("libcurl", "has_libcurl")] {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        let asked = Command::new("pkg-config").args(["--libs-only-L", library]).output();
        match asked {
            Ok(answer) if answer.status.success() => {
                println!("cargo::rustc-cfg={cfg}");
                for flag in String::from_utf8_lossy(&answer.stdout).split_whitespace() {
                    let path = flag.trim_start_matches("-L");
                    println!("cargo::rustc-link-search=native={path}");
                }
            }
            // A file that does not exist: the next build asks again.
            _ => println!("cargo::rerun-if-changed=no-{library}"),
        }
    }
}
