//! The pages of the documentation and the blocks in them.
//!
//! A fenced block `LANGUAGE NAME` is a file of that name; one in `yaml` whose name begins with `doorward` is a whole
//! configuration. What pages name by where it lies in a container lies in the site's folder here.

use super::Site;
use std::fs;
use std::path::{Path, PathBuf};

/// Where containers have the files that a configuration names.
const PLACES: [&str; 3] = ["/etc/doorward/tls/", "/etc/doorward/", "/var/run/secrets/kubernetes.io/serviceaccount/"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: impl AsRef<Path>) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page, by its path from the root.
pub fn pages() -> Vec<PathBuf> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name())).collect::<Vec<_>>()
    };
    let own = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "benches/results/README.md"].map(PathBuf::from);
    let all = own.into_iter().chain(in_folder("docs")).chain(in_folder("docs/recipes"));
    all.filter(|page| page.extension().is_some_and(|extension| extension == "md")).collect()
}

pub struct Block {
    pub language: String,
    /// The word after the language.
    pub name: Option<String>,
    pub text: String,
}

pub fn blocks(page: &Path) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in read(page).lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(info), false) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                found.push(Block { language: words.next().unwrap_or_default(), name: words.next(), text: String::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => found.last_mut().unwrap().text += &format!("{line}\n"),
            (None, false) => {}
        }
    }
    found
}

/// The text of the file `name` of a page.
#[track_caller]
pub fn file(page: &str, name: &str) -> String {
    let block = blocks(Path::new(page)).into_iter().find(|block| block.name.as_deref() == Some(name));
    block.unwrap_or_else(|| panic!("{page} has no {name}")).text
}

/// With the files that it names beside it.
fn here(text: &str) -> String {
    PLACES.iter().fold(text.to_owned(), |text, place| text.replace(place, ""))
}

/// The whole configuration of a page, for an upstream and with ports of this test. `changes` (what stands there, what shall)
/// are for what cannot be the same in a test.
#[track_caller]
pub fn recipe(page: &str, upstream: &str, changes: &[(&str, &str)]) -> String {
    let text = here(&file(page, "doorward.yaml"));
    let ports = [("http://127.0.0.1:50051", upstream), ("0.0.0.0:8443", "127.0.0.1:0")];
    let changed = ports.iter().chain(changes).fold(text, |text, (from, to)| {
        assert!(text.contains(from) || *to == "127.0.0.1:0", "{page} has no {from}");
        text.replace(from, to)
    });
    changed + "operations: { address: 127.0.0.1:0 }\n"
}

impl Site {
    /// A site with the files of a page, and those that a pod finds.
    pub fn of(page: &Path) -> Site {
        let site = Site::new();
        site.write("ca.crt", fs::read(site.path("ca.pem")).unwrap());
        site.write("token", "token-of-the-pod");
        for block in blocks(page) {
            if let Some(name) = &block.name {
                site.write(name, here(&block.text));
            }
        }
        site
    }
}
