// Tokens that the library `jose` makes, and the key set of its making that they verify with.
//
// Standard input:  {"claims", "keys": {kid: PEM of a private key}, "secret", "tokens": [{"name", "shape", "alg", "kid", "claims", "strange"}]}
// Standard output: {"jwks", "tokens": {name: token}}; a token's `sub` is its name. The key "secret" is the secret, and not in the set.
// A `strange` token is signed with a key that stands in no set, under the `kid` of one that does, and brings that key along in its header.

import { createPrivateKey, createPublicKey, createSecretKey, generateKeyPairSync } from "node:crypto";
import { text } from "node:stream/consumers";

import * as jose from "jose";

const order = JSON.parse(await text(process.stdin));
const bytes = (value) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
const keys = Object.fromEntries(Object.entries(order.keys).map(([kid, pem]) => [kid, createPrivateKey(pem)]));
keys.secret = createSecretKey(bytes(order.secret));
const publicKey = (kid) => createPublicKey(keys[kid]);
const forEncryption = { alg: "RSA-OAEP-256", enc: "A256GCM" };

const shapes = {
  jwt: ({ claims, header, key }) => new jose.SignJWT(claims).setProtectedHeader(header).sign(key),
  unsecured: ({ claims }) => new jose.UnsecuredJWT(claims).encode(),
  encrypted: ({ claims }) => new jose.EncryptJWT(claims).setProtectedHeader(forEncryption).encrypt(publicKey("rsa")),
  encrypted_directly: ({ claims }) =>
    new jose.EncryptJWT(claims).setProtectedHeader({ alg: "dir", enc: "A256GCM" }).encrypt(bytes(order.secret).slice(0, 32)),
  encrypted_jwt: async (of) =>
    new jose.CompactEncrypt(bytes(await shapes.jwt(of))).setProtectedHeader({ ...forEncryption, cty: "JWT" }).encrypt(publicKey("rsa")),
  signed_encrypted: async (of) => compact(await shapes.encrypted(of), { ...of, header: { ...of.header, cty: "JWT" } }),
  signed_jwt: async (of) => compact(await shapes.jwt(of), { ...of, header: { ...of.header, cty: "JWT" } }),
  flattened: async (of) => JSON.stringify(await flattened(of)),
  flattened_in_base64url: async (of) => jose.base64url.encode(JSON.stringify(await flattened(of))),
  unprotected_header: async ({ claims, header: { alg, ...rest }, key }) => {
    const jws = new jose.FlattenedSign(bytes(claims)).setProtectedHeader({ alg }).setUnprotectedHeader(rest);
    return JSON.stringify(await jws.sign(key));
  },
  general: async ({ claims, header, key }) => {
    const jws = new jose.GeneralSign(bytes(claims)).addSignature(key).setProtectedHeader(header);
    return JSON.stringify(await jws.sign());
  },
  general_encrypted: async ({ claims }) => {
    const jwe = new jose.GeneralEncrypt(bytes(claims)).setProtectedHeader({ enc: "A256GCM" });
    return JSON.stringify(await jwe.addRecipient(publicKey("rsa")).setUnprotectedHeader({ alg: "RSA-OAEP-256" }).encrypt());
  },
  detached: async (of) => (await shapes.jwt(of)).replace(/\.[^.]*\./, ".."),
  detached_unencoded: async (of) => {
    const jws = await flattened({ ...of, header: { ...of.header, b64: false, crit: ["b64"] } });
    return `${jws.protected}..${jws.signature}`;
  },
  unencoded: async (of) => {
    const jws = await flattened({ ...of, header: { ...of.header, b64: false, crit: ["b64"] } });
    return `${jws.protected}.${JSON.stringify(of.claims)}.${jws.signature}`;
  },
  b64_true: (of) => compact(of.claims, { ...of, header: { ...of.header, b64: true, crit: ["b64"] } }),
  critical: ({ claims, header, key }) =>
    new jose.SignJWT(claims)
      .setProtectedHeader({ ...header, crit: ["urn:example:must-understand"], "urn:example:must-understand": true })
      .sign(key, { crit: { "urn:example:must-understand": true } }),
  text: (of) => compact("not claims", of),
};

function compact(payload, { header, key }) {
  return new jose.CompactSign(bytes(payload)).setProtectedHeader(header).sign(key);
}

function flattened({ claims, header, key }) {
  return new jose.FlattenedSign(bytes(claims)).setProtectedHeader(header).sign(key);
}

// One for each `kid`: making RSA keys takes its time.
const strangers = {};
function stranger(kid) {
  const { asymmetricKeyType, asymmetricKeyDetails } = keys[kid];
  return (strangers[kid] ??= generateKeyPairSync(asymmetricKeyType, { modulusLength: 2048, namedCurve: asymmetricKeyDetails.namedCurve }));
}

const tokens = {};
for (const { name, shape = "jwt", alg, kid, claims = {}, strange = false } of order.tokens) {
  const pair = strange ? stranger(kid) : { privateKey: keys[kid] };
  const header = { alg, kid, typ: "JWT", ...(strange && { jwk: pair.publicKey.export({ format: "jwk" }) }) };
  tokens[name] = await shapes[shape]({ claims: { ...order.claims, ...claims, sub: name }, header, key: pair.privateKey });
}

const published = Object.keys(order.keys).map(async (kid) => ({ kid, use: "sig", ...(await jose.exportJWK(publicKey(kid))) }));
const jwks = { keys: await Promise.all(published) };
process.stdout.write(JSON.stringify({ jwks, tokens }));
