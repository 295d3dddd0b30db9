//! See `doorward::authentication::fuzzing::key_set`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| doorward::authentication::fuzzing::key_set(input));
