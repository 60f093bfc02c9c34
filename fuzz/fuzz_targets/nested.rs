#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flipside_fuzzing::nested(data));
