"""ML-DSA (FIPS 204) in JOSE (RFC 9964), by `cryptography`: PyJWT has no implementation.

`cryptography` before 47 has no ML-DSA, and a build without a suitable OpenSSL imports ML-DSA and fails at each
operation. So an algorithm is available only if a signature can be made and verified.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

__all__ = ("ML_DSA", "PublicKey", "is_available", "load_public_key", "verify")


class PublicKey(Protocol):
    """A public key of `cryptography`."""

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise `InvalidSignature` if the signature is not of the data."""
        ...

    def public_bytes_raw(self) -> bytes:
        """Return the raw key."""
        ...


class PrivateKey(Protocol):
    """A private key of `cryptography`."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature."""
        ...

    def public_key(self) -> PublicKey:
        """Return the public key."""
        ...


class ParameterSet(NamedTuple):
    """One parameter set: the bytes of a public key and of a signature (FIPS 204, table 2), and how to make keys."""

    key_size: int
    signature_size: int
    load_private: Callable[[bytes], PrivateKey] | None = None
    load_public: Callable[[bytes], PublicKey] | None = None


ML_DSA: Final = {
    "ML-DSA-44": ParameterSet(1312, 2420),
    "ML-DSA-65": ParameterSet(1952, 3309),
    "ML-DSA-87": ParameterSet(2592, 4627),
}

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # cryptography before 47
    pass
else:
    for _name, _private, _public in (
        ("ML-DSA-44", mldsa.MLDSA44PrivateKey.from_seed_bytes, mldsa.MLDSA44PublicKey.from_public_bytes),
        ("ML-DSA-65", mldsa.MLDSA65PrivateKey.from_seed_bytes, mldsa.MLDSA65PublicKey.from_public_bytes),
        ("ML-DSA-87", mldsa.MLDSA87PrivateKey.from_seed_bytes, mldsa.MLDSA87PublicKey.from_public_bytes),
    ):
        ML_DSA[_name] = ML_DSA[_name]._replace(load_private=_private, load_public=_public)


@functools.cache
def is_available(alg: str) -> bool:
    """Return whether this installation accepts a good signature and refuses a changed message."""
    load_private = ML_DSA[alg].load_private
    if load_private is None:
        return False
    try:
        private = load_private(bytes(32))
        signature, key = private.sign(b"self-test"), load_public_key(alg, private.public_key().public_bytes_raw())
        return verify(alg, b"self-test", key, signature) and not verify(alg, b"other", key, signature)
    except (UnsupportedAlgorithm, ValueError):
        return False


def load_public_key(alg: str, raw: bytes) -> PublicKey | None:
    """Return the public key of these bytes; None if they have another length, or the algorithm is not supported."""
    load_public = ML_DSA[alg].load_public
    return None if load_public is None or len(raw) != ML_DSA[alg].key_size else load_public(raw)


def verify(alg: str, message: bytes, key: PublicKey | None, signature: bytes) -> bool:
    """Return whether a signature is the key's over the message, with an empty context (RFC 9964)."""
    if key is None or len(signature) != ML_DSA[alg].signature_size:
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
