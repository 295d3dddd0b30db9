//! What the upstream is told about the caller: every header we own is removed first, in any spelling, then ours are written.
//!
//! Upstreams fold names together (`User.Id`, `user-id` and `user_id-bin` can all arrive as `user_id`, CVE-2025-64484), so
//! two names are the same here when they are equal after lower-casing, `_` and `.` → `-`, and cutting one final `-bin`.

use crate::authorization::Grants;
use crate::config;
use crate::http2::hpack::encode_field;
use crate::identity::{ClaimValue, Identity};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;

/// Bytes of names and values that we add at most: upstreams commonly take 8 KiB of metadata in all, the client's included.
pub const MAX_BYTES: usize = 4 * 1024;

/// The identity headers of one configuration generation.
#[derive(Debug)]
pub struct IdentityHeaders {
    config: config::IdentityHeaders,
    /// Folded names that no client may send.
    owned: Vec<Box<[u8]>>,
    /// Bit n is set when an owned name has n bytes (63: that many or more): most headers of a call are told apart by this alone.
    lengths: u64,
}

/// The headers of one identity, made once a verified credential and sent with each of its calls; cheap to clone.
#[derive(Debug, Clone)]
pub struct RenderedHeaders {
    fields: Arc<[(HeaderName, HeaderValue)]>,
    block: Arc<[u8]>,
}

/// An identity whose headers need more than [`MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// What they would need.
    pub bytes: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity headers need {} bytes; at most {MAX_BYTES} are added to a call", self.bytes)
    }
}

impl std::error::Error for TooLarge {}

impl IdentityHeaders {
    /// Prepares the names.
    pub fn compile(config: &config::IdentityHeaders) -> IdentityHeaders {
        let config::IdentityHeaders { user_id, user_email, user_name, client_id, roles, permissions, api_key_id, provider, claims } =
            config;
        let fields = [user_id, user_email, user_name, client_id, roles, permissions, api_key_id, provider];
        let configured = fields.into_iter().flatten().chain(claims.iter().map(|(_, header)| header)).map(HeaderName::as_str);
        // The default names too, when renamed or left out: the upstream may still read them.
        let all = configured.chain(config::IdentityHeaders::DEFAULT_NAMES);
        let mut owned: Vec<Box<[u8]>> = all.map(|name| without_bin(name.as_bytes()).iter().copied().map(fold).collect()).collect();
        owned.sort_unstable();
        owned.dedup();
        let lengths = owned.iter().fold(0, |lengths, name| lengths | length_bit(name.len()));
        IdentityHeaders { config: config.clone(), owned, lengths }
    }

    /// Removes every header we own, in any spelling: from requests in every mode, and from request trailers.
    pub fn remove(&self, headers: &mut HeaderMap) {
        let found: Vec<HeaderName> = headers.keys().filter(|name| self.owns(name.as_str().as_bytes())).cloned().collect();
        for name in found {
            headers.remove(name);
        }
    }

    /// The headers that tell the upstream about `identity`: absent where nothing is known.
    pub fn render(&self, identity: &Identity, grants: &Grants) -> Result<RenderedHeaders, TooLarge> {
        let mut rendered = Rendering::default();
        let config = &self.config;
        for (header, value) in [
            (&config.user_id, &identity.user_id),
            (&config.user_email, &identity.user_email),
            (&config.user_name, &identity.user_name),
            (&config.client_id, &identity.client_id),
            (&config.api_key_id, &identity.api_key_id),
            (&config.provider, &identity.provider),
        ] {
            if let (Some(header), Some(value)) = (header, value) {
                rendered.text(header, value);
            }
        }
        if let Some(header) = &config.roles {
            rendered.list(header, grants.roles().iter().map(|role| &**role).collect());
        }
        if let Some(header) = &config.permissions {
            rendered.list(header, grants.permissions().iter().map(|permission| permission.as_str()).collect());
        }
        for (claim, header) in &config.claims {
            match identity.claims.iter().find(|(path, _)| **path == *claim.0) {
                Some((_, ClaimValue::Text(text))) => rendered.text(header, text),
                Some((_, ClaimValue::List(entries))) => rendered.list(header, entries.iter().map(String::as_str).collect()),
                None => {}
            }
        }
        rendered.finish()
    }

    /// Whether `name` is one of ours in any spelling.
    fn owns(&self, name: &[u8]) -> bool {
        let name = without_bin(name);
        self.lengths & length_bit(name.len()) != 0
            && self.owned.iter().any(|owned| owned.len() == name.len() && owned.iter().zip(name).all(|(owned, byte)| *owned == fold(*byte)))
    }
}

impl RenderedHeaders {
    /// They as a header block (RFC 7541), to follow the fields of a request that has none of their names.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The headers, for explanations.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().map(|(name, value)| (name, value))
    }
}

fn fold(byte: u8) -> u8 {
    match byte {
        b'_' | b'.' => b'-',
        other => other.to_ascii_lowercase(),
    }
}

/// Cuts one final `-bin`, in any spelling of it.
fn without_bin(name: &[u8]) -> &[u8] {
    match name {
        [rest @ .., b'-' | b'_' | b'.', b'b' | b'B', b'i' | b'I', b'n' | b'N'] => rest,
        _ => name,
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// Headers in the making.
#[derive(Default)]
struct Rendering {
    fields: Vec<(HeaderName, HeaderValue)>,
    bytes: usize,
}

impl Rendering {
    fn text(&mut self, header: &HeaderName, text: &str) {
        let mut value = String::with_capacity(text.len());
        encode(text, false, &mut value);
        self.push(header, value);
    }

    fn list(&mut self, header: &HeaderName, mut entries: Vec<&str>) {
        entries.sort_unstable();
        entries.dedup();
        let mut value = String::new();
        for (place, entry) in entries.into_iter().enumerate() {
            if place > 0 {
                value.push(',');
            }
            encode(entry, true, &mut value);
        }
        self.push(header, value);
    }

    fn push(&mut self, header: &HeaderName, value: String) {
        if value.is_empty() {
            return;
        }
        self.bytes += header.as_str().len() + value.len();
        let value = HeaderValue::try_from(value).expect("percent-encoding leaves printable ASCII only");
        self.fields.push((header.clone(), value));
    }

    fn finish(self) -> Result<RenderedHeaders, TooLarge> {
        if self.bytes > MAX_BYTES {
            return Err(TooLarge { bytes: self.bytes });
        }
        let mut block = Vec::new();
        for (name, value) in &self.fields {
            encode_field(&mut block, name, value.as_bytes(), false);
        }
        Ok(RenderedHeaders { fields: self.fields.into(), block: block.into() })
    }
}

/// Percent-encodes bytes outside printable ASCII, `%`, leading and trailing spaces, and in a list's entry the comma.
fn encode(text: &str, entry: bool, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().expect("a nibble is below 16");
    let inner = text.len() - text.trim_start_matches(' ').len()..text.trim_end_matches(' ').len();
    for (place, byte) in text.bytes().enumerate() {
        let plain = match byte {
            b'%' => false,
            b',' => !entry,
            b' ' => inner.contains(&place),
            _ => byte.is_ascii_graphic(),
        };
        if plain {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Policy;
    use crate::config::{Authorization, ClaimPath, DefaultRule, Mode, Position, Role};
    use crate::http2::hpack::Decoder;
    use crate::identity::Permission;
    use proptest::prelude::*;

    fn defaults() -> config::IdentityHeaders {
        let name = |name| Some(HeaderName::from_static(name));
        config::IdentityHeaders {
            user_id: name("user_id"),
            user_email: name("user_email"),
            user_name: name("user_name"),
            client_id: name("client_id"),
            roles: name("roles"),
            permissions: name("permissions"),
            api_key_id: name("api_key_id"),
            provider: None,
            claims: vec![(ClaimPath("tenant".into()), HeaderName::from_static("tenant_id"))],
        }
    }

    fn headers(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_static("spoofed"));
        }
        headers
    }

    fn left_of(config: &config::IdentityHeaders, names: &[&str]) -> Vec<String> {
        let mut headers = headers(names);
        IdentityHeaders::compile(config).remove(&mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    /// Grants of a caller with the roles viewer and `a,b`.
    fn grants(identity: &Identity) -> Grants {
        let role = |name: &str, held: &str| Role {
            name: name.into(),
            permissions: vec![Permission::parse(held).unwrap()],
            at: Position::default(),
        };
        let authorization = Authorization {
            default: DefaultRule::Deny,
            roles: vec![role("viewer", "users:read"), role("a,b", "users:*")],
            users: vec![],
            clients: vec![],
            methods: vec![],
            audit: false,
        };
        Policy::compile(&authorization, Mode::Required, &[]).grants(identity)
    }

    fn rendered(config: &config::IdentityHeaders, identity: &Identity) -> Vec<(String, String)> {
        let rendered = IdentityHeaders::compile(config).render(identity, &grants(identity)).unwrap();
        rendered.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn every_spelling_is_removed_and_nothing_else() {
        let spoofed = [
            "user_id",
            "user-id",
            "User.Id",
            "USER_ID",
            "user_id-bin",
            "user-id-bin",
            "user.id_bin",
            "user_id.BIN",
            "roles",
            "Roles-Bin",
            "permissions",
            "api.key-id",
            "api_key_id",
            "tenant_id",
            "Tenant-Id-bin",
            "client.id",
            "user_email",
            "user_name",
        ];
        assert_eq!(left_of(&defaults(), &spoofed), [""; 0]);
        let innocent = [
            "user_idd",
            "user__id",
            "userid",
            "x-user-id",
            "user_id-bin-bin",
            "role",
            "auth_provider",
            "user-agent",
            "te",
            "content-type",
            "-bin",
            "bin",
            "user_idbin",
            "authorization",
            "tenant",
        ];
        assert_eq!(left_of(&defaults(), &innocent), innocent);
    }

    #[test]
    fn all_values_of_a_name_are_removed() {
        let mut headers = headers(&["a", "user_id", "a", "user_id", "user-id", "b", "user_id"]);
        IdentityHeaders::compile(&defaults()).remove(&mut headers);
        assert_eq!(headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "a", "b"]);
    }

    #[test]
    fn default_names_are_removed_also_when_renamed_or_left_out() {
        let config = config::IdentityHeaders {
            user_id: Some(HeaderName::from_static("x-user")),
            user_email: None,
            roles: None,
            provider: Some(HeaderName::from_static("auth_provider")),
            ..defaults()
        };
        assert_eq!(left_of(&config, &["x-user", "X_User-bin", "user_id", "user-email", "roles", "auth-provider", "x"]), ["x"]);
    }

    #[test]
    fn a_configured_name_that_ends_in_bin_is_removed_in_every_spelling() {
        let config = config::IdentityHeaders { user_id: Some(HeaderName::from_static("who-bin")), ..defaults() };
        assert_eq!(left_of(&config, &["who", "who-bin", "who_bin", "WHO.bin", "who-bin-bin"]), ["who-bin-bin"]);
    }

    #[test]
    fn names_longer_than_the_length_mask_are_removed_too() {
        let long = format!("x-{}", "a".repeat(80));
        let config = config::IdentityHeaders { user_id: Some(HeaderName::try_from(&long).unwrap()), ..defaults() };
        assert_eq!(left_of(&config, &[&long, &format!("{long}-bin"), &format!("{long}a")]), [format!("{long}a")]);
    }

    #[test]
    fn what_is_known_is_written_in_the_form_of_the_interface() {
        let identity = Identity {
            user_id: Some("alice".into()),
            user_email: Some("alice@example.com".into()),
            user_name: Some(" Zoë, 100% ".into()),
            client_id: Some("web".into()),
            roles: vec!["viewer".into(), "a,b".into(), "undefined".into()],
            permissions: vec![Permission::parse("a:b").unwrap()],
            api_key_id: Some("analytics".into()),
            provider: Some("corporate".into()),
            claims: vec![("tenant".into(), ClaimValue::List(vec!["b".into(), "a ,".into(), "b".into()]))],
            presented: vec!["corporate".into()],
        };
        let expected = [
            ("user_id", "alice"),
            ("user_email", "alice@example.com"),
            ("user_name", "%20Zo%C3%AB, 100%25%20"),
            ("client_id", "web"),
            ("api_key_id", "analytics"),
            ("roles", "a%2Cb,viewer"),
            ("permissions", "a:b,users:*,users:read"),
            ("tenant_id", "a %2C,b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(rendered(&defaults(), &identity), expected);
        let config = config::IdentityHeaders { provider: Some(HeaderName::from_static("auth_provider")), user_id: None, ..defaults() };
        let written = rendered(&config, &identity);
        assert!(written.contains(&("auth_provider".to_owned(), "corporate".to_owned())));
        assert!(written.iter().all(|(name, _)| name != "user_id"));
    }

    #[test]
    fn what_is_unknown_or_empty_is_absent() {
        assert_eq!(rendered(&defaults(), &Identity::default()), []);
        let empty = Identity {
            user_name: Some("".into()),
            claims: vec![("tenant".into(), ClaimValue::Text(String::new())), ("other".into(), ClaimValue::Text("x".into()))],
            ..Identity::default()
        };
        assert_eq!(rendered(&defaults(), &empty), []);
    }

    #[test]
    fn at_most_four_kibibytes_are_added() {
        let headers = IdentityHeaders::compile(&defaults());
        let render = |bytes: usize| {
            let identity = Identity { user_id: Some("x".repeat(bytes - "user_id".len()).into()), ..Identity::default() };
            headers.render(&identity, &grants(&identity)).map(|rendered| rendered.iter().count())
        };
        assert_eq!(render(4096), Ok(1));
        assert_eq!(render(4097), Err(TooLarge { bytes: 4097 }));
    }

    /// What an upstream does with a value.
    fn decode(value: &str) -> String {
        let mut out = Vec::new();
        let mut bytes = value.bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                out.push(byte);
            }
        }
        String::from_utf8(out).unwrap()
    }

    fn with_tenant(claim: ClaimValue) -> Identity {
        Identity { claims: vec![("tenant".into(), claim)], ..Identity::default() }
    }

    proptest! {
        #[test]
        fn a_text_survives_its_encoding(text in "(\\PC| |%|\\x00|\r|\n|\t){1,20}") {
            let written = rendered(&defaults(), &with_tenant(ClaimValue::Text(text.clone())));
            let value = &written[0].1;
            prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value);
            prop_assert_eq!(decode(value), text);
        }

        #[test]
        fn a_list_survives_its_encoding(entries in prop::collection::btree_set("([a-c]|,| |%|é){1,4}", 1..6)) {
            let mut shuffled: Vec<String> = entries.iter().rev().cloned().collect();
            shuffled.extend(entries.iter().take(1).cloned());
            let written = rendered(&defaults(), &with_tenant(ClaimValue::List(shuffled)));
            let decoded: Vec<String> = written[0].1.split(',').map(decode).collect();
            prop_assert_eq!(decoded, entries.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_spelling_survives(
            owned in prop::sample::select([&config::IdentityHeaders::DEFAULT_NAMES[..], &["tenant_id"]].concat()),
            choices in prop::collection::vec(any::<u8>(), 32),
            suffix in prop::sample::select(&["", "-bin", "_bin", ".bin", "-BIN"][..]),
        ) {
            let spelled: String = owned.chars().zip(choices).map(|(letter, choice)| match (letter, choice % 3) {
                ('_', 0) => '-',
                ('_', 1) => '.',
                (letter, 2) => letter.to_ascii_uppercase(),
                (letter, _) => letter,
            }).collect();
            let spelled = format!("{spelled}{suffix}");
            prop_assert_eq!(left_of(&defaults(), &["x", &spelled]), ["x"]);
            // The spelling itself, before the http crate lower-cases it.
            prop_assert!(IdentityHeaders::compile(&defaults()).owns(spelled.as_bytes()));
        }

        #[test]
        fn only_ours_are_removed(name in "[a-z._-]{1,12}") {
            let folded = name.replace(['_', '.'], "-");
            let folded = folded.strip_suffix("-bin").unwrap_or(&folded);
            let ours = config::IdentityHeaders::DEFAULT_NAMES.iter().chain(&["tenant_id"]).any(|owned| owned.replace('_', "-") == folded);
            prop_assert_eq!(IdentityHeaders::compile(&defaults()).owns(name.as_bytes()), ours);
        }

        #[test]
        fn the_header_block_says_what_the_headers_say(text in "[ -~]{1,20}") {
            let headers = IdentityHeaders::compile(&defaults());
            let identity = Identity { user_id: Some(text.as_str().into()), ..with_tenant(ClaimValue::Text(text)) };
            let rendered = headers.render(&identity, &grants(&identity)).unwrap();
            let heard = Decoder::new().decode(rendered.block(), usize::MAX).unwrap();
            prop_assert!(!heard.malformed && heard.fields.len() == 2);
            prop_assert!(heard.fields.iter().eq(rendered.iter()));
        }
    }
}
