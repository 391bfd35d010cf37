//! Buffers for file data, fewer than there are threads: most threads read large files at no time.
use parking_lot::Mutex;

/// How many buffers are kept; more readers at once get one each, which goes afterwards.
const KEPT: usize = 4;

/// Buffers of the size of the largest request that each has served.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Works with a buffer of `size` bytes, the one used last: it is still in the processor's cache.
    pub(crate) fn with<T>(&self, size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let last = self.free.lock().pop();
        let mut buffer = last.unwrap_or_default();
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let done = work(&mut buffer[..size]);
        let mut free = self.free.lock();
        if free.len() < KEPT {
            free.push(buffer);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_kept_and_used_again() {
        let buffers = Buffers::default();
        buffers.with(10, |one| {
            one.fill(1);
            buffers.with(20, |two| two.fill(2));
        });
        assert_eq!(buffers.free.lock().len(), 2);
        assert_eq!(buffers.with(5, |b| b.to_vec()), [1; 5]);
        let deep = |n: usize| {
            fn go(buffers: &Buffers, n: usize) {
                if n > 0 {
                    buffers.with(1, |_| go(buffers, n - 1));
                }
            }
            go(&buffers, n);
        };
        deep(3 * KEPT);
        assert_eq!(buffers.free.lock().len(), KEPT);
    }
}
