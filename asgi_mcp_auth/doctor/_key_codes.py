"""The codes of findings in a key set."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor._findings import Code, Severity

__all__ = ("KEYS",)

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK

KEYS_GOOD: Final = Code("keys_usable", OK, "keys that can verify tokens", "", "RFC 7517")
NO_JWKS_URI: Final = Code(
    "no_jwks_uri",
    ERROR,
    "no key set: JWTs cannot be verified",
    "Publish jwks_uri in the metadata.",
    "RFC 8414 2",
    "Set jwks_uri= of the issuer, or publish jwks_uri in the metadata.",
)
KEY_SET_REFUSED: Final = Code(
    "key_set_refused", ERROR, "a key set that cannot be used", "Publish a public signature key.", "RFC 7517 5"
)
PRIVATE_KEY: Final = Code(
    "private_key_published",
    ERROR,
    "a published private key: anyone can sign tokens with it",
    "Remove the key, create a new one, and publish only its public members.",
    "RFC 7517 9.2",
)
SYMMETRIC_KEY: Final = Code(
    "symmetric_key_published",
    ERROR,
    "a published shared secret, which is never used to verify",
    "Remove the key, and sign with an asymmetric algorithm.",
    "RFC 8725 3.1",
)
WEAK_KEY: Final = Code(
    "weak_key", WARNING, "a key too weak to be used", "Create a key of 2048 bits or more.", "RFC 7518 3.3"
)
DUPLICATE_KID: Final = Code(
    "duplicate_kid",
    ERROR,
    "several keys with the same kid and algorithm: their tokens are rejected as ambiguous",
    "Give each key its own kid.",
    "RFC 7517 4.5",
)
NO_KID: Final = Code(
    "key_without_kid",
    WARNING,
    "several keys, and one without a kid: tokens without a kid are ambiguous",
    "Give each key a kid, and send the kid in tokens.",
    "RFC 7515 4.1.4",
)
NO_ALG: Final = Code(
    "key_without_alg",
    INFO,
    "a key without `alg`: it verifies every allowed algorithm of its type",
    "Publish `alg`.",
    "RFC 8725 3.1",
    "Set `algorithms` of the issuer, or publish `alg`.",
)
ENCRYPTION_KEY: Final = Code(
    "encryption_key", INFO, "a key that is not for signatures; it is skipped", "", "RFC 7517 4.2"
)
UNUSABLE_KEY: Final = Code("unusable_key", INFO, "a key set entry that is skipped", "See the evidence.", "RFC 7517 5")
NOT_CACHEABLE: Final = Code(
    "not_cacheable",
    INFO,
    "no usable Cache-Control max-age: the key set is cached for 10 minutes (1 minute if max-age is shorter)",
    "Send Cache-Control: max-age=3600, for example.",
    "RFC 9111",
)
LONG_LIFETIME: Final = Code(
    "long_lifetime",
    WARNING,
    "a lifetime of more than a day: a withdrawn key stays trusted for that time",
    "Send a max-age of one hour or less.",
    "RFC 9111",
)
KEYS: Final = (
    *(KEYS_GOOD, NO_JWKS_URI, KEY_SET_REFUSED, PRIVATE_KEY, SYMMETRIC_KEY, WEAK_KEY, DUPLICATE_KID, NO_KID, NO_ALG),
    *(ENCRYPTION_KEY, UNUSABLE_KEY, NOT_CACHEABLE, LONG_LIFETIME),
)
