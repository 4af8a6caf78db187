//! Takes the place of the crate of this name in libp2p (`[patch.crates-io]`), with what its private networks (pnet) use of it.
//! That one computes a block of 64 bytes after the other; libsodium computes many at once with the processor's vector
//! instructions, eight times as fast for what is longer than 4 KiB.
//!
//! Source: D. J. Bernstein, "Extending the Salsa20 nonce", 2011; libsodium's documentation of `crypto_stream_salsa20`.

use std::sync::Once;

pub use cipher;
use cipher::{
    InOutBuf, Iv, IvSizeUser, Key, KeyIvInit, KeySizeUser, StreamCipher, StreamCipherError,
    consts::{U8, U16, U24, U32},
};
use libsodium_sys::{crypto_core_hsalsa20, crypto_stream_salsa20_xor_ic, sodium_init};

/// Bytes of the key stream that have a number of their own.
const BLOCK: usize = 64;

/// Salsa20: a key of 32 bytes, a nonce of 8.
pub struct Salsa20 {
    key: [u8; 32],
    nonce: [u8; 8],
    /// Number of the first block that was not computed yet.
    next: u64,
    /// The last block that was computed for its beginning only.
    block: [u8; BLOCK],
    /// How much of it was used; all of it if there is none.
    used: usize,
}

impl Salsa20 {
    fn started(key: [u8; 32], nonce: [u8; 8]) -> Self {
        static CHOSEN: Once = Once::new();
        // SAFETY: takes nothing, and may be called by any thread. It chooses the code for this processor; without it, or
        // when it fails, libsodium uses code that runs on each, with the same results.
        CHOSEN.call_once(|| unsafe {
            sodium_init();
        });
        Self { key, nonce, next: 0, block: [0; BLOCK], used: BLOCK }
    }

    /// Applies the key stream from the block `next` on.
    fn apply(&mut self, buffer: InOutBuf<'_, '_, u8>) {
        let length = buffer.len();
        let (input, output) = buffer.into_raw();
        // SAFETY: `input` and `output` are of `length` bytes, and apart or the same, both of which libsodium takes; nonce and
        // key have the lengths that it reads.
        unsafe {
            crypto_stream_salsa20_xor_ic(
                output,
                input,
                length as u64,
                self.nonce.as_ptr(),
                self.next,
                self.key.as_ptr(),
            );
        }
        self.next = self.next.wrapping_add(length.div_ceil(BLOCK) as u64);
    }
}

impl KeySizeUser for Salsa20 {
    type KeySize = U32;
}

impl IvSizeUser for Salsa20 {
    type IvSize = U8;
}

impl KeyIvInit for Salsa20 {
    fn new(key: &Key<Self>, nonce: &Iv<Self>) -> Self {
        Self::started((*key).into(), (*nonce).into())
    }
}

impl StreamCipher for Salsa20 {
    fn check_remaining(&self, length: usize) -> Result<(), StreamCipherError> {
        // One block of 2^64 is never given, as in the crate's own.
        let blocks = length.saturating_sub(BLOCK - self.used).div_ceil(BLOCK) as u64;
        self.next.checked_add(blocks).map(drop).ok_or(StreamCipherError)
    }

    fn unchecked_apply_keystream_inout(&mut self, buffer: InOutBuf<'_, '_, u8>) {
        let rest = buffer.len().min(BLOCK - self.used);
        let (mut begun, buffer) = buffer.split_at(rest);
        begun.xor_in2out(&self.block[self.used..self.used + rest]);
        self.used += rest;

        let whole = buffer.len() - buffer.len() % BLOCK;
        let (blocks, mut end) = buffer.split_at(whole);
        if !blocks.is_empty() {
            self.apply(blocks);
        }
        if !end.is_empty() {
            let mut block = [0; BLOCK];
            self.apply(block.as_mut_slice().into());
            self.block = block;
            self.used = end.len();
            end.xor_in2out(&self.block[..self.used]);
        }
    }

    fn unchecked_write_keystream(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
        self.unchecked_apply_keystream(buffer);
    }
}

/// XSalsa20: a key of 32 bytes, a nonce of 24. Key and the nonce's first 16 bytes make the key of a Salsa20 that has the
/// last 8 as its nonce.
pub struct XSalsa20(Salsa20);

impl KeySizeUser for XSalsa20 {
    type KeySize = U32;
}

impl IvSizeUser for XSalsa20 {
    type IvSize = U24;
}

impl KeyIvInit for XSalsa20 {
    fn new(key: &Key<Self>, nonce: &Iv<Self>) -> Self {
        let (first, last) = nonce.split_ref::<U16>();
        let mut derived = [0; 32];
        // SAFETY: `derived` and `key` are of 32 bytes and `first` of 16, as it expects; without a constant it takes Salsa20's.
        unsafe {
            crypto_core_hsalsa20(derived.as_mut_ptr(), first.as_ptr(), key.as_ptr(), std::ptr::null());
        }
        Self(Salsa20::started(derived, (*last).into()))
    }
}

impl StreamCipher for XSalsa20 {
    fn check_remaining(&self, length: usize) -> Result<(), StreamCipherError> {
        self.0.check_remaining(length)
    }

    fn unchecked_apply_keystream_inout(&mut self, buffer: InOutBuf<'_, '_, u8>) {
        self.0.unchecked_apply_keystream_inout(buffer);
    }

    fn unchecked_write_keystream(&mut self, buffer: &mut [u8]) {
        self.0.unchecked_write_keystream(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn xsalsa20() -> XSalsa20 {
        XSalsa20::new(b"this is 32-byte key for xsalsa20".into(), b"24-byte nonce for xsalsa".into())
    }

    /// Source: eSTREAM's verified test vectors for Salsa20, 256-bit key, set 1, vector 0.
    #[test]
    fn salsa20_gives_the_published_key_stream() {
        let mut key = [0; 32];
        key[0] = 0x80;
        let mut stream = [0; 64];
        Salsa20::new(&key.into(), &[0; 8].into()).apply_keystream(&mut stream);
        let expected = "e3be8fdd8beca2e3ea8ef9475b29a6e7003951e1097a5c38d23b7a5fad9f6844\
                        b22c97559e2723c7cbbd3fe4fc8d9a0744652a83e72a9c461876af4d7ef1a117";
        assert_eq!(hex(&stream), expected);
    }

    /// Source: the test vectors of Go's `golang.org/x/crypto/salsa20`.
    #[test]
    fn xsalsa20_gives_the_published_key_stream() {
        let mut text = *b"Hello world!";
        xsalsa20().apply_keystream(&mut text);
        assert_eq!(hex(&text), "002d4513843fc240c401e541");

        let mut stream = [0; 64];
        xsalsa20().apply_keystream(&mut stream);
        let expected = "4848297feb1fb52fb66d81609bd547fabcbe7026edc8b5e5e449d088bfa69c08\
                        8f5d8da1d791267c2c195a7f8cae9c4b4050d08ce6d3a151ec265f3a58e47648";
        assert_eq!(hex(&stream), expected);
    }

    #[test]
    fn the_key_stream_does_not_depend_on_where_it_is_cut() {
        let mut whole = vec![0; 20_000];
        xsalsa20().apply_keystream(&mut whole);
        for step in [1, 7, 63, 64, 65, 127, 128, 1000, 4096, 5000] {
            let mut cut = vec![0; whole.len()];
            let mut cipher = xsalsa20();
            // Of growing length, so that pieces begin and end anywhere in a block.
            let mut rest = cut.as_mut_slice();
            let mut length = 0;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at_mut(length.min(rest.len()));
                cipher.apply_keystream(piece);
                rest = after;
                length += step;
            }
            assert!(cut == whole, "in pieces that grow by {step}");
        }
    }

    #[test]
    fn from_one_buffer_to_another_it_is_the_same() {
        let text: Vec<u8> = (0..5000u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut here = text.clone();
        let mut there = vec![0; text.len()];
        xsalsa20().apply_keystream(&mut here);
        xsalsa20().apply_keystream_b2b(&text, &mut there);
        assert!(here == there);
    }

    #[test]
    fn a_key_stream_never_begins_again() {
        let mut cipher = Salsa20::new(&[0; 32].into(), &[0; 8].into());
        cipher.next = u64::MAX - 1;
        assert!(cipher.try_apply_keystream(&mut [0; 65]).is_err());
        assert!(cipher.try_apply_keystream(&mut [0; 10]).is_ok());
        assert!(cipher.try_apply_keystream(&mut [0; 54]).is_ok());
        assert!(cipher.try_apply_keystream(&mut [0; 1]).is_err());
    }
}
