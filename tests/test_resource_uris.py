"""The forms in which a server may read a resource's URI, compared with the parser of real servers."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, ValidationError

from asgi_mcp_auth._mcp.operations import MAX_URI_LENGTH
from asgi_mcp_auth._mcp.resource_uris import (
    MAX_FORMS,
    MAX_UNUSUAL_LENGTH,
    as_read,
    canonical,
    forms,
    is_usual,
    with_path,
    without_query,
)

SECRET = "file:///secret/a"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///secret/a",
        "notes://users/1?x=y#z",
        "https://api.example.com/a;b",
        "x:a",
        "urn:isbn:1",
        "ui://widget/a.html",
        "file:///a/b.c/",
        "x-y.z+1://h/a",
    ],
)
def test_usual(uri: str) -> None:
    assert is_usual(uri)
    assert str(AnyUrl(uri)) == uri


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("config://app", id="RS-192 no path"),
        pytest.param("config://App:8080", id="RS-192 a host in upper case and a port"),
        pytest.param("greeting://World?x#y", id="RS-192 a query after the host"),
        pytest.param("db://h/a%20b", id="RS-192 an encoded space"),
        pytest.param("db://h/a b", id="RS-192 a space"),
        pytest.param("db://h/%7Euser", id="RS-192 an encoded tilde"),
        pytest.param("db://h/100%25", id="RS-192 an encoded percent sign"),
        pytest.param("https://Example.com:8443/a", id="RS-192 a port of a special scheme"),
        pytest.param("https://Example.com", id="RS-192 a special scheme without a path"),
        pytest.param("notes://caf%C3%A9/caf\u00e9", id="RS-192 not ASCII"),
        pytest.param("db://u@h/a", id="RS-192 a user"),
    ],
)
def test_what_servers_read_alike_has_one_form(uri: str) -> None:
    read = {with_path(uri)} if is_usual(uri) else forms(uri)
    assert read == {canonical(uri)} == {canonical(str(AnyUrl(uri)))}


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        pytest.param("config://app", "config://app/", id="RS-192 an empty path"),
        pytest.param("https://example.com", "https://Example.COM:443/", id="RS-192 a default port"),
        pytest.param("x://h:0080/a", "x://h:80/a", id="RS-192 zeros"),
        pytest.param("db://h/%7e%41", "db://h/~A", id="RS-192 needless encoding"),
        pytest.param("db://h/\u00e9", "db://h/%c3%a9", id="RS-192 encoding of what is not ASCII"),
        pytest.param("db://h/a*b", "db://h/a%2Ab", id="RS-192 a wildcard as a character"),
    ],
)
def test_canonical(uri: str, same: str) -> None:
    assert canonical(uri) == canonical(same)


@pytest.mark.parametrize(
    ("uri", "other"),
    [
        pytest.param("db://h/a%2Fb", "db://h/a/b", id="RS-192 an encoded slash"),
        pytest.param("db://h/a%3Fb", "db://h/a?b", id="RS-192 an encoded question mark"),
        pytest.param("db://H/a", "db://h/a", id="RS-192 the host's case, where parsers keep it"),
        pytest.param("https://h:8443/", "https://h/", id="RS-192 another port"),
    ],
)
def test_what_servers_tell_apart_is_not_the_same(uri: str, other: str) -> None:
    assert canonical(uri) != canonical(other)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("db://sec%72et/cells", "db://secret/cells"),
        ("db://h/a%20b", "db://h/a b"),
        ("https://EXAMPLE.com", "https://example.com/"),
        ("config://App", "config://App"),
    ],
)
def test_as_a_function_of_the_server_gets_it(uri: str, expected: str) -> None:
    assert as_read(uri) == expected


def test_without_query() -> None:
    assert set(without_query("x://h/a?b#c")) == {"x://h/a?b", "x://h/a"}
    assert without_query("x://h/a#c?d") == ("x://h/a",)
    assert without_query("x://h/a") == ()


def test_a_long_unusual_uri_has_no_forms() -> None:
    assert forms("X://h/" + "a" * (MAX_UNUSUAL_LENGTH - 6)) is not None
    assert forms("X://h/" + "a" * MAX_UNUSUAL_LENGTH) is None
    assert forms("FILE:" + "%2525252e/\\.//C:/" * 20) is None  # too many of them


@pytest.mark.parametrize(
    ("uri", "reading"),
    [
        pytest.param("FILE:///secret/a", SECRET, id="RS-192 scheme"),
        pytest.param("file:/secret/a", SECRET, id="RS-192 a file without slashes"),
        pytest.param("file:secret/a", SECRET, id="RS-192 a file without any"),
        pytest.param("file:%5Csecret%5Ca", SECRET, id="RS-192 encoded backslashes"),
        pytest.param("file://localhost/secret/a", SECRET, id="RS-192 localhost"),
        pytest.param("file:////secret//a", SECRET, id="RS-192 slashes"),
        pytest.param("file:///x/../secret/./a", SECRET, id="RS-192 dots"),
        pytest.param("file:///x/%2E%2e/secret/a", SECRET, id="RS-192 encoded dots"),
        pytest.param("file:///secret%2Fa", SECRET, id="RS-192 an encoded slash"),
        pytest.param("file:///%2573ecret/a", SECRET, id="RS-192 encoded twice"),
        pytest.param("file:///C:/../x", "file:///C:/x", id="RS-192 a drive"),
        pytest.param("https:h/a", "https://h/a", id="RS-192 a host without slashes"),
        pytest.param("https:////h/a", "https://h/a", id="RS-192 a host behind too many"),
        pytest.param("https://H:443/a", "https://h/a", id="RS-192 the default port"),
        pytest.param("x://h:0080/a", "x://h:80/a", id="RS-192 zeros"),
        pytest.param("https://h", "https://h/", id="RS-192 no path"),
        pytest.param("x://h/\u00e9", "x://h/%C3%A9", id="RS-192 to be encoded"),
    ],
)
def test_readings(uri: str, reading: str) -> None:
    assert not is_usual(uri)
    assert {canonical(uri), canonical(reading)} <= (forms(uri) or set())


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("file:///secret/a\n", id="RS-192 a newline"),
        pytest.param("file:///sec%0Aret/a", id="RS-192 an encoded newline"),
        pytest.param("file:///secret/a%00", id="RS-192 NUL"),
        pytest.param(" file:///secret/a", id="RS-192 a space"),
        pytest.param("x:%25252541", id="RS-192 encoded four times"),
        pytest.param("file:\\secret\\a", id="RS-192 backslashes"),
        pytest.param("file:///C|/a", id="RS-192 a drive of old"),
        pytest.param("http://127.0.0.1./a", id="RS-192 a dot behind an address"),
        pytest.param("file://C:/a", id="RS-192 a drive for a host"),
        pytest.param("http://127.1/a", id="RS-192 a short address"),
        pytest.param("http://2130706433/a", id="RS-192 an address in one number"),
        pytest.param("http://0x7f.1/a", id="RS-192 an address in base 16"),
        pytest.param("http:0x7f.1/a", id="RS-192 one without slashes"),
        pytest.param("http://[0::1]/a", id="RS-192 an address in brackets"),
        pytest.param("http://\uff48/a", id="RS-192 a look-alike host"),
        pytest.param("http://%EF%BD%88/a", id="RS-192 an encoded look-alike host"),
    ],
)
def test_not_to_be_read(uri: str) -> None:
    assert not is_usual(uri)
    assert forms(uri) is None


PARTS = st.sampled_from(
    [
        *("file:", "http:", "HTTPS:", "x:", "ws:", "//", "/", "\\", "..", ".", "%2e", "%2F", "%41", "%25", "%"),
        *("h", "H.example", "localhost", "127.0.0.1", "1", "0x1", ":80", ":", ":0443", "@", "u", "?", "#", "q", "a"),
        *("C:", "C|", "[::1]", "\u00e9", "|", "^", "`", "'", "~", ";", "=", "&", "+", "*", ",", "!", "$", "("),
    ]
)
URIS = st.lists(PARTS, min_size=1, max_size=8).map("".join)


@settings(deadline=None, max_examples=2000)
@given(st.builds("{}{}".format, st.sampled_from(["file:", "http:", "https://", "x:", "x://", "ws:", ""]), URIS))
@example("file:/secret/a")
@example("http:example.com/x")
@example("http://0x7f.1/a")
def test_what_pydantic_reads_was_among_the_forms(uri: str) -> None:
    try:
        read = str(AnyUrl(uri))
    except ValidationError:
        return
    if is_usual(uri):
        assert read == uri
        return
    found = forms(uri)
    assert found is None or canonical(read) in found


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | URIS)
def test_any_text_has_forms_or_none(uri: str) -> None:
    found = forms(uri)
    assert found is None or canonical(uri) in found
    assert len(found or ()) <= MAX_FORMS
    assert canonical(canonical(uri)) == canonical(uri)
    for form in found or ():
        assert canonical(form) == form


@pytest.mark.parametrize(
    "unit", ["%41", "a/../", "%2541/", "\u00e9", "//", "[", "@", "a.", "1.", "\\", "a:", "{a}"], ids="RS-192 {}".format
)
def test_a_long_uri_takes_linear_time(unit: str) -> None:
    for start in ("x://h/", "file:", "http://", ""):
        uri = (start + unit * MAX_URI_LENGTH)[:MAX_URI_LENGTH]
        began = time.perf_counter()
        is_usual(uri)
        forms(uri)
        canonical(uri)
        assert time.perf_counter() - began < 0.5
