"""URLs as identifiers: parsing, comparing resources, well-known places (requirements A4 and A6)."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.urls import (
    PROTECTED_RESOURCE,
    Url,
    discovery_urls,
    insert_well_known,
    is_loopback,
    mask_userinfo,
    parse_url,
    redact_url,
    same_resource,
)
from asgi_mcp_auth._policy.problems import Referenced, show, show_url
from asgi_mcp_auth.config import AuthServerConfig, AuthServerType

OAUTH: Final = "/.well-known/oauth-authorization-server"
OIDC: Final = "/.well-known/openid-configuration"


def url(text: str) -> Url:
    parsed = parse_url(text)
    assert parsed is not None, text
    return parsed


ACCEPTED = [
    pytest.param("https://mcp.example.com", Url("https", "mcp.example.com", None, "", None, None), id="bare host"),
    pytest.param("https://mcp.example.com/", Url("https", "mcp.example.com", None, "/", None, None), id="root path"),
    pytest.param(
        "HTTPS://MCP.Example.com/Mcp",
        Url("https", "mcp.example.com", None, "/Mcp", None, None),
        id="RS-100 scheme and host fold, the path does not",
    ),
    pytest.param("https://h:443/x", Url("https", "h", None, "/x", None, None), id="RS-100 default https port dropped"),
    pytest.param("http://h:80/x", Url("http", "h", None, "/x", None, None), id="RS-100 default http port dropped"),
    pytest.param("wss://h:443/x", Url("wss", "h", None, "/x", None, None), id="default wss port dropped"),
    pytest.param("https://h:80/x", Url("https", "h", 80, "/x", None, None), id="RS-101 another scheme's port kept"),
    pytest.param("https://h:65535", Url("https", "h", 65535, "", None, None), id="largest port"),
    pytest.param("https://[::1]:8000/x", Url("https", "[::1]", 8000, "/x", None, None), id="IPv6"),
    pytest.param("https://127.0.0.1/x", Url("https", "127.0.0.1", None, "/x", None, None), id="IPv4"),
    pytest.param("https://h/a%2Fb", Url("https", "h", None, "/a%2Fb", None, None), id="percent-encoding kept"),
    pytest.param("https://h/a?b=c&d", Url("https", "h", None, "/a", "b=c&d", None), id="query"),
    pytest.param("https://h/a?", Url("https", "h", None, "/a", "", None), id="empty query is a query"),
    pytest.param("https://h/a#f", Url("https", "h", None, "/a", None, "f"), id="fragment"),
    pytest.param("https://h/a#", Url("https", "h", None, "/a", None, ""), id="empty fragment is a fragment"),
    pytest.param("https://h?q#f", Url("https", "h", None, "", "q", "f"), id="query and fragment without a path"),
    pytest.param("cursor+x.y-1://h/x", Url("cursor+x.y-1", "h", None, "/x", None, None), id="a private scheme"),
]

REFUSED = [
    pytest.param("", id="empty"),
    pytest.param("mcp.example.com", id="RS-7 no scheme"),
    pytest.param("/mcp", id="relative"),
    pytest.param("//mcp.example.com/mcp", id="scheme-relative"),
    pytest.param("https:/mcp.example.com", id="one slash"),
    pytest.param("https://", id="no host"),
    pytest.param("https:///mcp", id="empty host"),
    pytest.param("https://u@h/mcp", id="RS-7 userinfo"),
    pytest.param("https://u:p@h/mcp", id="RS-7 user and password"),
    pytest.param("https://@h/mcp", id="RS-7 empty userinfo"),
    pytest.param("https://h:/mcp", id="empty port"),
    pytest.param("https://h:0/mcp", id="port 0"),
    pytest.param("https://h:65536/mcp", id="port 65536"),
    pytest.param("https://h:8O/mcp", id="port with a letter"),
    pytest.param("https://h:٤٤٣/mcp", id="port in Arabic digits"),
    pytest.param("https://h:-1/mcp", id="negative port"),
    pytest.param(" https://h/mcp", id="leading space"),
    pytest.param("https://h/mcp ", id="trailing space"),
    pytest.param("https://h/mcp\n", id="trailing newline"),
    pytest.param("https://h/a b", id="space in the path"),
    pytest.param("https://h/a\tb", id="tab in the path"),
    pytest.param("https://h/a\x00b", id="NUL in the path"),
    pytest.param("https://h/é", id="not ASCII in the path"),
    pytest.param("https://exämple.com/", id="not ASCII in the host"),
    pytest.param("https://h/a%2", id="cut percent-encoding"),
    pytest.param("https://h/a%zz", id="wrong percent-encoding"),
    pytest.param("https://h%2eexample/", id="percent-encoding in the host"),
    pytest.param("https://h\\@evil/", id="backslash"),
    pytest.param('https://h/"', id="quotation mark"),
    pytest.param("https://h/<x>", id="angle brackets"),
    pytest.param("https://h/a#b#c", id="two fragments"),
    pytest.param("https://[::1/mcp", id="unclosed IPv6"),
    pytest.param("https://[::g]/mcp", id="IPv6 with a wrong digit"),
    pytest.param("https://[1]/mcp", id="IPv6 that is none"),
    pytest.param("https://[::1%25eth0]/mcp", id="IPv6 zone"),
    pytest.param("https://256.0.0.1/mcp", id="IPv4 out of range"),
    pytest.param("https://127.1/mcp", id="IPv4 short form"),
    pytest.param("https://2130706433/mcp", id="IPv4 as one number"),
    pytest.param("https://0127.0.0.1/mcp", id="IPv4 with a leading zero"),
    pytest.param("1https://h/mcp", id="scheme begins with a digit"),
    pytest.param("urn:x:mcp", id="a URN is no resource identifier"),
    pytest.param("api:guid", id="no authority"),
    pytest.param("mailto:a@example.com", id="mailto"),
    pytest.param("javascript:alert(1)", id="javascript"),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED)
def test_a_url_is_read(text: str, expected: Url) -> None:
    assert parse_url(text) == expected


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_url_is_refused_not_repaired(text: str) -> None:
    assert parse_url(text) is None


@pytest.mark.parametrize(
    ("text", "origin", "written"),
    [
        pytest.param("HTTPS://H:443/A?b#c", "https://h", "https://h/A?b#c", id="default port"),
        pytest.param("https://h:8443", "https://h:8443", "https://h:8443", id="other port"),
        pytest.param("http://[::1]:8000/x", "http://[::1]:8000", "http://[::1]:8000/x", id="IPv6"),
        pytest.param("https://h/?#", "https://h", "https://h/?#", id="empty query and fragment stay"),
    ],
)
def test_origin_and_text(text: str, origin: str, written: str) -> None:
    assert (url(text).origin, str(url(text))) == (origin, written)


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        st.text(max_size=40),
        st.text(alphabet="htps:/.@[]%?#123aA\\ \n\té", max_size=40).map("https://h".__add__),
        st.from_regex(r"https?://[a-z0-9.\-]{1,12}(:[0-9]{1,6})?(/[a-zA-Z0-9%~.]{0,6}){0,3}", fullmatch=True),
    )
)
def test_any_text_is_a_url_or_none_and_writing_it_is_stable(text: str) -> None:
    parsed = parse_url(text)
    if parsed is None:
        return
    assert parse_url(str(parsed)) == parsed
    assert str(parsed).isascii()
    assert not {" ", "\t", "\r", "\n", "@"} & set(parsed.authority)
    assert same_resource(text, parsed)


LOOPBACK = [
    pytest.param("localhost", True, id="RS-7 localhost"),
    pytest.param("127.0.0.1", True, id="RS-7 127.0.0.1"),
    pytest.param("127.255.255.254", True, id="RS-7 127.0.0.0/8"),
    pytest.param("[::1]", True, id="RS-7 ::1"),
    pytest.param("[0:0:0:0:0:0:0:1]", True, id="RS-7 ::1 written out"),
    pytest.param("128.0.0.1", False, id="RS-7 beside the block"),
    pytest.param("0.0.0.0", False, id="RS-7 unspecified"),
    pytest.param("10.0.0.1", False, id="RS-7 private"),
    pytest.param("[::]", False, id="RS-7 IPv6 unspecified"),
    pytest.param("localhost.evil.example", False, id="RS-7 localhost as a label"),
    pytest.param("127.0.0.1.evil.example", False, id="RS-7 an address as labels"),
    pytest.param("localhost.", False, id="RS-7 trailing dot"),
    pytest.param("mylocalhost", False, id="RS-7 a suffix"),
    pytest.param("", False, id="empty"),
    pytest.param("[]", False, id="empty brackets"),
]


@pytest.mark.parametrize(("host", "expected"), LOOPBACK)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


ROOT: Final = "https://mcp.example.com"
ROOT_SLASH: Final = "https://mcp.example.com/"
MCP: Final = "https://mcp.example.com/mcp"

SAME = [
    pytest.param(ROOT, "https://mcp.example.com", True, id="RS-100 identical"),
    pytest.param(ROOT, "https://mcp.example.com/", True, id="RS-100 root slash"),
    pytest.param(ROOT_SLASH, "https://mcp.example.com", True, id="RS-100 root slash configured"),
    pytest.param(ROOT, "HTTPS://MCP.example.com", True, id="RS-100 upper case"),
    pytest.param(ROOT, "https://mcp.example.com:443", True, id="RS-100 default port"),
    pytest.param(ROOT, "https://mcp.example.com:443/", True, id="RS-100 default port and slash"),
    pytest.param(MCP, "https://mcp.example.com/mcp", True, id="RS-100 with a path"),
    pytest.param(MCP, "Https://Mcp.Example.Com:443/mcp", True, id="RS-100 with a path, folded"),
    pytest.param(MCP, "https://mcp.example.com", False, id="RS-101 parent"),
    pytest.param(MCP, "https://mcp.example.com/", False, id="RS-101 root"),
    pytest.param(MCP, "https://mcp.example.com/mcp/", False, id="RS-101 trailing slash"),
    pytest.param(MCP + "/", "https://mcp.example.com/mcp", False, id="RS-101 trailing slash configured"),
    pytest.param(MCP, "https://mcp.example.com/mcp/x", False, id="RS-101 child"),
    pytest.param(MCP, "https://mcp.example.com/mcp2", False, id="RS-101 longer name"),
    pytest.param(MCP, "https://mcp.example.com/mc", False, id="RS-101 shorter name"),
    pytest.param(MCP, "https://mcp.example.com/other", False, id="RS-101 sibling"),
    pytest.param(MCP, "https://mcp.example.com/mcp?client=codex", False, id="RS-101 query"),
    pytest.param(MCP, "https://mcp.example.com/mcp?", False, id="RS-101 empty query"),
    pytest.param(MCP, "https://mcp.example.com/mcp#f", False, id="RS-101 fragment"),
    pytest.param(MCP, "https://mcp.example.com/mcp#", False, id="RS-101 empty fragment"),
    pytest.param(MCP, "http://mcp.example.com/mcp", False, id="RS-101 http"),
    pytest.param(MCP, "wss://mcp.example.com/mcp", False, id="RS-101 wss"),
    pytest.param(MCP, "http://mcp.example.com:443/mcp", False, id="RS-101 http on 443"),
    pytest.param(MCP, "https://mcp.example.com:8443/mcp", False, id="RS-101 port"),
    pytest.param(MCP, "https://mcp.example.com/MCP", False, id="RS-101 path case"),
    pytest.param(MCP, "https://mcp.example.com/%6dcp", False, id="RS-101 percent-encoding"),
    pytest.param(MCP, "https://mcp.example.com//mcp", False, id="RS-101 doubled slash"),
    pytest.param(MCP, "https://mcp.example.com/./mcp", False, id="RS-101 dot segment"),
    pytest.param(MCP, "https://mcp.example.com./mcp", False, id="RS-101 trailing dot"),
    pytest.param(MCP, "https://example.com/mcp", False, id="RS-101 parent domain"),
    pytest.param(MCP, "https://x.mcp.example.com/mcp", False, id="RS-101 sub-domain"),
    pytest.param(MCP, "https://u@mcp.example.com/mcp", False, id="RS-101 userinfo"),
    pytest.param(MCP, "https://mcp.example.com.evil.example/mcp", False, id="RS-101 suffix"),
    pytest.param(MCP, "https://evil.example/https://mcp.example.com/mcp", False, id="RS-101 superset"),
    pytest.param(MCP, " https://mcp.example.com/mcp", False, id="RS-101 space"),
    pytest.param(MCP, "", False, id="RS-101 empty"),
    pytest.param(MCP, "urn:x:mcp", False, id="RS-101 no URL"),
]


@pytest.mark.parametrize(("resource", "audience", "expected"), SAME)
def test_an_audience_names_the_resource(resource: str, audience: str, expected: bool) -> None:
    assert same_resource(audience, url(resource)) is expected


INSERTED = [
    pytest.param("https://mcp.example.com", "https://mcp.example.com" + PROTECTED_RESOURCE, id="RS-50 root"),
    pytest.param("https://mcp.example.com/", "https://mcp.example.com" + PROTECTED_RESOURCE, id="RS-50 root slash"),
    pytest.param(
        "https://mcp.example.com/mcp",
        "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        id="RS-50 path",
    ),
    pytest.param(
        "https://mcp.example.com/mcp/",
        "https://mcp.example.com/.well-known/oauth-protected-resource/mcp/",
        id="RS-50 the slash of a path stays",
    ),
    pytest.param(
        "https://mcp.example.com/server/mcp",
        "https://mcp.example.com/.well-known/oauth-protected-resource/server/mcp",
        id="RS-50 longer path",
    ),
    pytest.param(
        "https://mcp.example.com:8443/mcp",
        "https://mcp.example.com:8443/.well-known/oauth-protected-resource/mcp",
        id="RS-50 port kept",
    ),
    pytest.param(
        "https://mcp.example.com:443/mcp",
        "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        id="RS-50 default port dropped",
    ),
    pytest.param(
        "https://mcp.example.com/mcp?tenant=a",
        "https://mcp.example.com/.well-known/oauth-protected-resource/mcp?tenant=a",
        id="RS-50 query after the path",
    ),
    pytest.param(
        "https://mcp.example.com/?tenant=a",
        "https://mcp.example.com/.well-known/oauth-protected-resource?tenant=a",
        id="RS-50 query without a path",
    ),
    pytest.param(
        "https://mcp.example.com/a%2Fb",
        "https://mcp.example.com/.well-known/oauth-protected-resource/a%2Fb",
        id="RS-50 percent-encoding kept",
    ),
    pytest.param(
        "HTTPS://MCP.Example.com/mcp",
        "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        id="RS-50 case folded",
    ),
    pytest.param(
        "http://localhost:8000/mcp",
        "http://localhost:8000/.well-known/oauth-protected-resource/mcp",
        id="RS-50 loopback",
    ),
]


@pytest.mark.parametrize(("resource", "expected"), INSERTED)
def test_the_metadata_place_of_a_resource(resource: str, expected: str) -> None:
    assert insert_well_known(url(resource), PROTECTED_RESOURCE) == expected


AUTH: Final = "https://auth.example.com"
AUTH_PORT: Final = "https://auth.example.com:8443"
ENTRA: Final = "https://login.microsoftonline.com"
TENANT: Final = "/6babcaad-604b-40ac-a9d7-9fd97c0b779f/v2.0"

DISCOVERED = [
    pytest.param(AUTH, None, (AUTH + OAUTH, AUTH + OIDC), id="DC-1 no path: two probes"),
    pytest.param(AUTH + "/", None, (AUTH + OAUTH, AUTH + OIDC), id="DC-1 root slash: two probes"),
    pytest.param(
        AUTH + "/tenant1",
        None,
        (f"{AUTH}{OAUTH}/tenant1", f"{AUTH}{OIDC}/tenant1", f"{AUTH}/tenant1{OIDC}"),
        id="DC-1 path: three probes in MCP order",
    ),
    pytest.param(
        AUTH + "/tenant1/",
        None,
        (f"{AUTH}{OAUTH}/tenant1", f"{AUTH}{OIDC}/tenant1", f"{AUTH}/tenant1{OIDC}"),
        id="DC-1 trailing slash dropped while building",
    ),
    pytest.param(
        AUTH_PORT + "/t",
        None,
        (f"{AUTH_PORT}{OAUTH}/t", f"{AUTH_PORT}{OIDC}/t", f"{AUTH_PORT}/t{OIDC}"),
        id="DC-1 port kept",
    ),
    pytest.param(
        ENTRA + TENANT,
        None,
        (f"{ENTRA}{OAUTH}{TENANT}", f"{ENTRA}{OIDC}{TENANT}", f"{ENTRA}{TENANT}{OIDC}"),
        id="DC-1 Entra",
    ),
    pytest.param(
        "https://x.okta.com/oauth2/aus1",
        AuthServerType.OIDC,
        (f"https://x.okta.com/oauth2/aus1{OIDC}",),
        id="DC-1 Okta: type OIDC appends",
    ),
    pytest.param(
        "https://x.supabase.co/auth/v1",
        AuthServerType.OAUTH,
        (f"https://x.supabase.co{OAUTH}/auth/v1",),
        id="DC-1 Supabase: type OAUTH inserts",
    ),
    pytest.param(AUTH + "/", AuthServerType.OIDC, (AUTH + OIDC,), id="DC-1 Auth0: type OIDC, root slash"),
    pytest.param(AUTH, AuthServerType.OAUTH, (AUTH + OAUTH,), id="DC-1 type OAUTH, no path"),
]


@pytest.mark.parametrize(("issuer", "kind", "expected"), DISCOVERED)
def test_where_an_issuer_is_looked_for(issuer: str, kind: AuthServerType | None, expected: tuple[str, ...]) -> None:
    assert discovery_urls(url(issuer), kind) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("https://h/x", "https://h/x", id="nothing to mask"),
        pytest.param("https://u:p@h/x", "https://...@h/x", id="user and password"),
        pytest.param("https://u:p/q@h/x", "https://...@h/x", id="a slash in the password"),
        pytest.param("https://u:1/q@h/x", "https://...@h/x", id="a password that begins like a port"),
        pytest.param("https://u:p@q@h/x", "https://...@h/x", id="an @ in the password"),
        pytest.param("https://u:p?q#r@h/x", "https://...@h/x", id="? and # in the password"),
        pytest.param("https://u:p\nq@h/x", "https://...@h/x", id="a line break in the password"),
        pytest.param("//u:p@h/x", "//...@h/x", id="no scheme"),
        pytest.param("u:p@h", "u:...@h", id="no slashes"),
        pytest.param("redis://:p@h:1/0", "redis://...@h:1/0", id="no user"),
    ],
)
def test_user_information_is_masked_up_to_the_last_at_sign(text: str, shown: str) -> None:
    assert mask_userinfo(text) == shown
    assert show(text) == repr(shown)


def test_user_information_is_masked_before_a_text_is_cut() -> None:
    assert show("https://user:" + "s3cret" * 100 + "@h/" + "x" * 200) == repr("https://...@h/" + "x" * 114 + "...")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("https://h/x?code=s3cret", "https://h/x?...", id="a query"),
        pytest.param("https://h/x#s3cret", "https://h/x?...", id="a fragment"),
        pytest.param("https://u:s3cret@h/x?code=s3cret", "https://...@h/x?...", id="user information and a query"),
        pytest.param("https://h/x?mail=a@s3", "https://...@s3", id="an @ in the query"),
        pytest.param("https://h/\n", "https://h/\\n", id="escaped"),
    ],
)
def test_a_url_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert redact_url(text) == show_url(text) == shown
    referenced = Referenced(text, "from_env = 'X'")
    assert show_url(referenced) == "(from_env = 'X')"
    assert repr(AuthServerConfig(jwks_uri=referenced)).count("jwks_uri=<from_env = 'X'>") == 1
