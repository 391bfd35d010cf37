//! `plyfs_fuzz::apply` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plyfs_fuzz::apply(data));

libfuzzer_sys::fuzz_mutator!(
    |data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
        let size = libfuzzer_sys::fuzzer_mutate(data, size, max_size);
        plyfs_fuzz::repair(&mut data[..size]);
        size
    }
);
