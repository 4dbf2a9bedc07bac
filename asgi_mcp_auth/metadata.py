"""An authorization server's metadata document as a value (RFC 8414 section 2, OpenID Connect Discovery section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = ("AuthorizationServerMetadata",)

_STRINGS: Final = frozenset(
    {
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "registration_endpoint",
        "service_documentation",
        "op_policy_uri",
        "op_tos_uri",
        "revocation_endpoint",
        "introspection_endpoint",
        "userinfo_endpoint",
    }
)
_LISTS: Final = frozenset(
    {
        "scopes_supported",
        "response_types_supported",
        "response_modes_supported",
        "grant_types_supported",
        "token_endpoint_auth_methods_supported",
        "token_endpoint_auth_signing_alg_values_supported",
        "ui_locales_supported",
        "revocation_endpoint_auth_methods_supported",
        "revocation_endpoint_auth_signing_alg_values_supported",
        "introspection_endpoint_auth_methods_supported",
        "introspection_endpoint_auth_signing_alg_values_supported",
        "code_challenge_methods_supported",
        "protected_resources",
    }
)


class AuthorizationServerMetadata:
    """An authorization server's metadata (RFC 8414 section 2, OpenID Connect Discovery section 3).

    Only `issuer` is required. Every registered member is an attribute, None when absent; members this
    library does not know are kept and given back by `to_dict`.

    Args:
        issuer: The issuer identifier, exactly as tokens carry it in `iss`.
        members: Any other member of the document, such as `authorization_endpoint`, `token_endpoint`,
            `jwks_uri`, `registration_endpoint`, `response_types_supported`, `code_challenge_methods_supported`.

    Raises:
        InvalidServerMetadata: A known member has the wrong JSON type; all of them are named.
    """

    __slots__ = ("_members",)
    _members: dict[str, Any]

    if TYPE_CHECKING:
        issuer: str
        authorization_endpoint: str | None
        token_endpoint: str | None
        jwks_uri: str | None
        registration_endpoint: str | None
        revocation_endpoint: str | None
        introspection_endpoint: str | None
        userinfo_endpoint: str | None
        service_documentation: str | None
        scopes_supported: list[str] | None
        response_types_supported: list[str] | None
        response_modes_supported: list[str] | None
        grant_types_supported: list[str] | None
        token_endpoint_auth_methods_supported: list[str] | None
        code_challenge_methods_supported: list[str] | None
        protected_resources: list[str] | None
        client_id_metadata_document_supported: bool | None

    def __init__(self, *, issuer: str, **members: Any) -> None:
        self._fill({"issuer": issuer, **members})

    def _fill(self, members: Mapping[str, Any]) -> None:
        document = {str(name): value for name, value in members.items() if value is not None or name == "issuer"}
        wrong = [name for name in {"issuer"} | _STRINGS if not isinstance(document.get(name, ""), str)]
        wrong += [name for name in _LISTS if not _is_string_list(document.get(name, []))]
        if wrong:
            msg = f"Authorization server metadata: wrong JSON type for {', '.join(sorted(wrong))}."
            raise InvalidServerMetadata(msg)
        object.__setattr__(self, "_members", document)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> AuthorizationServerMetadata:
        """Read a metadata document. Raises `InvalidServerMetadata` when `issuer` is missing or a type is wrong."""
        if "issuer" not in document:
            msg = "Authorization server metadata without an issuer."
            raise InvalidServerMetadata(msg)
        metadata = cls.__new__(cls)
        metadata._fill(document)  # noqa: SLF001 - our own; a member may be called `self`
        return metadata

    def to_dict(self) -> dict[str, Any]:
        """The document, unknown members included."""
        return dict(self._members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if (
            name in self._members
            or name in _STRINGS
            or name in _LISTS
            or name == "client_id_metadata_document_supported"
        ):
            return self._members.get(name)
        msg = f"authorization server metadata has no member {name!r}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: object) -> None:
        msg = "AuthorizationServerMetadata is immutable"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AuthorizationServerMetadata) and self._members == other._members

    def __hash__(self) -> int:
        return hash(self.issuer)

    def __repr__(self) -> str:
        return f"AuthorizationServerMetadata(issuer={self.issuer!r}, {len(self._members) - 1} more members)"


def _is_string_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in cast("Sequence[object]", value))
