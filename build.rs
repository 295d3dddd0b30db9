//! Lays the release program out so that what every start runs lies together: pages come into memory sixteen at a time, and of
//! what is strewn over the whole program two thirds did (docs/performance.md). The list is made by release/layout.py.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=release/layout.ld");
    println!("cargo::rerun-if-env-changed=DOORWARD_LAYOUT");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    let script = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("release/layout.ld");
    // mold takes no linker scripts: DOORWARD_LAYOUT=none builds without.
    let wanted = !is("DOORWARD_LAYOUT", "none") && script.exists();
    // Only where it is measured. A function that the list does not know, or no more, lies with the others.
    if wanted && is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bin=doorward=-T{}", script.display());
    }
}
