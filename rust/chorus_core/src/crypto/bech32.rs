//! The encoding half of Bech32 (BIP 173), which is all that making an age identity from derived bytes needs.

use zeroize::Zeroizing;

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
const CHECKSUM_CHARS: usize = 6;

/// Encodes `data` under the human-readable part `hrp`, which must be lower case ASCII.
pub(super) fn encode(hrp: &str, data: &[u8]) -> Zeroizing<String> {
    let mut words = to_words(data);
    let check = checksum(hrp, &words);
    words.extend_from_slice(&check);
    let mut text = Zeroizing::new(String::with_capacity(hrp.len() + 1 + words.len()));
    text.push_str(hrp);
    text.push('1');
    text.extend(words.iter().map(|w| char::from(CHARSET[usize::from(w & 31)])));
    text
}

/// Regroups bytes into words of five bits, the last one padded with zeros.
fn to_words(data: &[u8]) -> Zeroizing<Vec<u8>> {
    // Reserved whole, so that growing leaves no copies of a secret in freed memory.
    let mut words = Zeroizing::new(Vec::with_capacity(data.len() * 8 / 5 + 1 + CHECKSUM_CHARS));
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in data {
        buffer = ((buffer << 8) | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            words.push(((buffer >> bits) & 31) as u8);
        }
    }
    if bits > 0 {
        words.push(((buffer << (5 - bits)) & 31) as u8);
    }
    words
}

fn checksum(hrp: &str, words: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let high = hrp.bytes().map(|b| b >> 5);
    let low = hrp.bytes().map(|b| b & 31);
    let all = high.chain([0]).chain(low).chain(words.iter().copied()).chain([0; CHECKSUM_CHARS]);
    let residue = all.fold(1u32, step) ^ 1;
    std::array::from_fn(|i| ((residue >> (5 * (CHECKSUM_CHARS - 1 - i))) & 31) as u8)
}

fn step(sum: u32, word: u8) -> u32 {
    let top = sum >> 25;
    let next = ((sum & 0x01ff_ffff) << 5) ^ u32::from(word);
    GENERATOR.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1).fold(next, |sum, (_, g)| sum ^ g)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP 173's valid strings with the shortest payloads.
    #[test]
    fn agrees_with_the_bip() {
        assert_eq!(*encode("a", &[]), "a12uel5l");
        assert_eq!(
            *encode("an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio", &[]),
            "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs"
        );
        // "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw": the 32 words in order, regrouped into 20 bytes.
        let bytes = hex::decode("00443214c74254b635cf84653a56d7c675be77df").unwrap_or_default();
        assert_eq!(*encode("abcdef", &bytes), "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw");
    }
}
