//! Builds the guests that the tests boot, each from its source in `guests/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Bytes of the disk that the boot sector is on.
const DISK_SIZE: u64 = 1 << 20;

fn main() {
    let guests = PathBuf::from("guests");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder to write to"));

    println!("cargo:rerun-if-changed=guests");
    let sector = ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary"];
    for (name, variable) in [
        ("colours", "COLOURS_GUEST"),
        ("bios-ticks", "BIOS_TICKS_GUEST"),
    ] {
        let source = guests.join(name).join(name).with_extension("s");
        let image = assemble(&source, &out, "--32", &sector);
        // Firmware boots no disk of a single sector.
        let disk = fs::OpenOptions::new().write(true).open(&image);
        disk.and_then(|disk| disk.set_len(DISK_SIZE))
            .expect("the linker's image grows");
        println!("cargo:rustc-env={variable}={}", image.display());
    }
    let kernel = ["-n", "-Ttext", "0x100000"];
    let exit = assemble(&guests.join("exit/exit.s"), &out, "--64", &kernel);
    println!("cargo:rustc-env=EXIT_GUEST={}", exit.display());
    let bare = cargo(&guests.join("bare/Cargo.toml"), &out.join("bare"));
    println!("cargo:rustc-env=BARE_GUEST={}", bare.display());
}

/// Assembles and links one file; where the result is.
fn assemble(source: &Path, out: &Path, width: &str, link: &[&str]) -> PathBuf {
    let image = out.join(source.file_stem().expect("a source has a name"));
    let object = image.with_extension("o");
    run(Command::new("as")
        .arg(width)
        .arg("-o")
        .arg(&object)
        .arg(source));
    run(Command::new("ld")
        .args(link)
        .arg("-o")
        .arg(&image)
        .arg(&object));
    image
}

/// Builds a guest that is a crate; where the result is.
fn cargo(manifest: &Path, target: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo names itself"));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--manifest-path",
        ])
        .arg(manifest);
    cargo.arg("--target-dir").arg(target);
    // What the caller asked of the host's programs is not meant for a guest.
    for variable in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(variable);
    }
    run(&mut cargo);
    target.join("release/bare")
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "{command:?}: {status:?}; `tests/scripts/install.sh build` installs the assembler"
    );
}
