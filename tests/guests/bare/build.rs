//! Links for no operating system: our own entry and addresses, nobody's libraries.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
    for argument in [
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-n",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/bare.ld");
    println!("cargo:rerun-if-changed=bare.ld");
    println!("cargo:rerun-if-changed=src/entry.s");
}
