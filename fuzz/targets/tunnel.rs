#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wye_fuzz::tunnel::run(bytes));
