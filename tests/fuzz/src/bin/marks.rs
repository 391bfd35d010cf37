//! `plyfs_fuzz::marks` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plyfs_fuzz::marks(data));
