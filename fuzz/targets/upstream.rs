//! See `doorward::upstream::fuzzing::upstream`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| doorward::upstream::fuzzing::upstream(input));
