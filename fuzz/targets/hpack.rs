//! See `doorward::http2::fuzzing::hpack`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| doorward::http2::fuzzing::hpack(input));
