// A real OpenID provider (panva's oidc-provider) over https on port 0, and a client with a browser at it.
//
// Usage: oidc_provider.mjs CERTIFICATE KEY, with NODE_EXTRA_CA_CERTS for its own client. Ends when standard input closes.
// Standard output, one JSON object a line: {"issuer"} once, then one answer to each line of standard input:
//     {"do": "client_token", "resource", "scope"}   a client-credentials grant        {"access_token"}
//     {"do": "sign_in", "user", "resource"}         authorization code with PKCE      {"id_token", "access_token"}
//     {"do": "publish"}                             a new key beside those there are  {"published": [kid, …]}
//     {"do": "sign"}                                the newest key signs from now on  the same
//     {"do": "withdraw"}                            only the key that signs stays     the same
// ID tokens are signed with RS256, access tokens (RFC 9068) with ES256.

import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createInterface } from "node:readline";

import Provider from "oidc-provider";

import { CALLBACK, clientToken, signIn } from "./openid_client.mjs";

const AUDIENCES = { "https://users.test/": "users-api", "https://orders.test/": "orders-api" };
const USERS = {
  alice: { email: "alice@example.com", email_verified: true, name: "Alice Liddell", realm_access: { roles: ["viewer", "editor"] } },
  bob: { email: "bob@example.com", email_verified: false, name: "Bob", realm_access: { roles: ["viewer"] } },
};

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

let made = 0;
function newKeys() {
  made += 1;
  const jwk = (pair, members) => ({ ...pair.privateKey.export({ format: "jwk" }), use: "sig", ...members });
  return [
    jwk(generateKeyPairSync("rsa", { modulusLength: 2048 }), { kid: `rsa-${made}`, alg: "RS256" }),
    jwk(generateKeyPairSync("ec", { namedCurve: "P-256" }), { kid: `ec-${made}`, alg: "ES256" }),
  ];
}

// The provider signs with the first key that fits. It cannot change its keys: another one with the same issuer and storage takes over.
function provider(issuer, generations) {
  return new Provider(issuer, {
    jwks: { keys: generations.flat() },
    clients: [
      { client_id: "batch", client_secret: "secret-of-batch", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
      { client_id: "web", token_endpoint_auth_method: "none", redirect_uris: [CALLBACK] },
    ],
    scopes: ["openid", "email", "profile", "realm"],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], realm: ["realm_access"] },
    // Its claims in the ID token itself, as most providers do, and not only behind the userinfo endpoint.
    conformIdTokenClaims: false,
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id, ...USERS[id] }) }),
    extraTokenClaims: (_context, token) => USERS[token.accountId],
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          audience: AUDIENCES[resource],
          scope: "users:read users:write",
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
}

const [certificate, key] = process.argv.slice(2);
let serve;
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => serve(request, response));
server.listen(0, "127.0.0.1", async () => {
  const issuer = `https://127.0.0.1:${server.address().port}`;
  // The generation that signs comes first, the newest last.
  let generations = [newKeys()];
  const publish = (changed) => {
    generations = changed;
    serve = provider(issuer, generations).callback();
    return { published: generations.flat().map((jwk) => jwk.kid) };
  };
  const orders = {
    client_token: (order) => clientToken(issuer, order),
    sign_in: (order) => signIn(issuer, order),
    publish: () => publish([...generations, newKeys()]),
    sign: () => publish([generations.at(-1), ...generations.slice(0, -1)]),
    withdraw: () => publish(generations.slice(0, 1)),
  };
  publish(generations);
  say({ issuer });
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    say(await orders[order.do](order));
  }
  process.exit(0);
});
