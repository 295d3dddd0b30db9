//! What `make deny` says of licences and sources, in little, so that every change is held to it: the lists are those of
//! deny.toml. Advisories, bans and duplicates are cargo-deny's.

use crate::harness::pages::read;
use std::process::Command;

/// `allow` of deny.toml.
fn allowed() -> Vec<String> {
    let text = read("deny.toml");
    let list = text.split_once("allow = [").unwrap().1.split_once(']').unwrap().0;
    list.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

/// Whether an SPDX expression holds with `allowed` alone. `/` is how `OR` was written once.
fn holds(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let spaced = spaced.replace(" WITH ", "\u{a0}WITH\u{a0}");
    let words: Vec<&str> = spaced.split(' ').filter(|word| !word.is_empty()).collect();
    let (value, rest) = any_of(&words, allowed);
    assert!(rest.is_empty(), "{expression}");
    value
}

fn any_of<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut value, mut rest) = all_of(words, allowed);
    while let Some(("OR", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (other, after) = all_of(more, allowed);
        (value, rest) = (value || other, after);
    }
    (value, rest)
}

fn all_of<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut value, mut rest) = one(words, allowed);
    while let Some(("AND", more)) = rest.split_first().map(|(word, more)| (*word, more)) {
        let (other, after) = one(more, allowed);
        (value, rest) = (value && other, after);
    }
    (value, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (word, rest) = words.split_first().expect("a licence");
    if *word == "(" {
        let (value, rest) = any_of(rest, allowed);
        return (value, rest.strip_prefix(&[")"]).expect("a closing bracket"));
    }
    (allowed.contains(&word.replace('\u{a0}', " ")), rest)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for (expression, value) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/GPL-2.0", true),
        ("GPL-2.0 OR ISC AND MIT", true),
        ("(GPL-2.0 OR ISC) AND MIT", true),
        ("(GPL-2.0 OR ISC) AND BSD-2-Clause", false),
        ("ISC AND (GPL-2.0 AND MIT OR GPL-3.0)", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(holds(expression, &allowed), value, "{expression}");
    }
}

#[test]
fn every_crate_that_may_be_shipped_is_under_an_allowed_licence() {
    let allowed = allowed();
    assert!(allowed.len() > 3 && allowed.contains(&"MIT".to_owned()), "{allowed:?}");
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        // Dependencies of every kind, each as `name vVERSION|LICENCE`.
        let arguments = ["tree", "--locked", "--package=doorward", "--target", target, "--prefix=none", "--format={p}|{l}"];
        let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() > 100, "{text}");
        for (package, licence) in text.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|')) {
            assert!(holds(licence, &allowed), "{package}: {licence}");
        }
    }
}

#[test]
fn every_crate_comes_from_the_registry_with_a_digest() {
    let lock = read("Cargo.lock");
    let crates = lock.split("[[package]]").skip(1);
    for package in crates.filter(|package| !package.contains("name = \"doorward")) {
        assert!(package.contains("\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n"), "{package}");
        assert!(package.contains("\nchecksum = \""), "{package}");
    }
}
