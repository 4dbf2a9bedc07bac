"""What real clients read out of a `WWW-Authenticate` field."""

from __future__ import annotations

import re
import time

import pytest
from harness import CH0, PRM, chr_, chs, cht
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.challenge import BEARER, Challenge, CredentialScheme, challenges, parse_challenges
from asgi_mcp_auth._oauth.grammar import is_scope

DPOP = CredentialScheme("DPoP", (("algs", "ES256"),))
DPOP_LINE = f'DPoP algs="ES256", resource_metadata="{PRM}"'


def sdk_reads(header: str, name: str) -> str | None:
    """What both official SDKs do: the first unanchored match in the whole header."""
    match = re.search(rf'{name}=(?:"([^"]+)"|([^\s,]+))', header)
    return None if match is None else match.group(1) or match.group(2)


def lines(
    scope: tuple[str, ...] = ("mcp:read",),
    error: str | None = None,
    description: str | None = None,
    used: bytes | None = None,
    *,
    schemes: tuple[CredentialScheme, ...] = (BEARER,),
) -> list[str]:
    built = challenges(schemes, resource_metadata=PRM, scope=scope, error=error, description=description, used=used)
    return [line.decode("ascii") for line in built]


@pytest.mark.parametrize(
    ("scope", "error", "description", "expected"),
    [
        pytest.param(("mcp:read",), None, None, CH0, id="RS-30 RS-31 RS-32 RS-34 no credential"),
        pytest.param((), None, None, f'Bearer resource_metadata="{PRM}"', id="RS-36 nothing to ask for"),
        pytest.param(
            ("b", "a"), None, None, f'Bearer scope="b a", resource_metadata="{PRM}"', id="RS-35 one space, in order"
        ),
        pytest.param(("mcp:read",), "invalid_token", "The access token is invalid", cht(), id="RS-37 the order"),
        pytest.param(
            ("mcp:read",),
            "invalid_token",
            "The access token expired",
            cht("The access token expired"),
            id="RS-32 a scope beside an error",
        ),
        pytest.param(("mcp:read",), "invalid_request", "Malformed Authorization header", chr_(), id="RS-33 400"),
        pytest.param(
            ("mcp:read", "files:write"),
            "insufficient_scope",
            "Additional scope required",
            chs("mcp:read files:write"),
            id="RS-33 RS-42 403",
        ),
        pytest.param(
            (),
            "invalid_token",
            "x",
            f'Bearer error="invalid_token", resource_metadata="{PRM}", error_description="x"',
            id="RS-36 an error and nothing to ask for",
        ),
        pytest.param(
            (), "invalid_token", None, f'Bearer error="invalid_token", resource_metadata="{PRM}"', id="no description"
        ),
        pytest.param((), None, "x", f'Bearer resource_metadata="{PRM}"', id="RS-33 no description without an error"),
        pytest.param(
            (),
            "invalid_token",
            "",
            f'Bearer error="invalid_token", resource_metadata="{PRM}"',
            id="an empty description",
        ),
    ],
)
def test_one_scheme(scope: tuple[str, ...], error: str | None, description: str | None, expected: str) -> None:
    assert lines(scope, error, description) == [expected]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        pytest.param('bad "tok" \\ é', "bad tok  ", id="RS-35 quotes, backslash, not ASCII"),
        pytest.param("needs scope=foo", "needs scopefoo", id="RS-37 a parameter's name in the text"),
        pytest.param('x", scope="evil', "x, scopeevil", id="RS-35 RS-37 breaking out of the quotes"),
        pytest.param("a\r\nX-Evil: y", "aX-Evil: y", id="RS-34 one physical line"),
        pytest.param("a\tb\x00c\x7f", "abc", id="RS-35 control characters"),
        pytest.param(" !#<>[]~", " !#<>[]~", id="RS-35 the borders of what is allowed"),
    ],
)
def test_descriptions(description: str, expected: str) -> None:
    expected_line = f'Bearer error="invalid_token", resource_metadata="{PRM}", error_description="{expected}"'
    assert lines((), "invalid_token", description) == [expected_line]


INVALID = f'error="invalid_token", resource_metadata="{PRM}", error_description="x"'
BLAMED_DPOP = f'DPoP error="invalid_token", algs="ES256", resource_metadata="{PRM}", error_description="x"'


@pytest.mark.parametrize(
    ("error", "used", "expected"),
    [
        pytest.param(
            None, None, [f'Bearer resource_metadata="{PRM}"', DPOP_LINE], id="RS-38 separate lines, Bearer first"
        ),
        pytest.param("invalid_token", b"bearer", [f"Bearer {INVALID}", DPOP_LINE], id="RS-38 Bearer was used"),
        pytest.param(
            "invalid_token", b"dpop", [f'Bearer resource_metadata="{PRM}"', BLAMED_DPOP], id="RS-38 DPoP was used"
        ),
        pytest.param("invalid_token", None, [f"Bearer {INVALID}", BLAMED_DPOP], id="RS-12 RS-38 the scheme is unknown"),
        pytest.param(
            "invalid_token", b"basic", [f'Bearer resource_metadata="{PRM}"', DPOP_LINE], id="RS-38 another was used"
        ),
    ],
)
def test_two_schemes(error: str | None, used: bytes | None, expected: list[str]) -> None:
    description = None if error is None else "x"
    assert lines((), error, description, used, schemes=(BEARER, DPOP)) == expected


@pytest.mark.requirement("RS-37")
def test_scope_stands_before_what_belongs_to_a_scheme() -> None:
    """`error, scope` first for every scheme, as in the literal exchange of RFC 9449 section 9."""
    expected = (
        f'DPoP error="use_dpop_nonce", scope="mcp:read", algs="ES256", resource_metadata="{PRM}", '
        'error_description="Resource server requires nonce in DPoP proof"'
    )
    found = lines(
        error="use_dpop_nonce",
        description="Resource server requires nonce in DPoP proof",
        schemes=(DPOP,),
        used=b"dpop",
    )
    assert found == [expected]


def test_the_key_of_a_scheme_is_what_the_reader_reports() -> None:
    assert (BEARER.key, DPOP.key) == (b"bearer", b"dpop")


# --- what clients read ----------------------------------------------------------------------------------------------

# Scopes without the name of a parameter in them: nothing can be done for one called `error=x`.
scopes = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\='), min_size=1, max_size=8
)
errors = st.sampled_from(
    [None, "invalid_request", "invalid_token", "insufficient_scope", "insufficient_user_authentication"]
)


@pytest.mark.requirement("RS-30", "RS-34", "RS-35", "RS-36", "RS-37", "RS-38")
@settings(max_examples=300, deadline=None)
@given(
    st.lists(scopes, max_size=4),
    errors,
    st.none() | st.text(max_size=30) | st.sampled_from(["needs scope=foo", 'error="x" resource_metadata=https://evil']),
    st.sampled_from([None, b"bearer", b"dpop"]),
    st.sampled_from([(BEARER,), (BEARER, DPOP)]),
)
@example(["a"], "invalid_token", "needs scope=foo", None, (BEARER,))
@example([], None, "error=x", None, (BEARER, DPOP))
def test_sdk_clients_read_the_true_values(
    scope: list[str],
    error: str | None,
    description: str | None,
    used: bytes | None,
    schemes: tuple[CredentialScheme, ...],
) -> None:
    """The values come back from our own reader too."""
    assert all(map(is_scope, scope))
    built = lines(tuple(scope), error, description, used, schemes=schemes)
    assert len(built) == len(schemes)
    for line, scheme in zip(built, schemes, strict=True):
        blamed = error if used in (None, scheme.key) else None
        assert sdk_reads(line, "scope") == (" ".join(scope) or None)
        assert sdk_reads(line, "error") == blamed
        assert sdk_reads(line, "resource_metadata") == PRM
        assert re.fullmatch(rf'{scheme.name} [a-z_]+="[\x20\x21\x23-\x5B\x5D-\x7E]*"(, [a-z_]+="[\x20-\x7E]*")*', line)
        names = re.findall(r'([a-z_]+)="', line)
        assert len(names) == len(set(names))
        order = [name for name in names if name != "algs"]
        assert order == [n for n in ("error", "scope", "resource_metadata", "error_description") if n in order]
        (read,) = parse_challenges(line)
        assert read.scheme == scheme.name
        assert list(read.params) == names
        assert (read.params.get("error"), read.params["resource_metadata"]) == (blamed, PRM)
    assert built[0].startswith("Bearer ")
    joined = ", ".join(built)  # what a client sees that joins the lines
    assert sdk_reads(joined, "scope") == (" ".join(scope) or None)
    assert sdk_reads(joined, "resource_metadata") == PRM
    assert parse_challenges(joined) == [challenge for line in built for challenge in parse_challenges(line)]


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(CH0, [Challenge("Bearer", {"scope": "mcp:read", "resource_metadata": PRM})], id="RS-30 ours"),
        pytest.param("Bearer", [Challenge("Bearer", {})], id="a bare scheme"),
        pytest.param('bearer Realm="x"', [Challenge("bearer", {"realm": "x"})], id="names in any case"),
        pytest.param("Bearer realm=x", [Challenge("Bearer", {"realm": "x"})], id="a value without quotes"),
        pytest.param('Bearer realm = "x"', [Challenge("Bearer", {"realm": "x"})], id="whitespace around ="),
        pytest.param('Bearer a="b,c", d="e"', [Challenge("Bearer", {"a": "b,c", "d": "e"})], id="a comma in quotes"),
        pytest.param(r'Bearer a="b\"c\\"', [Challenge("Bearer", {"a": 'b"c\\'})], id="quoted pairs"),
        pytest.param('Bearer a=""', [Challenge("Bearer", {"a": ""})], id="an empty value"),
        pytest.param(
            'Bearer a="b", DPoP c="d"', [Challenge("Bearer", {"a": "b"}), Challenge("DPoP", {"c": "d"})], id="two"
        ),
        pytest.param(
            'Negotiate, Bearer a="b"',
            [Challenge("Negotiate", {}), Challenge("Bearer", {"a": "b"})],
            id="a bare scheme before another (RFC 9110 section 11.6.1)",
        ),
        pytest.param('Bearer a="b",,  ,c="d"', [Challenge("Bearer", {"a": "b", "c": "d"})], id="empty list elements"),
        pytest.param('Bearer a="b", ???', [Challenge("Bearer", {"a": "b"})], id="stops at what it cannot read"),
        pytest.param('a="b"', [], id="a parameter without a scheme"),
    ],
)
def test_parse_challenges(value: str, expected: list[Challenge]) -> None:
    assert parse_challenges(value) == expected


names = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=6)
written = st.builds(
    Challenge,
    st.sampled_from(["Bearer", "DPoP", "Basic", "x"]),
    st.dictionaries(names, st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10), min_size=1),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(written, max_size=4))
def test_what_is_written_is_read_back(wanted: list[Challenge]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    value = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(text)}" for name, text in params.items()) for scheme, params in wanted
    )
    assert parse_challenges(value) == wanted


pieces = st.lists(st.sampled_from(["Bearer", " ", ",", "=", '"', "\\", "a", "é", "\n", "\x00", "scope"]), max_size=20)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | pieces.map("".join))
def test_anything_can_be_read(value: str) -> None:
    for challenge in parse_challenges(value):
        assert challenge.scheme in value
        assert all(name == name.lower() for name in challenge.params)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a" + " " * 40_000 + "=", id="spaces before ="),
        pytest.param("a " * 10_000, id="bare schemes"),
        pytest.param('Bearer a="' + "\\" * 20_000, id="backslashes"),
        pytest.param("Bearer " + "a" * 20_000, id="a long name"),
        pytest.param('Bearer a="b"' + "," * 20_000, id="commas"),
    ],
)
def test_long_values_are_fast(value: str) -> None:
    start = time.perf_counter()
    parse_challenges(value)
    assert time.perf_counter() - start < 0.5
