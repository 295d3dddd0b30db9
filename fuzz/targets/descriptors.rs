//! A descriptor set. Whatever is taken of it are names that calls can have, each counted once.
#![no_main]

use doorward::grpc::{MethodPath, Services};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(services) = Services::of_set(input) else { return };
    let mut count = 0;
    for (service, methods) in services.iter() {
        count += methods.len();
        assert!(methods.iter().all(|method| MethodPath::parse(&format!("/{service}/{method}")).is_some()));
        assert_eq!(services.methods(service), Some(methods));
    }
    assert_eq!(count, services.method_count());
});
