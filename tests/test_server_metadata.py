"""`_oauth.server_metadata` and `AuthorizationServerMetadata`: any document is read, or refused with our exception."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import ISS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import AuthorizationServerMetadata, AuthServerConfig, validate_server_config
from asgi_mcp_auth._oauth.server_metadata import (
    ALLOW_HTTP,
    AuthServerConfigErrorCode,
    AuthServerConfigWarningCode,
    accept_metadata,
    insecure_url,
    split_faulty,
    unfit_for_clients,
)
from asgi_mcp_auth._oauth.strict_json import load_tolerant
from asgi_mcp_auth.errors import ConfigurationError, DiscoveryError, InvalidServerMetadata

URL = f"{ISS}/.well-known/oauth-authorization-server"
EMPTY: list[str] = []
GOOD: dict[str, Any] = {
    "issuer": ISS,
    "authorization_endpoint": f"{ISS}/authorize",
    "token_endpoint": f"{ISS}/token",
    "jwks_uri": f"{ISS}/jwks",
    "registration_endpoint": f"{ISS}/register",
    "response_types_supported": ["code"],
    "grant_types_supported": ["authorization_code", "refresh_token"],
    "code_challenge_methods_supported": ["S256"],
    "client_id_metadata_document_supported": True,
}


# --- insecure_url ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "allow_http", "expected"),
    [
        pytest.param("https://auth.example.com/jwks", False, None, id="DC-4 https"),
        pytest.param("https://auth.example.com/jwks?x=y", False, None, id="DC-4 a query"),
        pytest.param("http://127.0.0.1:9000/jwks", False, None, id="DC-4 http on loopback"),
        pytest.param("http://localhost/jwks", False, None, id="DC-4 http on localhost"),
        pytest.param("http://[::1]:9000/jwks", False, None, id="DC-4 http on loopback over IPv6"),
        pytest.param("http://auth.example.com/jwks", True, None, id="DC-4 http where it is dangerously allowed"),
        pytest.param("http://auth.example.com/jwks", False, "is not https", id="DC-4 http"),
        pytest.param("http://localhost.evil.com/", False, "is not https", id="DC-4 begins like localhost"),
        pytest.param("http://127.0.0.1.nip.io/", False, "is not https", id="DC-4 begins like 127.0.0.1"),
        pytest.param("ftp://auth.example.com/", True, "is not https", id="DC-4 another scheme"),
        pytest.param("file:///etc/passwd", False, "is not an absolute URL", id="DC-4 a file"),
        pytest.param("https://auth.example.com/#x", False, "is not an absolute URL", id="DC-4 a fragment"),
        pytest.param("https://u:p@auth.example.com/", False, "is not an absolute URL", id="DC-4 user information"),
        pytest.param("/jwks", False, "is not an absolute URL", id="DC-4 relative"),
        pytest.param("", False, "is not an absolute URL", id="DC-4 empty"),
        pytest.param(None, False, "is not an absolute URL", id="DC-4 None"),
        pytest.param(5, False, "is not an absolute URL", id="DC-4 a number"),
    ],
)
def test_insecure_url(text: object, allow_http: bool, expected: str | None) -> None:
    assert insecure_url(text, allow_http=allow_http) == expected


# --- accept_metadata ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "issuer"),
    [
        pytest.param(GOOD, ISS, id="DC-2 the issuer asked for"),
        pytest.param(GOOD, None, id="DC-2 the document names the issuer"),
        pytest.param({"issuer": ISS}, ISS, id="DC-2 only an issuer"),
        pytest.param({"issuer": f"{ISS}/"}, f"{ISS}/", id="DC-2 a slash that both have"),
        pytest.param(GOOD | {"x_vendor": {"a": [1, None]}}, ISS, id="unknown members are kept"),
    ],
)
def test_accepted(document: dict[str, Any], issuer: str | None) -> None:
    metadata = accept_metadata(document, issuer=issuer, url=URL)
    assert metadata.to_dict() == document
    assert metadata.issuer == document["issuer"]


@pytest.mark.parametrize(
    ("document", "issuer", "message"),
    [
        pytest.param(
            GOOD,
            "https://other.example",
            f"The document at {URL} has the issuer {ISS}, not https://other.example.",
            id="DC-2 another issuer",
        ),
        pytest.param(
            GOOD,
            f"{ISS}/",
            f"The document at {URL} has the issuer {ISS}, not {ISS}/.",
            id="DC-2 without the final slash",
        ),
        pytest.param(
            GOOD | {"issuer": "https://AUTH.example.com"},
            ISS,
            f"The document at {URL} has the issuer https://AUTH.example.com, not {ISS}.",
            id="DC-2 another case",
        ),
        pytest.param({"issuer": ""}, None, f"The document at {URL} has an empty issuer.", id="DC-2 empty"),
        pytest.param({}, ISS, "The authorization server metadata has no issuer.", id="DC-2 none"),
        pytest.param(
            {"issuer": None}, None, "The authorization server metadata has wrong JSON types for issuer.", id="DC-2 null"
        ),
        pytest.param(
            GOOD | {"jwks_uri": "http://auth.example.com/jwks"},
            ISS,
            f"The jwks_uri http://auth.example.com/jwks in {URL} is not https. {ALLOW_HTTP}",
            id="DC-4 keys over http",
        ),
        pytest.param(
            GOOD | {"jwks_uri": "jwks\n"},
            ISS,
            f"The jwks_uri jwks\\n in {URL} is not an absolute URL. {ALLOW_HTTP}",
            id="DC-4 escaped",
        ),
        pytest.param(
            GOOD | {"jwks_uri": 5, "scopes_supported": "a", "grant_types_supported": [1], "token_endpoint": []},
            ISS,
            "The authorization server metadata has wrong JSON types for jwks_uri.",
            id="DC-3 jwks_uri of a wrong type",
        ),
        pytest.param(
            GOOD | {"jwks_uri": f"{ISS}/jwks?code=s3cret#x"},
            ISS,
            f"The jwks_uri {ISS}/jwks?... in {URL} is not an absolute URL. {ALLOW_HTTP}",
            id="DC-4 the query of a refused jwks_uri is not shown",
        ),
    ],
)
def test_refused(document: dict[str, Any], issuer: str | None, message: str) -> None:
    with pytest.raises(InvalidServerMetadata) as caught:
        accept_metadata(document, issuer=issuer, url=URL)
    assert (caught.value.message, caught.value.code) == (message, "invalid_server_metadata")
    assert (caught.value.transient, isinstance(caught.value, ConfigurationError)) == (False, True)
    assert isinstance(caught.value, DiscoveryError)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"ui_locales_supported": "en"}, id="DC-3 a string for a list"),
        pytest.param({"userinfo_endpoint": False}, id="DC-3 a boolean for a string"),
        pytest.param({"scopes_supported": [None]}, id="DC-3 a list with null"),
        pytest.param({"token_endpoint": [], "grant_types_supported": {}}, id="DC-3 two members"),
    ],
)
def test_members_of_a_wrong_type_that_verification_does_not_need_are_ignored(wrong: dict[str, Any]) -> None:
    metadata = accept_metadata(GOOD | wrong, issuer=ISS, url=URL)
    assert metadata.to_dict() == {name: value for name, value in GOOD.items() if name not in wrong}
    assert metadata.ignored_members == tuple(sorted(wrong))
    (problem, *_) = unfit_for_clients(metadata, AuthServerConfig(issuer=ISS), ())
    assert problem == f"Members of a wrong type, or not valid JSON, are ignored: {', '.join(sorted(wrong))}."


FAULTY = [
    pytest.param(b'"x_note": 1, "x_note": 1', {"x_note"}, id="DC-3 a repeated member"),
    pytest.param(b'"scopes_supported": ["a"], "scopes_supported": ["b"]', {"scopes_supported"}, id="DC-3 a known one"),
    pytest.param(b'"x_note": {"a": [NaN]}', {"x_note"}, id="DC-3 NaN"),
    pytest.param(b'"x_note": -1e999', {"x_note"}, id="DC-3 a number out of range"),
    pytest.param(b'"x_note": "\\udc00"', {"x_note"}, id="DC-3 a lone surrogate"),
    pytest.param(b'"x_note": "\xe9"', {"x_note"}, id="DC-3 not UTF-8"),
    pytest.param(b'"\\udc00": 1', {"\udc00"}, id="DC-3 a lone surrogate in a name"),
]


@pytest.mark.parametrize("mark", [pytest.param(b"", id="plain"), pytest.param(b"\xef\xbb\xbf", id="byte order mark")])
@pytest.mark.parametrize(("member", "ignored"), FAULTY)
def test_a_fault_affects_the_member_that_has_it(member: bytes, ignored: set[str], mark: bytes) -> None:
    data = mark + json.dumps(GOOD).replace('"scopes_supported": []', "")[:-1].encode() + b", " + member + b"}"
    document, names = split_faulty(load_tolerant(data))
    assert names == ignored
    metadata = accept_metadata(document, issuer=ISS, url=URL, ignored=names)
    assert (metadata.to_dict(), metadata.ignored_members) == (GOOD, tuple(ignored))


@pytest.mark.parametrize(
    ("member", "said"),
    [
        pytest.param(b'"issuer": "https://other.example"', "issuer", id="DC-2 issuer repeated"),
        pytest.param(f'"issuer": "{ISS}"'.encode(), "issuer", id="DC-2 the same issuer repeated"),
        pytest.param(b'"jwks_uri": "https://other.example"', "jwks_uri", id="DC-4 jwks_uri repeated"),
    ],
)
def test_a_fault_in_a_needed_member_refuses_the_document(member: bytes, said: str) -> None:
    document, names = split_faulty(load_tolerant(json.dumps(GOOD)[:-1].encode() + b", " + member + b"}"))
    assert names == frozenset()
    with pytest.raises(InvalidServerMetadata, match=f"wrong JSON types for {said}"):
        accept_metadata(document, issuer=ISS, url=URL)


def test_members_given_in_code_must_have_the_right_type() -> None:
    with pytest.raises(InvalidServerMetadata, match="wrong JSON types for scopes_supported, token_endpoint"):
        AuthorizationServerMetadata(issuer=ISS, scopes_supported="a", token_endpoint=[])


def test_http_keys_where_they_are_dangerously_allowed() -> None:
    document = GOOD | {"jwks_uri": "http://auth.internal/jwks"}
    assert accept_metadata(document, issuer=ISS, url=URL, allow_http=True).jwks_uri == "http://auth.internal/jwks"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(ISS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
member_names = st.sampled_from([*GOOD, "scopes_supported", "self", "cls", "members", "document", "_members", "to_dict"])


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(member_names | st.text(max_size=8), json_values, max_size=6), st.none() | st.just(ISS))
@example({"issuer": ISS, "self": 1}, ISS)
@example({"issuer": ISS, "cls": 1}, ISS)
@example({"issuer": ISS, "document": 1, "_members": 1, "to_dict": 1, "from_dict": 1, "__class__": 1}, ISS)
def test_any_document(document: dict[str, Any], issuer: str | None) -> None:
    """The metadata has the members of the document, or our exception is raised."""
    try:
        metadata = accept_metadata(document, issuer=issuer, url=URL)
    except InvalidServerMetadata as error:
        assert error.message.isascii() or any(not name.isascii() for name in document)  # noqa: PT017
        return
    assert metadata.issuer == document["issuer"]
    kept = {name: value for name, value in document.items() if value is not None}
    assert metadata.to_dict() == {name: kept[name] for name in kept if name not in metadata.ignored_members}
    assert validate_server_config(AuthServerConfig(metadata=metadata)) is not None


# --- AuthorizationServerMetadata ------------------------------------------------------------------------------------


def test_only_the_issuer_is_required() -> None:
    metadata = AuthorizationServerMetadata(issuer=ISS)
    assert metadata.to_dict() == {"issuer": ISS}
    names = [name for name in GOOD if name != "issuer"]
    assert [getattr(metadata, name) for name in names] == [None] * len(names)
    assert repr(metadata) == f"AuthorizationServerMetadata(issuer='{ISS}', 0 more members)"


def test_unknown_members_are_kept_and_readable() -> None:
    document: dict[str, Any] = GOOD | {"x_vendor": {"a": 1}, "resource_name#it": "Archivio"}
    metadata = AuthorizationServerMetadata.from_dict(document)
    assert metadata.to_dict() == document
    assert getattr(metadata, "x_vendor") == {"a": 1}  # noqa: B009 - not a registered member
    assert metadata == AuthorizationServerMetadata(**document)
    assert hash(metadata) == hash(AuthorizationServerMetadata(issuer=ISS))
    assert metadata != AuthorizationServerMetadata(issuer=ISS)


@pytest.mark.parametrize("name", ["x_vendor", "_private", "__deepcopy__"])
def test_a_name_that_is_no_member(name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(AuthorizationServerMetadata(issuer=ISS), name)


def test_metadata_is_immutable() -> None:
    metadata: Any = AuthorizationServerMetadata.from_dict(GOOD)
    with pytest.raises(AttributeError):
        metadata.issuer = "https://evil.example"
    metadata.to_dict()["issuer"] = "https://evil.example"
    assert metadata.issuer == ISS


def test_metadata_keeps_no_reference_to_the_document() -> None:
    document = dict(GOOD)
    metadata = AuthorizationServerMetadata.from_dict(document)
    document["jwks_uri"] = "https://evil.example/jwks"
    assert metadata.jwks_uri == f"{ISS}/jwks"


# --- validate_server_config -----------------------------------------------------------------------------------------


def without(name: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (GOOD | changes).items() if key != name}


E, W = AuthServerConfigErrorCode, AuthServerConfigWarningCode


@pytest.mark.parametrize(
    ("document", "errors", "warnings"),
    [
        pytest.param(GOOD, [], [], id="DC-16 everything"),
        pytest.param(
            GOOD | {"response_types_supported": ["token", "code id_token"]}, [], [], id="DC-16 code in a combination"
        ),
        pytest.param(without("grant_types_supported"), [], [], id="DC-16 the default grants of RFC 8414 section 2"),
        pytest.param(
            without("response_types_supported"), [E.CODE_RESPONSE_TYPE_NOT_SUPPORTED], [], id="DC-16 no response types"
        ),
        pytest.param(
            GOOD | {"response_types_supported": ["token", "codex"]},
            [E.CODE_RESPONSE_TYPE_NOT_SUPPORTED],
            [],
            id="DC-16 not code",
        ),
        pytest.param(
            GOOD | {"grant_types_supported": ["client_credentials"]},
            [E.AUTHORIZATION_CODE_GRANT_NOT_SUPPORTED],
            [],
            id="DC-16 no code grant",
        ),
        pytest.param(
            GOOD | {"grant_types_supported": EMPTY},
            [E.AUTHORIZATION_CODE_GRANT_NOT_SUPPORTED],
            [],
            id="DC-16 empty grants",
        ),
        pytest.param(without("code_challenge_methods_supported"), [E.PKCE_NOT_SUPPORTED], [], id="DC-16 no PKCE"),
        pytest.param(
            GOOD | {"code_challenge_methods_supported": EMPTY},
            [E.PKCE_NOT_SUPPORTED],
            [],
            id="DC-16 an empty list of PKCE",
        ),
        pytest.param(
            GOOD | {"code_challenge_methods_supported": ["plain"]},
            [E.S256_CODE_CHALLENGE_METHOD_NOT_SUPPORTED],
            [],
            id="DC-16 plain PKCE only",
        ),
        pytest.param(
            without("registration_endpoint"), [], [W.DYNAMIC_REGISTRATION_NOT_SUPPORTED], id="DC-16 no registration"
        ),
        pytest.param(
            GOOD | {"client_id_metadata_document_supported": False},
            [],
            [W.CLIENT_ID_METADATA_DOCUMENT_NOT_SUPPORTED],
            id="DC-16 no client id metadata documents",
        ),
        pytest.param(
            {"issuer": ISS},
            [E.CODE_RESPONSE_TYPE_NOT_SUPPORTED, E.PKCE_NOT_SUPPORTED],
            [W.DYNAMIC_REGISTRATION_NOT_SUPPORTED, W.CLIENT_ID_METADATA_DOCUMENT_NOT_SUPPORTED],
            id="DC-16 only an issuer",
        ),
    ],
)
def test_validate_server_config(document: dict[str, Any], errors: list[str], warnings: list[str]) -> None:
    result = validate_server_config(AuthServerConfig(metadata=AuthorizationServerMetadata.from_dict(document)))
    assert result.is_valid is not bool(errors)
    assert [error.code for error in result.errors] == errors
    assert [warning.code for warning in result.warnings] == warnings
    assert all(error.description for error in result.errors)
    assert all(warning.description for warning in result.warnings)


def test_nothing_to_validate() -> None:
    result = validate_server_config(AuthServerConfig(issuer=ISS))
    assert (result.is_valid, [error.code for error in result.errors]) == (False, [E.INVALID_SERVER_METADATA])
    assert result.warnings == []


def test_every_code_has_a_description() -> None:
    from asgi_mcp_auth._oauth import server_metadata

    descriptions = vars(server_metadata)["_DESCRIPTIONS"]
    assert set(descriptions) == {code.value for code in E} | {code.value for code in W}
