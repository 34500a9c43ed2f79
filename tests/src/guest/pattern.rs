//! The deterministic byte stream that guests send and clients check.

use sha2::{Digest, Sha256};

/// Fills `buf` with the stream's bytes from `offset` on. Byte `i` depends on `i` alone.
pub fn fill(offset: u64, buf: &mut [u8]) {
    let mut at = 0;
    while at < buf.len() {
        let position = offset + at as u64;
        let word = mix(position / 8).to_le_bytes();
        let skip = (position % 8) as usize;
        let n = (8 - skip).min(buf.len() - at);
        buf[at..at + n].copy_from_slice(&word[skip..skip + n]);
        at += n;
    }
}

/// SHA-256, in lower-case hex, of the first `len` bytes of the stream.
pub fn sha256_hex(len: u64) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 64 * 1024];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(buf.len() as u64) as usize;
        fill(done, &mut buf[..n]);
        hash.update(&buf[..n]);
        done += n as u64;
    }
    hex(&hash.finalize())
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The finaliser of splitmix64: spreads a counter over all 64 bits.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_bytes() {
        let mut whole = [0; 100];
        fill(0, &mut whole);
        for split in 0..100 {
            let mut parts = [0; 100];
            let (a, b) = parts.split_at_mut(split);
            fill(0, a);
            fill(split as u64, b);
            assert_eq!(whole, parts, "split at {split}");
        }
        assert!(whole.iter().any(|&b| b != whole[0]));
    }

    #[test]
    fn hash_of_nothing_is_the_well_known_one() {
        assert_eq!(sha256_hex(0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
