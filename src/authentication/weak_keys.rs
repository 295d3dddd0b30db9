//! Public keys that parse and still protect nothing.

/// Shorter RSA moduli are within reach of factoring (NIST SP 800-131A).
const SHORTEST_RSA_BITS: usize = 2048;
/// Longer ones are not verified by the cryptography underneath.
const LONGEST_RSA_BITS: usize = 8192;

/// Why an RSA public key must not be used; both numbers big-endian without leading zeros.
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), &'static str> {
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    if bits < SHORTEST_RSA_BITS {
        return Err("an RSA key of fewer than 2048 bits");
    }
    if bits > LONGEST_RSA_BITS {
        return Err("an RSA key of more than 8192 bits");
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(modulus) {
        return Err("an RSA key with an even modulus");
    }
    if !odd(exponent) || exponent == [1] {
        return Err("an RSA key with an exponent that is even or below 3");
    }
    // aws-lc refuses more than 33 bits at each verification: such a key would never verify anything.
    if exponent.len() > 4 {
        return Err("an RSA key with an exponent of more than 32 bits");
    }
    if has_roca_fingerprint(modulus) {
        return Err("an RSA key with the ROCA fingerprint (CVE-2017-15361)");
    }
    Ok(())
}

/// Primes for which the powers of 65537 are far from all residues; a random modulus passes all by chance once in 2^27.
const ROCA_PRIMES: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Infineon's primes were `k·M + (65537^a mod M)` with M a product of small primes, so the modulus is a power of 65537
/// modulo each of those (Nemec et al., "The Return of Coppersmith's Attack").
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    ROCA_PRIMES.iter().all(|&prime| {
        let residue = modulus.iter().fold(0u32, |residue, &byte| (residue * 256 + u32::from(byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            let found = power == residue;
            power = power * 65537 % prime;
            found
        })
    })
}

/// Why an Ed25519 public key must not be used. Bytes that are no point of the curve are harmless: they verify nothing.
pub(super) fn ed25519(point: &[u8; 32]) -> Result<(), &'static str> {
    if is_of_small_order(point) {
        return Err("an Ed25519 key of small order");
    }
    Ok(())
}

/// The y coordinates of the points of order 1, 2, 4 and 8 and their non-canonical spellings, little-endian; the sign bit does not matter.
/// With such a key a signature can be made that verifies for many messages.
const SMALL_ORDER: [[u8; 32]; 7] = [
    spelled(0x00, 0x00, 0x00),
    spelled(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
        0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39,
        0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    spelled(0xec, 0xff, 0x7f),
    spelled(0xed, 0xff, 0x7f),
    spelled(0xee, 0xff, 0x7f),
];

const fn spelled(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

fn is_of_small_order(point: &[u8; 32]) -> bool {
    let [y @ .., last] = point;
    SMALL_ORDER.iter().any(|[small @ .., small_last]| y == small && last & 0x7f == *small_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: &[u8] = &[1, 0, 1];

    fn modulus(bytes: usize) -> Vec<u8> {
        // Odd and of full length.
        let mut modulus = vec![0xa7; bytes];
        modulus[bytes - 1] = 0x55;
        modulus
    }

    #[test]
    fn rsa_keys_are_screened() {
        assert_eq!(rsa(&modulus(256), E), Ok(()));
        assert_eq!(rsa(&modulus(512), &[3]), Ok(()));
        assert!(rsa(&modulus(128), E).unwrap_err().contains("2048"));
        let mut short = modulus(256);
        short[0] = 0x7f;
        assert!(rsa(&short, E).unwrap_err().contains("2048"), "2047 bits");
        assert!(rsa(&modulus(1025), E).is_err());
        let mut even = modulus(256);
        even[255] = 0x54;
        assert!(rsa(&even, E).is_err());
        for bad in [&[][..], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert!(rsa(&modulus(256), bad).unwrap_err().contains("exponent"), "{bad:?}");
        }
        assert!(rsa(&[], E).is_err());
    }

    #[test]
    fn the_fingerprint_is_seen() {
        // 65537^128 has 2049 bits and is, of course, a power of 65537 modulo every prime.
        let mut number = vec![1u8];
        for _ in 0..128 {
            // number * 65537 = (number << 16) + number, big-endian.
            let mut shifted = number.clone();
            shifted.extend([0, 0]);
            let mut carry = 0u16;
            for offset in 1..=shifted.len() {
                let place = shifted.len() - offset;
                let add = if offset <= number.len() { u16::from(number[number.len() - offset]) } else { 0 };
                let sum = u16::from(shifted[place]) + add + carry;
                shifted[place] = sum as u8;
                carry = sum >> 8;
            }
            if carry > 0 {
                shifted.insert(0, carry as u8);
            }
            number = shifted;
        }
        assert!(rsa(&number, E).unwrap_err().contains("ROCA"));
        let last = number.len() - 1;
        number[last] ^= 2;
        assert_eq!(rsa(&number, E), Ok(()));
    }

    #[test]
    fn points_of_small_order_are_seen_in_every_spelling() {
        for point in SMALL_ORDER {
            let mut negative = point;
            negative[31] |= 0x80;
            assert!(ed25519(&point).unwrap_err().contains("small order"));
            assert!(ed25519(&negative).unwrap_err().contains("small order"));
        }
        // RFC 8032 §7.1, test 1.
        let good = crate::secret::Digest::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        assert_eq!(ed25519(good.as_bytes()), Ok(()));
    }
}
