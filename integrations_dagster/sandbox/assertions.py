"""Signed assertions (RFC 7523), as the sandbox's OAuth server takes them.

The library that checks signatures is imported where it is used: the other stand-ins do without.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Collection
from typing import Any

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384")
LONGEST_LIFE = 3600.0
"""Seconds from now at which an assertion may expire at the latest."""


def import_key(pem: str) -> Any:
    """A public key in PEM form.

    Raises:
        ValueError: It is none.
    """
    from joserfc import jwk
    from joserfc.errors import JoseError

    for kind in ("RSA", "EC"):
        try:
            return jwk.import_key(pem, kind)
        except (JoseError, ValueError, TypeError):
            continue
    raise ValueError("No RSA or EC key in PEM form.")


def issuer_of(assertion: str) -> str:
    """Who an assertion says that it is from, unchecked; "" where it says nothing."""
    try:
        part = assertion.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["iss"])
    except (IndexError, KeyError, TypeError, ValueError):
        return ""


def verified(assertion: str, pem: str, audiences: Collection[str]) -> str:
    """Check an assertion.

    Args:
        assertion: The signed token.
        pem: Public key of its issuer.
        audiences: Names of who it may be for.

    Returns:
        Its id.

    Raises:
        ValueError: What is wrong with it.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        claims = jwt.decode(assertion, import_key(pem), algorithms=ALGORITHMS).claims
        expires = float(claims["exp"])
        audience = {claims["aud"]} if isinstance(claims["aud"], str) else set(claims["aud"])
        jti = str(claims["jti"])
    except (JoseError, KeyError, TypeError, ValueError):
        raise ValueError("The assertion is not good.") from None
    now = time.time()
    if not now < expires < now + LONGEST_LIFE or not claims.get("sub"):
        raise ValueError("The assertion has expired, lives too long, or has no subject.")
    if not audience & set(audiences):
        raise ValueError("The assertion is for somebody else.")
    return jti
