"""The OAuth 2 kinds: client credentials, refresh token, JWT bearer; and the code that `integrations auth` gets.

authlib makes the requests and reads the answers (grants, client authentication, PKCE); `http` bounds and judges them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

# authlib is not typed.
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]

from integrations_dagster.delivery.auth import http
from integrations_dagster.delivery.auth.tokens import Token, digest
from integrations_dagster.delivery.credentials import Grant
from integrations_dagster.delivery.transports.http import NotSent
from integrations_dagster.destinations.errors import Refused

ENDPOINT = "The token endpoint"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFETIME = 180
"""Seconds for which a signed assertion is good; several vendors take no more than a few minutes."""
LONGEST_LIFE = 10 * 365 * 86400
"""Seconds; a longer life than that is none that a vendor meant."""


class _Answer:
    """A judged answer, as authlib reads one."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.status_code = 200
        self._document = document

    def json(self) -> dict[str, Any]:
        return dict(self._document)


class Client:
    """The OAuth client of one account at its token endpoint.

    Args:
        settings: What the kind takes.
        remedy: What a person should do where the credentials are refused.
    """

    def __init__(self, settings: Mapping[str, str], remedy: str) -> None:
        self.settings = settings
        self._remedy = remedy

    def authorization_url(self, redirect_uri: str, state: str, verifier: str) -> str:
        """Where a person allows the client to act (RFC 6749, 4.1.1; RFC 7636)."""
        with self._session(redirect_uri) as session:
            url, _ = session.create_authorization_url(
                self.settings["authorize_url"], state=state, code_verifier=verifier
            )
        return str(url)

    def exchange(self, code: str, redirect_uri: str, verifier: str) -> Mapping[str, Any]:
        """The token answer for an authorization code."""
        return self._ask(
            (code, verifier),
            lambda session, url: session.fetch_token(
                url, grant_type="authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier
            ),
        )

    def refresh(self, refresh_token: str) -> Mapping[str, Any]:
        """The token answer for a refresh token."""
        # The scope stays what was allowed; asking for it again may be refused.
        return self._ask((refresh_token,), lambda session, url: session.refresh_token(url, refresh_token=refresh_token))

    def grant(self, grant_type: str, **parameters: str) -> Mapping[str, Any]:
        """The token answer for any other grant."""
        return self._ask(
            tuple(parameters.values()),
            lambda session, url: session.fetch_token(url, grant_type=grant_type, **parameters),
        )

    def _session(self, redirect_uri: str | None = None) -> Any:
        secret = self.settings.get("client_secret")
        method = f"client_secret_{self.settings.get('client_auth', 'post')}" if secret else "none"
        session = OAuth2Session(
            client_id=self.settings.get("client_id", ""),
            client_secret=secret,
            token_endpoint_auth_method=method,
            scope=self.settings.get("scope"),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )
        http.mount(session)
        return session

    def _ask(self, carried: tuple[str, ...], ask: Callable[[Any, str], Any]) -> Mapping[str, Any]:
        url = self.settings["token_url"]
        secrets = (*carried, self.settings.get("client_secret", ""))

        def judged(answer: Any) -> _Answer:
            document = http.judge(answer, ENDPOINT, self._remedy, secrets)
            return _Answer(_checked(document))

        with http.translated(url, ENDPOINT), self._session() as session:
            for hook in ("access_token_response", "refresh_token_response"):
                session.register_compliance_hook(hook, judged)
            try:
                answer: Mapping[str, Any] = ask(session, url)
            except OAuthError as error:
                raise Refused(f"{ENDPOINT} gave no token ({error.error}).", "NO_TOKEN", remedy=self._remedy) from None
            return answer


class _Bearer:
    """What the three kinds have in common: a token that travels in the Authorization header."""

    def __init__(self, settings: Mapping[str, str], remedy: str) -> None:
        self._settings = settings
        self._client = Client(settings, remedy)
        self._remedy = remedy

    def accepts(self, stored: Token) -> bool:  # noqa: ARG002
        """Any: the settings name the file."""
        return True

    def grant(self, token: Token) -> Grant:
        """An Authorization header."""
        return Grant({"Authorization": f"Bearer {token.access}"}, serial=token.serial)


class ClientCredentials(_Bearer):
    """RFC 6749, 4.4."""

    def fetch(self, old: Token | None) -> Token:  # noqa: ARG002
        """Ask for a token; there is nothing to be refreshed."""
        audience = {"audience": self._settings["audience"]} if "audience" in self._settings else {}
        return token_of(self._client.grant("client_credentials", **audience), None)

    def secrets(self) -> tuple[str, ...]:
        """The client's secret."""
        return (self._settings["client_secret"],)


class RefreshToken(_Bearer):
    """RFC 6749, 6, with rotation: a new refresh token in an answer replaces the old one."""

    def accepts(self, stored: Token) -> bool:
        """A stored token counts unless the settings were given another refresh token since."""
        return stored.seed == seed(self._settings)

    def fetch(self, old: Token | None) -> Token:
        """Refresh, with the stored refresh token or the one of the settings."""
        refresh = old.refresh if old is not None else self._settings.get("refresh_token")
        if refresh is None:
            reason = "There is no refresh token" + (" for the token that was stored." if old else " yet.")
            raise Refused(reason, "NO_REFRESH_TOKEN", remedy=self._remedy)
        if old is None:
            old = Token("", refresh, None, 0.0, grant=seed(self._settings), seed=seed(self._settings))
        return token_of(self._client.refresh(refresh), old)

    def secrets(self) -> tuple[str, ...]:
        """The client's secret, and the first refresh token; later ones travel to the token endpoint only."""
        return tuple(self._settings[name] for name in ("client_secret", "refresh_token") if name in self._settings)


class JwtBearer(_Bearer):
    """RFC 7523, 2.1: an assertion signed with a private key.

    Raises:
        ValueError: The key cannot be read, or does not fit the algorithm.
    """

    def __init__(self, settings: Mapping[str, str], remedy: str) -> None:
        super().__init__(settings, remedy)
        # joserfc is what authlib signs with; authlib.jose is deprecated in favour of it.
        from joserfc import jwk
        from joserfc.errors import JoseError

        # In an environment variable the lines of a PEM file are often joined by "\n", as two characters.
        pem = settings["private_key"].replace("\\n", "\n")
        try:
            elliptic = settings["algorithm"].startswith("ES")
            self._key = jwk.import_key(pem, "EC") if elliptic else jwk.import_key(pem, "RSA")
        except (JoseError, ValueError, TypeError) as error:
            raise ValueError(f"auth.private_key is no private key for {settings['algorithm']}.") from error
        if not self._key.is_private:
            raise ValueError("auth.private_key is a public key.")

    def fetch(self, old: Token | None) -> Token:  # noqa: ARG002
        """Sign an assertion and exchange it."""
        scope = {"scope": self._settings["scope"]} if "scope" in self._settings else {}
        return token_of(self._client.grant(JWT_BEARER, assertion=self._assertion(), **scope), None)

    def secrets(self) -> tuple[str, ...]:
        """The private key."""
        return (self._settings["private_key"],)

    def _assertion(self) -> str:
        from joserfc import jwt

        now = int(time.time())
        claims = {
            "iss": self._settings["issuer"],
            "sub": self._settings["subject"],
            "aud": self._settings["audience"],
            "iat": now,
            "exp": now + ASSERTION_LIFETIME,
            "jti": uuid.uuid4().hex,
        }
        if "scope" in self._settings:
            # Some vendors read it here, others from the request.
            claims["scope"] = self._settings["scope"]
        algorithm = self._settings["algorithm"]
        return jwt.encode({"alg": algorithm}, claims, self._key, algorithms=[algorithm])


def seed(settings: Mapping[str, str]) -> str:
    """Digest of the refresh token that the settings have; "" where they have none."""
    return digest(settings["refresh_token"]) if "refresh_token" in settings else ""


def token_of(answer: Mapping[str, Any], old: Token | None) -> Token:
    """The token of an answer.

    Args:
        answer: As the token endpoint gave it, checked.
        old: The token that was refreshed, whose refresh token stays where the answer has none.
    """
    now = time.time()
    life = answer.get("expires_in")
    refresh = answer.get("refresh_token")
    return Token(
        access=str(answer["access_token"]),
        refresh=str(refresh) if refresh else old.refresh if old is not None else None,
        expires=None if life is None else now + float(life),
        obtained=now,
        grant=old.grant if old is not None else "",
        seed=old.seed if old is not None else "",
    )


def _checked(document: Any) -> dict[str, Any]:
    """The answer of a token endpoint, if it can be used."""
    if not isinstance(document, dict):
        raise NotSent(f"{ENDPOINT} answered with something that is no token.", "BROKEN_ANSWER")
    access, kind = document.get("access_token"), document.get("token_type", "Bearer")
    if not isinstance(access, str) or not access or not access.isascii() or not access.isprintable() or " " in access:
        raise NotSent(f"{ENDPOINT} answered without an access token.", "BROKEN_ANSWER")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Refused(f"{ENDPOINT} gives tokens that are no bearer tokens; those are not built.", "TOKEN_TYPE")
    checked = {"access_token": access, "token_type": "Bearer"}
    refresh = document.get("refresh_token")
    if isinstance(refresh, str) and refresh:
        checked["refresh_token"] = refresh
    try:
        life = float(document["expires_in"])
    except (KeyError, TypeError, ValueError):
        return checked
    return checked | {"expires_in": life} if 0 < life < LONGEST_LIFE else checked
