"""Makes a token the way a typical Python service does: {claims, secret | private_key, algorithm, headers?} on standard input.

`expires_in` in the claims' place of `exp` is seconds from now, as `datetime.utcnow() + timedelta(…)` is written everywhere.
"""

import datetime
import json
import sys

import jwt

order = json.load(sys.stdin)
claims = order["claims"]
if "expires_in" in claims:
    claims["exp"] = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=claims.pop("expires_in"))
print(jwt.encode(claims, order["key"], algorithm=order["algorithm"], headers=order.get("headers")), end="")
