//! The names in a client's certificate (DER): what is found stands in it, and what follows it changes nothing.
#![no_main]

use doorward::tls::PeerCertificate;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let found = PeerCertificate::read(input);
    let holds = |name: &str| name.is_empty() || input.windows(name.len()).any(|bytes| bytes.eq_ignore_ascii_case(name.as_bytes()));
    assert!(found.spiffe.iter().all(|uri| uri.starts_with("spiffe://") && holds(uri)));
    assert!(found.dns.iter().all(|name| name.is_ascii() && *name == name.to_ascii_lowercase() && holds(name)));
    assert!(found.common_name.iter().all(|name| holds(name)));
    let followed = PeerCertificate::read(&[input, b"\x30\x00"].concat());
    if found.spiffe.is_some() || found.common_name.is_some() || !found.dns.is_empty() {
        assert_eq!(followed, PeerCertificate { digest: followed.digest, ..found });
    }
});
