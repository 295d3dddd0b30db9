//! Mutated tokens, each signed again after the mutation, so that only the intended defect is there: it must be refused
//! for exactly that. And tokens without a defect, however odd, must be who they say.

use super::super::witness::{NoWitness, Transcript};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use proptest::collection::vec;
use proptest::sample::{Index, select};
use std::sync::LazyLock;

const SECOND: &str = "https://second.example/";
const STRICT: &str = "https://strict.example/";

/// Three providers; the `kid`s of the first are used by the others for keys of their own.
static ALL: LazyLock<Authenticator> = LazyLock::new(|| {
    let named = |name: &str, issuer: &str, keys: &[Value]| {
        let mut provider = provider();
        (provider.name, provider.issuer) = (name.to_owned(), Some(issuer.to_owned()));
        provider.algorithms = vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256];
        provider.keys = KeySource::JwksFile(file(&set(keys)));
        provider
    };
    let ours = SIGNERS.map(|(key, _, kid)| key.jwk(json!({ "kid": kid })));
    let mut strict = named("strict", STRICT, &ours);
    strict.token_types = vec!["at+jwt".to_owned()];
    strict.max_lifetime = Some(Duration::from_secs(1000));
    strict.required_claims = vec![(path("azp"), vec!["web".to_owned(), "app".to_owned()])];
    let second = named("second", SECOND, &[Key::OtherRsa.jwk(json!({ "kid": "rsa" }))]);
    load(&authentication(vec![named("corporate", ISSUER, &ours), second, strict]))
});

const SIGNERS: [(Key, Jwa, &str); 4] = [
    (Key::Rsa, Jwa::RS256, "rsa"),
    (Key::P256, Jwa::ES256, "p256"),
    (Key::Ed25519, Jwa::EdDSA, "ed25519"),
    (Key::Shared, Jwa::HS256, "shared"),
];

/// A token before it is signed. Members are JSON texts, so that what no library writes can be written too.
#[derive(Clone, Debug)]
struct Draft {
    header: Vec<(String, String)>,
    claims: Vec<(String, String)>,
    signer: (Key, Jwa, &'static str),
    /// Between the tokens of the JSON.
    space: &'static str,
}

impl Draft {
    fn header(mut self, name: &str, value: impl Into<Value>) -> Draft {
        put(&mut self.header, name, value.into().to_string());
        self
    }

    fn claim(self, name: &str, value: impl Into<Value>) -> Draft {
        self.claim_text(name, &value.into().to_string())
    }

    fn claim_text(mut self, name: &str, value: &str) -> Draft {
        put(&mut self.claims, name, value.to_owned());
        self
    }

    fn without(mut self, name: &str) -> Draft {
        let name = json!(name).to_string();
        self.header.retain(|(found, _)| *found != name);
        self.claims.retain(|(found, _)| *found != name);
        self
    }

    fn text(&self, name: &str) -> Value {
        let name = json!(name).to_string();
        let member = self.claims.iter().find(|(found, _)| *found == name);
        member.map_or(Value::Null, |(_, value)| serde_json::from_str(value).unwrap())
    }

    /// Header and claims as JSON.
    fn json(&self) -> [Vec<u8>; 2] {
        [&self.header, &self.claims].map(|members| {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}{0}:{0}{value}", self.space)).collect();
            format!("{{{0}{1}{0}}}", self.space, members.join(&format!("{0},{0}", self.space))).into_bytes()
        })
    }

    fn parts(&self) -> [String; 2] {
        self.json().map(|json| URL_SAFE_NO_PAD.encode(json))
    }

    fn token(&self) -> String {
        self.sign(&self.parts())
    }

    /// Over these parts as they are.
    fn sign(&self, parts: &[String]) -> String {
        sign_text(&parts.join("."), &self.signer.0.encoding(), self.signer.1)
    }
}

fn put(members: &mut Vec<(String, String)>, name: &str, value: String) {
    let name = json!(name).to_string();
    members.retain(|(found, _)| *found != name);
    members.push((name, value));
}

/// Good tokens of every shape: any of the keys, with and without `kid`, in any order, with whatever need not be understood.
fn drafts() -> impl Strategy<Value = Draft> {
    let audiences = prop_oneof![
        Just(json!("users-api")),
        (vec("\\PC{0,8}", 0..3), any::<Index>()).prop_map(|(mut others, at)| {
            others.insert(at.index(others.len() + 1), "users-api".to_owned());
            json!(others)
        }),
    ];
    let future =
        prop_oneof![(NOW - 29..NOW + 999).prop_map(Value::from), Just(json!(1e300)), (0.5..1e6).prop_map(|s| json!(NOW as f64 + s))];
    let past = prop_oneof![(0..=NOW + 30).prop_map(Value::from), (-1e300..1e9).prop_map(Value::from), Just(json!(-5))];
    let ignored_headers = ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "zip", "enc", "nonce", "Crit", "KID"];
    let ignored_claims = ["jti", "azp", "email", "email_verified", "name", "roles", "scope", "nonce", "cnf", "Exp", "ISS", "alg"];
    let texts = ("\\PC{1,20}", proptest::option::of("\\PC{0,20}"), proptest::option::of(select(vec!["json", "text/plain", "JWE", ""])));
    let more = (vec((select(ignored_headers.to_vec()), any_json()), 0..3), vec((select(ignored_claims.to_vec()), any_json()), 0..4));
    let dates = (future, proptest::option::of(past.clone()), proptest::option::of(past));
    let shape = (select(SIGNERS.to_vec()), any::<bool>(), select(vec!["", " ", "\n", "\r\n\t "]), any::<bool>());
    (shape, texts, audiences, dates, more).prop_map(|(shape, (sub, typ, cty), aud, (exp, nbf, iat), (headers, claims))| {
        let (signer, with_kid, space, backwards) = shape;
        let mut draft = Draft { header: Vec::new(), claims: Vec::new(), signer, space }.header("alg", json!(signer.1));
        for (name, value) in headers {
            draft = draft.header(name, value);
        }
        for (name, value) in claims {
            draft = draft.claim(name, value);
        }
        for (name, value) in [("typ", typ.as_deref()), ("cty", cty), ("kid", with_kid.then_some(signer.2))] {
            draft = value.into_iter().fold(draft, |draft, value| draft.header(name, value));
        }
        for (name, value) in [("nbf", nbf), ("iat", iat)] {
            draft = value.into_iter().fold(draft, |draft, value| draft.claim(name, value));
        }
        draft = draft.claim("iss", ISSUER).claim("sub", sub).claim("aud", aud).claim("exp", exp);
        if backwards {
            draft.header.reverse();
            draft.claims.reverse();
        }
        draft
    })
}

/// The provider and user, or why not; the same by way of a request.
fn verdict(token: &str) -> Result<(String, String), FailureKind> {
    let of = |identity: &Identity| (identity.provider.as_deref().unwrap().to_owned(), identity.user_id.as_deref().unwrap().to_owned());
    let verified = block_on(ALL.verify_token(token, now(), &mut NoWitness));
    let verified = verified.map(|verified| of(&verified.identity)).map_err(|failure| failure.kind);
    // An explanation goes on after a failed check, and says the same in the end.
    let explained = block_on(ALL.verify_token(token, now(), &mut Transcript::default()));
    assert_eq!(explained.map(|verified| of(&verified.identity)).map_err(|failure| failure.kind), verified);
    let mut request = HeaderMap::new();
    if let Ok(field) = HeaderValue::from_str(&format!("Bearer {token}")) {
        request.insert(AUTHORIZATION, field);
    }
    // Who sends it cannot begin a token with a space: that is one of those after the scheme.
    if token.starts_with(' ') {
        return verified;
    }
    match call(&ALL, &request, now()).map(|authenticated| of(&authenticated.caller.unwrap().identity)).map_err(|failure| failure.kind) {
        // There is white space in the token, or the field cannot even be sent.
        Err(CredentialsMalformed | CredentialsMissing) => assert!(verified.is_err()),
        called => assert_eq!(called, verified),
    }
    verified
}

fn other_than_text() -> impl Strategy<Value = Value> {
    any_json().prop_filter("text", |value| !value.is_string())
}

fn other_than_a_number() -> impl Strategy<Value = Value> {
    prop_oneof![any_json(), Just(json!("1700000600")), Just(json!([NOW + 600]))].prop_filter("a number", |value| !value.is_number())
}

/// JSON that is none, none with one meaning, or none that is an object.
fn spoilt(json: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let around = [("\u{feff}", ""), ("", "\0"), ("\0", ""), ("", "x"), ("", "{}"), ("", ","), ("[", "]"), ("\"", "\""), ("", "//")];
    let members = [
        r#""x":NaN"#,
        r#""x":Infinity"#,
        r#""x":1e999"#,
        r#""x":-1e999"#,
        r#""x":01"#,
        r#""x":+1"#,
        r#""x":.5"#,
        r#""x":0x1F"#,
        r#""x":1."#,
        r#""x":"\ud800""#,
        r#""x":"\udc00\ud800""#,
        r#""\ud83d":1"#,
        r#""x":"\q""#,
        "\"x\":\"\n\"",
        "\"x\":\"\0\"",
        "'x':1",
        "x:1",
        r#""x":tru"#,
        r#""x":{"a":1,"a":1}"#,
        r#""x":[[{"a":1,"\u0061":2}]]"#,
        r#""x":1,"#,
        r#""x""#,
        "/* */",
        "",
    ];
    let deep = format!("\"x\":{}{}", "[".repeat(200), "]".repeat(200));
    let member = prop_oneof![9 => select(members.to_vec()).prop_map(str::to_owned), 1 => Just(deep)];
    let with = |json: &[u8], member: &[u8]| [b"{", member, b",", &json[1..]].concat();
    let whole = json.clone();
    prop_oneof![
        select(around.to_vec()).prop_map(move |(before, after)| [before.as_bytes(), &whole, after.as_bytes()].concat()),
        member.prop_map(move |member| with(&json, member.as_bytes())),
        select(vec![&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]).prop_map(|bytes| [
            b"{\"x\":\"",
            bytes,
            b"\"}"
        ]
        .concat()),
        any_json().prop_filter("an object", |value| !value.is_object()).prop_map(|value| value.to_string().into_bytes()),
        Just(Vec::new()),
    ]
}

/// Other spellings of the same bytes, and spellings of none.
fn respelled(part: &str, place: Index, how: usize) -> String {
    let at = place.index(part.len() + 1);
    let insert = |text: &str| format!("{}{text}{}", &part[..at], &part[at..]);
    match how {
        0 => format!("{part}="),
        1 => format!("{part}=="),
        2 => insert(" "),
        3 => insert("\n"),
        4 => insert("?"),
        5 => insert("+"),
        6 => insert("%41"),
        // Bits beyond the last byte, or a digit that stands for less than one.
        _ => match part.len() % 4 {
            0 => format!("{part}A"),
            _ => format!("{}{}", &part[..part.len() - 1], if part.ends_with('_') { "-" } else { "_" }),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn without_a_defect_it_is_its_subject(draft in drafts()) {
        let subject = draft.text("sub").as_str().unwrap().to_owned();
        prop_assert_eq!(verdict(&draft.token()), Ok(("corporate".to_owned(), subject)));
        let verified = block_on(ALL.verify_token(&draft.token(), now(), &mut NoWitness)).unwrap();
        let vouched = draft.text("email_verified") == json!(true);
        prop_assert!(verified.identity.user_email.is_none_or(|email| vouched && draft.text("email") == json!(*email)));
        let roles: Vec<Value> = verified.identity.roles.iter().map(|role| json!(**role)).collect();
        match draft.text("roles") {
            Value::Array(listed) if listed.iter().all(Value::is_string) => prop_assert_eq!(roles, listed),
            Value::String(words) => prop_assert_eq!(roles, words.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect::<Vec<_>>()),
            _ => prop_assert!(roles.is_empty()),
        }
    }

    #[test]
    fn extensions_are_not_understood(draft in drafts(), name in select(vec!["crit", "b64"]), value in any_json()) {
        prop_assert_eq!(verdict(&draft.header(name, value).token()), Err(TokenMalformed));
    }

    #[test]
    fn nothing_is_nested_or_encrypted(draft in drafts(), cty in "(?i:(application/)?jwt)", more in vec("[A-Za-z0-9_-]{0,12}", 1..4)) {
        prop_assert_eq!(verdict(&draft.clone().header("cty", cty).token()), Err(TokenMalformed));
        let [header, claims] = draft.parts();
        prop_assert_eq!(verdict(&draft.sign(&[header.clone(), URL_SAFE_NO_PAD.encode(draft.token())])), Err(TokenMalformed));
        // Four, five (as when encrypted) and more parts, and fewer than three.
        let parts: Vec<String> = [header.clone(), claims].into_iter().chain(more).collect();
        prop_assert_eq!(verdict(&draft.sign(&parts)), Err(TokenMalformed));
        prop_assert_eq!(verdict(&draft.sign(&parts[..1])), Err(TokenMalformed));
        prop_assert_eq!(verdict(&header), Err(TokenMalformed));
    }

    #[test]
    fn only_the_compact_form_is_read(draft in drafts(), general in any::<bool>()) {
        let token = draft.token();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (protected, payload) = signed.split_once('.').unwrap();
        let one = json!({ "protected": protected, "signature": signature });
        let json = match general {
            true => json!({ "payload": payload, "signatures": [one] }),
            false => json!({ "payload": payload, "protected": protected, "signature": signature }),
        };
        prop_assert_eq!(verdict(&json.to_string()), Err(TokenMalformed));
    }

    #[test]
    fn a_header_member_of_a_wrong_type_is_malformed(
        draft in drafts(), name in select(vec!["alg", "kid", "typ", "cty"]), value in other_than_text(),
    ) {
        prop_assert_eq!(verdict(&draft.clone().header(name, value).token()), Err(TokenMalformed));
        prop_assert_eq!(verdict(&draft.without("alg").token()), Err(TokenMalformed));
    }

    #[test]
    fn a_member_twice_is_malformed(
        draft in drafts(), in_claims in any::<bool>(), which in any::<Index>(), escaped in any::<bool>(), at in any::<Index>(), other in any_json(),
        same in any::<bool>(),
    ) {
        let mut draft = draft;
        let members = if in_claims { &mut draft.claims } else { &mut draft.header };
        let (name, value) = members[which.index(members.len())].clone();
        let first = name.chars().nth(1).unwrap();
        let name = if escaped { format!("\"\\u{:04x}{}", u32::from(first), &name[2..]) } else { name };
        members.insert(at.index(members.len() + 1), (name, if same { value } else { other.to_string() }));
        prop_assert_eq!(verdict(&draft.token()), Err(TokenMalformed));
    }

    #[test]
    fn what_is_no_json_object_or_could_be_two_is_malformed(
        (draft, in_claims, spoilt) in (drafts(), any::<bool>())
            .prop_flat_map(|(draft, in_claims)| { let json = draft.json()[usize::from(in_claims)].clone(); (Just(draft), Just(in_claims), spoilt(json)) }),
    ) {
        let mut parts = draft.parts();
        parts[usize::from(in_claims)] = URL_SAFE_NO_PAD.encode(&spoilt);
        prop_assert_eq!(verdict(&draft.sign(&parts)), Err(TokenMalformed), "{:?}", String::from_utf8_lossy(&spoilt));
    }

    #[test]
    fn base64url_is_spelled_in_one_way(draft in drafts(), part in 0..3usize, place in any::<Index>(), how in 0..8usize) {
        let mut parts = draft.parts();
        let token = match part {
            2 => { let whole = draft.token(); let (signed, signature) = whole.rsplit_once('.').unwrap(); format!("{signed}.{}", respelled(signature, place, how)) }
            _ => { parts[part] = respelled(&parts[part], place, how); draft.sign(&parts) }
        };
        prop_assert_eq!(verdict(&token), Err(TokenMalformed));
    }

    #[test]
    fn a_token_of_more_than_64_kib_is_malformed(draft in drafts(), more in 0..20_000usize) {
        prop_assert_eq!(verdict(&draft.claim("padding", "x".repeat(49_152 + more)).token()), Err(TokenMalformed));
    }

    #[test]
    fn the_algorithm_is_one_of_the_providers(
        draft in drafts(), alg in prop_oneof![select(vec!["none", "None", "NONE", "nOnE", "rs256", "RS256 ", "HMAC", "ES256K", "ES512", "A256KW", "dir", ""]).prop_map(str::to_owned), "[A-Z]{2}[0-9]{2}"],
        unlisted in select(vec![Jwa::RS384, Jwa::RS512, Jwa::PS256, Jwa::PS384, Jwa::PS512]),
    ) {
        let named = draft.clone().header("alg", alg);
        prop_assert_eq!(verdict(&named.token()), Err(TokenAlgorithm));
        prop_assert_eq!(verdict(&format!("{}.", named.parts().join("."))), Err(TokenAlgorithm));
        // Properly signed by a key that we have.
        let signer = (Key::Rsa, unlisted, "rsa");
        prop_assert_eq!(verdict(&Draft { signer, ..draft }.header("alg", json!(unlisted)).token()), Err(TokenAlgorithm));
    }

    #[test]
    fn a_public_key_is_no_secret(draft in drafts(), at in 0..6usize, kid in select(vec![None, Some("rsa"), Some("p256"), Some("shared")])) {
        let (pem, jwk) = (key_file!("rsa.pub.pem"), |key: Key, member: &str| key.jwk(json!({}))[member].as_str().unwrap().to_owned());
        let secret = match at {
            0 => pem.to_vec(),
            1 => pem.trim_ascii_end().to_vec(),
            2 => key_file!("p256.pub.pem").to_vec(),
            3 => URL_SAFE_NO_PAD.decode(jwk(Key::Rsa, "n")).unwrap(),
            4 => jwk(Key::Rsa, "n").into_bytes(),
            _ => URL_SAFE_NO_PAD.decode(jwk(Key::P256, "x")).unwrap(),
        };
        let draft = draft.without("kid").header("alg", "HS256");
        let draft = kid.into_iter().fold(draft, |draft, kid| draft.header("kid", kid));
        let expected = if matches!(kid, Some("rsa" | "p256")) { TokenKeyUnknown } else { TokenSignature };
        prop_assert_eq!(verdict(&sign_text(&draft.parts().join("."), &EncodingKey::from_secret(&secret), Jwa::HS256)), Err(expected));
    }

    #[test]
    fn the_key_is_the_one_that_is_named(draft in drafts(), other in select(SIGNERS.to_vec()), unheard_of in "\\PC{0,12}") {
        let expected = if other == draft.signer { None } else { Some(TokenKeyUnknown) };
        prop_assert_eq!(verdict(&draft.clone().header("kid", other.2).token()).err(), expected);
        prop_assume!(SIGNERS.iter().all(|(.., kid)| *kid != unheard_of));
        prop_assert_eq!(verdict(&draft.header("kid", unheard_of).token()), Err(TokenKeyUnknown));
    }

    #[test]
    fn a_provider_vouches_with_its_own_keys_only(draft in drafts()) {
        // Ours for the second, the second's for us; the same kid on both sides, or none.
        let to_second = draft.clone().claim("iss", SECOND);
        let expected = if draft.signer.0 == Key::Rsa { TokenSignature } else { TokenKeyUnknown };
        prop_assert_eq!(verdict(&to_second.token()), Err(expected));
        let by_second = Draft { signer: (Key::OtherRsa, Jwa::RS256, "rsa"), ..draft.header("alg", "RS256") }.without("kid");
        for by_second in [by_second.clone(), by_second.header("kid", "rsa")] {
            prop_assert_eq!(verdict(&by_second.token()), Err(TokenSignature));
            prop_assert_eq!(verdict(&by_second.claim("iss", SECOND).token()).map(|(provider, _)| provider), Ok("second".to_owned()));
        }
    }

    #[test]
    fn the_signature_is_over_this_token(
        draft in drafts(), how in 0..6usize, place in any::<Index>(), bit in 0..8u32, claim in select(vec!["iss", "aud", "sub", "exp"]),
    ) {
        let token = draft.token();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let at = place.index(bytes.len());
        match how {
            0 => bytes[at] ^= 1 << bit,
            1 => bytes.truncate(at),
            2 => bytes.push(0),
            3 => bytes.insert(0, 0),
            4 => bytes.fill(0),
            // Of another token.
            _ => bytes = URL_SAFE_NO_PAD.decode(draft.clone().claim("sub", "evil").token().rsplit_once('.').unwrap().1).unwrap(),
        }
        prop_assume!(draft.text("sub") != json!("evil"));
        let forged = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert_eq!(verdict(&format!("{signed}.{forged}")), Err(TokenSignature));
        // Who cannot sign learns nothing about the claims, but whether there is such an issuer.
        let [header, claims] = draft.without(claim).parts();
        let unknown = if claim == "iss" { TokenClaim } else { TokenSignature };
        prop_assert_eq!(verdict(&format!("{header}.{claims}.{forged}")), Err(unknown));
    }

    #[test]
    fn a_deciding_claim_is_there_and_of_its_type(
        draft in drafts(), name in select(vec!["iss", "aud", "sub", "exp"]), date in select(vec!["exp", "nbf", "iat"]), no_number in other_than_a_number(),
        no_text in other_than_text(), at in any::<Index>(),
    ) {
        prop_assert_eq!(verdict(&draft.clone().without(name).token()), Err(TokenClaim), "{} is missing", name);
        prop_assert_eq!(verdict(&draft.clone().claim(date, no_number.clone()).token()), Err(TokenClaim), "{} is {}", date, no_number);
        for name in ["iss", "sub"] {
            prop_assert_eq!(verdict(&draft.clone().claim(name, no_text.clone()).token()), Err(TokenClaim), "{} is {}", name, no_text);
        }
        prop_assert_eq!(verdict(&draft.clone().claim("sub", "").token()), Err(TokenClaim));
        let mut audiences = vec![json!("users-api"), json!("other")];
        audiences.insert(at.index(3), no_text.clone());
        prop_assert_eq!(verdict(&draft.clone().claim("aud", audiences).token()), Err(TokenClaim));
        if !no_text.is_array() {
            prop_assert_eq!(verdict(&draft.claim("aud", no_text).token()), Err(TokenClaim));
        }
    }

    #[test]
    fn issuer_and_audience_are_exact(draft in drafts(), at in any::<Index>(), how in 0..6usize, others in vec("\\PC{0,12}", 0..3)) {
        let another = |exact: &str| {
            let at = at.index(exact.len());
            let case: String = exact.char_indices().map(|(place, c)| if place == at { c.to_ascii_uppercase() } else { c }).collect();
            match how {
                0 if case != exact => case,
                1 => exact[..at].to_owned(),
                2 => format!("{exact} "),
                3 => format!("{exact}/"),
                4 => exact.replace('s', "%73"),
                _ => format!("\u{200b}{exact}"),
            }
        };
        prop_assert_eq!(verdict(&draft.clone().claim("iss", another(ISSUER)).token()), Err(TokenIssuer));
        let audience = another("users-api");
        prop_assert_eq!(verdict(&draft.clone().claim("aud", audience.as_str()).token()), Err(TokenAudience));
        prop_assume!(others.iter().all(|other| other != "users-api"));
        prop_assert_eq!(verdict(&draft.claim("aud", [others, std::vec![audience]].concat()).token()), Err(TokenAudience));
    }

    #[test]
    fn leeway_counts_once(draft in drafts(), quarters in -200..200i64, name in select(vec!["nbf", "iat"])) {
        // Quarters of a second are exact in floating point; 30 s of leeway are 120.
        let date = json!(NOW as f64 + quarters as f64 / 4.0);
        let draft = draft.without("nbf").without("iat");
        let expired = (quarters <= -120).then_some(TokenExpired);
        prop_assert_eq!(verdict(&draft.clone().claim("exp", date.clone()).token()).err(), expired);
        let early = (quarters > 120).then_some(TokenNotYetValid);
        prop_assert_eq!(verdict(&draft.claim(name, date).token()).err(), early);
    }

    #[test]
    fn a_date_has_any_size_and_spelling(
        draft in drafts(), name in select(vec!["exp", "nbf", "iat"]),
        (past, date) in select(vec![
            (true, "0"), (true, "-0.0"), (true, "-1"), (true, "1E3"), (true, "-9223372036854775808"), (true, "-9223372036854775809"), (true, "-1e308"),
            (true, "5e-324"), (true, "1.6e+9"), (false, "1.8e9"), (false, "18446744073709551615"), (false, "18446744073709551616"), (false, "1e308"),
            (false, "9007199254740993"), (false, "99999999999999999999999999999999999999"),
        ]),
    ) {
        let expected = match (name, past) { ("exp", true) => Some(TokenExpired), ("exp", false) | (_, true) => None, (_, false) => Some(TokenNotYetValid) };
        prop_assert_eq!(verdict(&draft.claim_text(name, date).token()).err(), expected);
    }

    #[test]
    fn what_a_provider_asks_beyond_that_is_met(
        draft in drafts(), lifetime in 1..2000u64, typ in prop_oneof![Just("JWT".to_owned()), "\\PC{0,12}"], azp in any_json(), whole in any::<bool>(),
    ) {
        let good = draft.claim("iss", STRICT).without("nbf").claim("iat", NOW).claim("exp", NOW + 1000).claim("azp", json!(["x", "app"])).header("typ", "at+JWT");
        let lifetime = if whole { json!(NOW + lifetime) } else { json!((NOW + lifetime) as f64 + 0.5) };
        let too_long = (lifetime.as_f64().unwrap() - NOW as f64 > 1000.0).then_some(TokenClaim);
        prop_assert_eq!(verdict(&good.clone().claim("exp", lifetime).token()).err(), too_long);
        prop_assert_eq!(verdict(&good.clone().without("iat").token()), Err(TokenClaim));
        prop_assert_eq!(verdict(&good.clone().without("typ").token()), Err(TokenClaim));
        prop_assert_eq!(verdict(&good.clone().header("typ", typ).token()), Err(TokenClaim));
        prop_assert_eq!(verdict(&good.clone().without("azp").token()), Err(TokenClaim));
        prop_assert_eq!(verdict(&good.claim("azp", azp).token()), Err(TokenClaim));
    }
}
