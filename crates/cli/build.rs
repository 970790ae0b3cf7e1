//! Tells the program the versions of the libraries that its runs name, as Cargo.lock has them, and strips it on Linux.

use std::{env, fs};

const LIBRARIES: [(&str, &str); 2] = [("burn", "KILN_BURN_VERSION"), ("wgpu", "KILN_WGPU_VERSION")];

fn main() {
    // A quarter of the program is names of functions, which only a backtrace shows. The profile's `strip` would compile
    // every dependency anew for those who have built Kiln before.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
    }
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let path = format!("{folder}/../../Cargo.lock");
    println!("cargo:rerun-if-changed={path}");
    // Built outside of the workspace, the program names none.
    let lock = fs::read_to_string(path).unwrap_or_default();
    for (name, variable) in LIBRARIES {
        let package = format!("name = \"{name}\"\nversion = \"");
        if let Some((_, rest)) = lock.split_once(&package) {
            println!("cargo:rustc-env={variable}={}", rest.split('"').next().unwrap_or_default());
        }
    }
}
