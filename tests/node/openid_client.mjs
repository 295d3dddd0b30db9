// What applications and their users' browsers do at an OpenID provider: grants by the book, found through discovery.

import { createHash, randomBytes } from "node:crypto";

export const CALLBACK = "https://app.test/callback";

const random = () => randomBytes(32).toString("base64url");

async function json(url, options) {
  const response = await fetch(url, options);
  const body = await response.json();
  if (!response.ok) throw new Error(`${url}: ${response.status} ${JSON.stringify(body)}`);
  return body;
}

const discover = (issuer) => json(`${issuer}/.well-known/openid-configuration`);
const form = (fields, headers = {}) => ({ method: "POST", headers, body: new URLSearchParams(fields) });

// RFC 6749 §4.4, for a resource (RFC 8707).
export async function clientToken(issuer, { resource, scope }) {
  const { token_endpoint } = await discover(issuer);
  const authorization = `Basic ${Buffer.from("batch:secret-of-batch").toString("base64")}`;
  const { access_token } = await json(token_endpoint, form({ grant_type: "client_credentials", resource, scope }, { authorization }));
  return { access_token };
}

// OpenID Connect Core §3.1 with PKCE (RFC 7636): the user signs in and consents in a browser, the application redeems the code.
export async function signIn(issuer, { user, resource }) {
  const { authorization_endpoint, token_endpoint } = await discover(issuer);
  const [verifier, state, nonce] = [random(), random(), random()];
  const request = new URLSearchParams({
    client_id: "web",
    response_type: "code",
    redirect_uri: CALLBACK,
    scope: "openid email profile realm users:read",
    resource,
    state,
    nonce,
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  });
  const callback = await browse(`${authorization_endpoint}?${request}`, { login: user, password: "any" });
  const answer = Object.fromEntries(callback.searchParams);
  if (answer.state !== state || answer.iss !== issuer || !answer.code) throw new Error(`no code: ${callback}`);
  const redeem = { grant_type: "authorization_code", client_id: "web", code: answer.code, redirect_uri: CALLBACK, code_verifier: verifier, resource };
  const { id_token, access_token } = await json(token_endpoint, form(redeem));
  return { id_token, access_token };
}

// Follows redirects, keeps cookies and submits each form it is shown, until it is sent back to the application.
async function browse(address, fields) {
  const cookies = new Map();
  let url = new URL(address);
  let submitted;
  for (let step = 0; step < 20 && !url.href.startsWith(CALLBACK); step += 1) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join("; ") };
    const response = await fetch(url, { ...(submitted ? form(submitted, headers) : { headers }), redirect: "manual" });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    const location = response.headers.get("location");
    const page = await response.text();
    if (location) {
      [url, submitted] = [new URL(location, url), undefined];
      continue;
    }
    const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1];
    if (!action) throw new Error(`${url}: ${response.status}, neither a redirect nor a form: ${page}`);
    submitted = {};
    for (const [input] of page.matchAll(/<input[^>]*>/g)) {
      const name = / name="([^"]+)"/.exec(input)[1];
      submitted[name] = / value="([^"]*)"/.exec(input)?.[1] ?? fields[name];
    }
    url = new URL(action, url);
  }
  return url;
}
