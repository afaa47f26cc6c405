#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gen_fuzz::read("npy", bytes));
