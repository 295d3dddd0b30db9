//! The four ways in which tokens are signed here: making them in numbers, and what the verification of one signature costs by itself.

use crate::rig::folder::Folder;
use crate::token::claims;
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::json;
use std::time::Instant;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    RS256,
    ES256,
    EdDSA,
    HS256,
}

/// Whether a signature, the second, is that of a text.
type Verify = Box<dyn Fn(&[u8], &[u8]) -> bool>;

/// Of HS256; in characters that HAProxy's configuration takes without quotes.
const SECRET: &str = "a-secret-of-the-benchmarks-that-is-longer-than-its-hash";

macro_rules! key_file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/", $name)).as_slice()
    };
}

impl Signature {
    pub const ALL: [Signature; 4] = [Signature::RS256, Signature::ES256, Signature::EdDSA, Signature::HS256];

    pub fn name(self) -> &'static str {
        match self {
            Signature::RS256 => "RS256",
            Signature::ES256 => "ES256",
            Signature::EdDSA => "EdDSA",
            Signature::HS256 => "HS256",
        }
    }

    fn public_pem(self) -> &'static [u8] {
        match self {
            Signature::RS256 => key_file!("rsa.pub.pem"),
            Signature::ES256 => key_file!("p256.pub.pem"),
            Signature::EdDSA => key_file!("ed25519.pub.pem"),
            Signature::HS256 => &[],
        }
    }

    /// The key as Doorward's configuration and HAProxy's name it.
    pub fn configured(self, folder: &Folder) -> (String, String) {
        if self == Signature::HS256 {
            folder.write("hmac.secret", SECRET);
            return ("secret_file: hmac.secret".to_owned(), SECRET.to_owned());
        }
        let path = folder.write("key.pub", self.public_pem());
        ("public_key_file: key.pub".to_owned(), path.display().to_string())
    }

    /// Makes the token of a number, each for another user; all else is as in every benchmark.
    pub fn issuer(self) -> impl Fn(usize) -> String {
        let (algorithm, key) = match self {
            Signature::RS256 => (Algorithm::RS256, EncodingKey::from_rsa_pem(key_file!("rsa.pem"))),
            Signature::ES256 => (Algorithm::ES256, EncodingKey::from_ec_pem(key_file!("p256.pem"))),
            Signature::EdDSA => (Algorithm::EdDSA, EncodingKey::from_ed_pem(key_file!("ed25519.pem"))),
            Signature::HS256 => (Algorithm::HS256, Ok(EncodingKey::from_secret(SECRET.as_bytes()))),
        };
        let key = key.expect("a key of the tests");
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": self.name(), "typ": "JWT", "kid": "first"}).to_string());
        let claims = claims(json!({
            "sub": "user-{number}", "exp": crate::token::now() + 86_400, "jti": "0f8fad5b-d9cb-469f-a165-{number}", "scope": "openid profile email"
        }));
        let claims = claims.to_string();
        move |number| {
            let claims = URL_SAFE_NO_PAD.encode(claims.replace("{number}", &format!("{number:012}")));
            let signed = format!("{header}.{claims}");
            let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, algorithm).expect("a signature");
            format!("{signed}.{signature}")
        }
    }

    /// The tokens 1 to `count`, made on all cores.
    pub fn tokens(self, count: usize) -> Vec<String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let numbers: Vec<usize> = (1..=count).collect();
        std::thread::scope(|scope| {
            let shares = numbers.chunks(count.div_ceil(threads).max(1));
            let makers: Vec<_> =
                shares.map(|share| scope.spawn(move || share.iter().copied().map(self.issuer()).collect::<Vec<_>>())).collect();
            makers.into_iter().flat_map(|maker| maker.join().expect("tokens")).collect()
        })
    }

    /// Microseconds for the signature of `token` alone, the key parsed and the token decoded: no proxy that uses the same
    /// cryptography can be quicker. The best of ten turns.
    pub fn verification(self, token: &str) -> f64 {
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let verify = self.verifier();
        let turn = || {
            let started = Instant::now();
            for _ in 0..300 {
                assert!(verify(signed.as_bytes(), &signature), "a signature of ours");
            }
            started.elapsed().as_secs_f64() * 1e6 / 300.0
        };
        (0..10).map(|_| turn()).fold(f64::INFINITY, f64::min)
    }

    fn verifier(self) -> Verify {
        let point = |key: Result<DecodingKey, _>| key.expect("a key").try_get_as_bytes().expect("a public key").to_vec();
        let parsed = match self {
            Signature::RS256 => {
                let der = point(DecodingKey::from_rsa_pem(self.public_pem()));
                let components = RsaPublicKeyComponents::<Vec<u8>>::from(&PublicKey::from_der(&der).expect("a key"));
                components.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
            }
            Signature::ES256 => {
                ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point(DecodingKey::from_ec_pem(self.public_pem())))
            }
            Signature::EdDSA => ParsedPublicKey::new(&signature::ED25519, point(DecodingKey::from_ed_pem(self.public_pem()))),
            Signature::HS256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                return Box::new(move |signed, signature| hmac::verify(&key, signed, signature).is_ok());
            }
        };
        let key = parsed.expect("a key");
        Box::new(move |signed, signature| key.verify_sig(signed, signature).is_ok())
    }
}
