//! Lays the release program out so that what every start runs lies together: pages come into memory sixteen at a time, and of
//! what is strewn over the whole program two thirds did (docs/performance.md). The list is made by release/layout.py.

fn main() {
    println!("cargo::rerun-if-changed=release/layout.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    // Only where it is measured. A function that the list does not know, or no more, lies with the others.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo::rustc-link-arg-bin=doorward=-Wl,-T,{root}/release/layout.ld");
    }
}
