//! The files of a run: one certificate, the proxies' configurations, and whatever else these name.

use rcgen::{CertificateParams, KeyPair};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Folder(TempDir);

impl Folder {
    /// With `tls.crt` and `tls.key` for localhost, and both in `haproxy.pem`.
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a temporary directory"));
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        folder.write("tls.crt", &certificate);
        folder.write("tls.key", key.serialize_pem());
        folder.write("haproxy.pem", &(certificate + &key.serialize_pem()));
        for secret in ["tls.key", "haproxy.pem"] {
            fs::set_permissions(folder.path(secret), Permissions::from_mode(0o600)).expect("a file of ours");
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file of the benchmark");
        path
    }

    /// A file of `benches/` with its `{{names}}` filled in; `{{dir}}` is this folder.
    pub fn fill(&self, template: &str, values: &[(&str, &str)]) -> PathBuf {
        self.fill_as(template, template.rsplit('/').next().expect("a file name"), values)
    }

    /// The same, under another name.
    pub fn fill_as(&self, template: &str, name: &str, values: &[(&str, &str)]) -> PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(template);
        let text = fs::read_to_string(&path).expect("the template");
        let text = text.replace("{{dir}}", &self.0.path().display().to_string());
        let filled = values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
        self.write(name, filled)
    }
}
