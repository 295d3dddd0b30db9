"""Tokens that PyJWT and google-auth make.

Standard input:  {claims, secret, keys: {kid: PEM of a private key}, tokens: [{name, library: PyJWT | google-auth, alg, kid, claims?, shape?}]}
Standard output: {name: token}. A token's `sub` is its name; the key `secret` is the secret.
Shapes of PyJWT: `crit`, `detached` (RFC 7797: neither payload nor its encoding), otherwise a JWT.
"""

import json
import sys

import jwt
from google.auth import jwt as google_jwt
from google.auth.crypt import es, rsa

order = json.load(sys.stdin)
keys = order["keys"] | {"secret": order["secret"], "none": None}


def by_pyjwt(claims, alg, kid, shape):
    headers = {"kid": kid}
    if shape == "detached":
        payload = json.dumps(claims).encode()
        return jwt.api_jws.encode(payload, keys[kid], alg, headers | {"b64": False, "crit": ["b64"]}, is_payload_detached=True)
    if shape == "crit":
        headers |= {"crit": ["urn:example:must-understand"], "urn:example:must-understand": True}
    return jwt.encode(claims, keys[kid], alg, headers)


def by_google_auth(claims, alg, kid, _shape):
    maker = rsa.RSASigner if alg.startswith("RS") else es.EsSigner
    token = google_jwt.encode(maker.from_string(keys[kid], kid), claims).decode()
    assert jwt.get_unverified_header(token)["alg"] == alg
    return token


makers = {"PyJWT": by_pyjwt, "google-auth": by_google_auth}
tokens = {}
for token in order["tokens"]:
    claims = order["claims"] | token.get("claims", {}) | {"sub": token["name"]}
    tokens[token["name"]] = makers[token["library"]](claims, token["alg"], token["kid"], token.get("shape"))
json.dump(tokens, sys.stdout)
