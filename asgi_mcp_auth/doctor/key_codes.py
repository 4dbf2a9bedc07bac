"""The codes of what is found in a key set."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor.findings import Code, Severity

__all__ = ("KEYS",)

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK

KEYS_GOOD: Final = Code("keys_usable", OK, "tokens can be verified with these keys", "", "RFC 7517")
NO_JWKS_URI: Final = Code(
    "no_jwks_uri", ERROR, "no key set: JWTs cannot be verified", "Publish jwks_uri, or set jwks_uri=.", "RFC 8414 2"
)
KEY_SET_REFUSED: Final = Code(
    "key_set_refused", ERROR, "the key set cannot be used", "Publish a public signature key.", "RFC 7517 5"
)
PRIVATE_KEY: Final = Code(
    "private_key_published",
    ERROR,
    "a private key is in public: anybody can sign tokens",
    "Take it out, make a new one, and publish its public members only.",
    "RFC 7517 9.2",
)
SYMMETRIC_KEY: Final = Code(
    "symmetric_key_published",
    ERROR,
    "a shared secret is in public, and would never be used",
    "Take it out; sign with an asymmetric algorithm.",
    "RFC 8725 3.1",
)
WEAK_KEY: Final = Code(
    "weak_key", WARNING, "a key too weak to be used", "Make one of 2048 bits or more.", "RFC 7518 3.3"
)
DUPLICATE_KID: Final = Code(
    "duplicate_kid",
    ERROR,
    "several keys for one kid and algorithm: its tokens are refused as ambiguous",
    "Give each key a kid of its own.",
    "RFC 7517 4.5",
)
NO_KID: Final = Code(
    "key_without_kid",
    WARNING,
    "several keys, and one without a kid: tokens without a kid are ambiguous",
    "Give each key a kid, and name it in tokens.",
    "RFC 7515 4.1.4",
)
NO_ALG: Final = Code(
    "key_without_alg",
    INFO,
    "a key that does not say its algorithm: it is used for any that fits its type",
    "Publish alg, or set `algorithms`.",
    "RFC 8725 3.1",
)
ENCRYPTION_KEY: Final = Code(
    "encryption_key", INFO, "a key that is not for signatures; it is skipped", "", "RFC 7517 4.2"
)
UNUSABLE_KEY: Final = Code("unusable_key", INFO, "an entry that is skipped", "See the evidence.", "RFC 7517 5")
NOT_CACHEABLE: Final = Code(
    "not_cacheable",
    INFO,
    "no lifetime, or none worth the name; it is kept for ten minutes or one",
    "Say Cache-Control: max-age=3600, for example.",
    "RFC 9111",
)
LONG_LIFETIME: Final = Code(
    "long_lifetime",
    WARNING,
    "a lifetime of more than a day: a withdrawn key would be believed that long",
    "Say an hour or less.",
    "RFC 9111",
)
KEYS: Final = (
    *(KEYS_GOOD, NO_JWKS_URI, KEY_SET_REFUSED, PRIVATE_KEY, SYMMETRIC_KEY, WEAK_KEY, DUPLICATE_KID, NO_KID, NO_ALG),
    *(ENCRYPTION_KEY, UNUSABLE_KEY, NOT_CACHEABLE, LONG_LIFETIME),
)
