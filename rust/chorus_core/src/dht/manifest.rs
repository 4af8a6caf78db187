//! The manifest of a value too large for one record: its size and the hashes of its blocks.
//!
//! ```text
//! manifest = size:u64be | (SHA-256 of a block: 32 bytes)*
//! ```
//!
//! Every block but the last holds [`BLOCK_BYTES`]. What cannot be such a manifest is refused before anything is fetched.

use sha2::{Digest, Sha256};

use super::VALUE_MAX_BYTES;
use crate::{Error, Result};

/// Plain bytes of one block, and the largest value that needs none.
pub const BLOCK_BYTES: usize = 60 * 1024;
/// Blocks of the largest value.
pub const BLOCKS_MAX: u32 = VALUE_MAX_BYTES.div_ceil(BLOCK_BYTES) as u32;
const HASH_BYTES: usize = 32;
const SIZE_BYTES: usize = 8;

/// What a value is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Bytes of the whole value.
    pub size: usize,
    /// SHA-256 of each block, in order.
    pub blocks: Vec<[u8; HASH_BYTES]>,
}

impl Manifest {
    /// The manifest of a value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let blocks = value.chunks(BLOCK_BYTES).map(|block| Sha256::digest(block).into()).collect();
        Self { size: value.len(), blocks }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let size = (self.size as u64).to_be_bytes();
        size.iter().copied().chain(self.blocks.iter().flatten().copied()).collect()
    }

    /// Reads the manifest of a record that says it has `count` blocks.
    ///
    /// # Errors
    /// `tampered` when it is none.
    pub fn decode(bytes: &[u8], count: u32) -> Result<Self> {
        let wrong = || Error::Tampered("a manifest is malformed".into());
        let (size, hashes) = bytes.split_first_chunk::<SIZE_BYTES>().ok_or_else(wrong)?;
        let size = usize::try_from(u64::from_be_bytes(*size)).map_err(|_| wrong())?;
        let fits = (BLOCK_BYTES + 1..=VALUE_MAX_BYTES).contains(&size)
            && size.div_ceil(BLOCK_BYTES) == count as usize
            && hashes.len() == count as usize * HASH_BYTES;
        if !fits {
            return Err(wrong());
        }
        let blocks = hashes.as_chunks::<HASH_BYTES>().0.to_vec();
        Ok(Self { size, blocks })
    }

    /// Bytes that the block at a place has.
    #[must_use]
    pub fn block_bytes(&self, at: usize) -> usize {
        self.size.saturating_sub(at * BLOCK_BYTES).min(BLOCK_BYTES)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_value_fits_a_record() {
        assert_eq!(BLOCKS_MAX, 274);
        assert!(SIZE_BYTES + BLOCKS_MAX as usize * HASH_BYTES < BLOCK_BYTES);
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        for size in [BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 1, 1_000_000] {
            let manifest = Manifest::of(&vec![7; size]);
            let count = manifest.blocks.len() as u32;
            assert_eq!(Manifest::decode(&manifest.encode(), count).unwrap(), manifest);
            assert_eq!((0..count as usize).map(|at| manifest.block_bytes(at)).sum::<usize>(), size);
            for wrong in [0, count - 1, count + 1, u32::MAX] {
                assert!(matches!(Manifest::decode(&manifest.encode(), wrong), Err(Error::Tampered(_))));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in any::<u32>()) {
            let _ = Manifest::decode(&bytes, count);
        }

        /// Whatever size a manifest claims, no more is taken for one than a value may have.
        #[test]
        fn no_size_is_believed(size in any::<u64>(), count in 0u32..400) {
            let bytes: Vec<u8> = size.to_be_bytes().into_iter().chain(vec![0; count as usize * 32]).collect();
            if let Ok(manifest) = Manifest::decode(&bytes, count) {
                prop_assert!(manifest.size <= VALUE_MAX_BYTES && manifest.blocks.len() <= BLOCKS_MAX as usize);
            }
        }
    }
}
