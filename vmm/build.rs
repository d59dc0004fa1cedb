//! Assembles the guest of `caraway demo` with the assembler and linker that Rust needs anyway.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "../tests/guests/colours/colours.s";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=AS");
    println!("cargo::rerun-if-env-changed=LD");
    // A tenth of the room for relocations, which the loader reads at every start (glibc 2.36).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let object = out.join("colours.o");
    run("AS", "as", &["--32", "-o"], &object, &[SOURCE.as_ref()])?;
    let flags = [
        "-m",
        "elf_i386",
        "-Ttext",
        "0x7c00",
        "--oformat",
        "binary",
        "-o",
    ];
    run("LD", "ld", &flags, &out.join("colours.img"), &[&object])
}

fn run(
    variable: &str,
    default: &str,
    flags: &[&str],
    to: &Path,
    from: &[&Path],
) -> Result<(), String> {
    let program = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let status = Command::new(&program)
        .args(flags)
        .arg(to)
        .args(from)
        .status()
        .map_err(|error| format!("{program}: {error}; apt install binutils, or set {variable}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {status}"))
    }
}
