"""The doctor's checks on arbitrary responses: no exception, bounded findings, and a complete list of codes."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asgi_mcp_auth.doctor
from asgi_mcp_auth.doctor import CODES, Finding, Report, Severity, examine
from asgi_mcp_auth.doctor._challenge import check_challenge, metadata_parameter
from asgi_mcp_auth.doctor._documents import (
    KEY_SET,
    RESOURCE_METADATA,
    SERVER_METADATA,
    DocumentType,
    cors,
    lifetime,
    preflight,
    read_document,
)
from asgi_mcp_auth.doctor._findings import found
from asgi_mcp_auth.doctor._keys import check_keys, check_lifetime
from asgi_mcp_auth.doctor._resource import (
    check_app,
    check_foreign_origin,
    check_invalid_token,
    check_unauthenticated,
    uses_this_library,
)
from asgi_mcp_auth.doctor._resource_metadata import MAX_SERVERS, check_document, well_known_urls
from asgi_mcp_auth.doctor._server_metadata import check_issuer_member, check_provider, check_server, read_metadata
from asgi_mcp_auth.doctor._web import Answer
from asgi_mcp_auth.errors import ConfigurationError

SOURCES = Path(str(asgi_mcp_auth.doctor.__file__)).parent

URL = "https://mcp.example.com/mcp"
TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MEMBERS = (
    *("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "registration_endpoint", "scopes_supported"),
    *("response_types_supported", "grant_types_supported", "code_challenge_methods_supported", "protected_resources"),
    *("client_id_metadata_document_supported", "token_endpoint_auth_methods_supported", "resource"),
    *("authorization_servers", "bearer_methods_supported", "keys"),
)
DOCUMENTS = st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=8) | st.dictionaries(TEXT, JSON, max_size=4)
KEYS = st.dictionaries(
    st.sampled_from(("kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d", "issuer")),
    JSON | st.sampled_from(("RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "RS256", "sig", "AQAB")),
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("www-authenticate", "content-type", "cache-control", "location", "access-control-allow-origin"),
                *("access-control-allow-headers", "content-encoding", "expires", "age"),
            )
        ),
        TEXT
        | st.text(alphabet='Bearer scope="=,\\ error_description', max_size=80)
        | st.sampled_from(("*", 'Bearer scope="a"', "Bearer", "application/json", "text/html", "max-age=1")),
    ),
    max_size=6,
).map(tuple)
ANSWERS = st.builds(
    Answer,
    url=st.just(URL) | TEXT,
    status=st.sampled_from((0, 200, 204, 301, 401, 403, 404, 500, 503)),
    fields=FIELDS,
    body=st.none() | st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode()),
    failure=st.none() | TEXT,
    decoded=st.booleans(),
    withheld=st.booleans(),
)


def assert_valid(findings: Iterable[Finding]) -> None:
    """Assert what every finding guarantees."""
    for finding in findings:
        assert finding.code in CODES
        for text in (finding.subject, finding.evidence):
            assert len(text) <= 500
            assert text.isascii()
            assert text.isprintable()
        json.dumps(finding.to_dict())


@settings(deadline=None)
@given(ANSWERS, st.sampled_from((SERVER_METADATA, KEY_SET, RESOURCE_METADATA)))
def test_any_answer(answer: Answer, kind: DocumentType) -> None:
    fetched = read_document(answer, kind)
    assert_valid(fetched.findings)
    assert (fetched.document is None) <= bool(fetched.findings)
    assert_valid(cors(answer, "it"))
    assert_valid(preflight(answer, "it", "x"))
    assert_valid(check_lifetime(lifetime(answer), answer.url))
    for url in (URL, answer.url):
        for sent in (False, True):
            assert_valid(check_challenge(answer, url, token_sent=sent))
        assert_valid(check_unauthenticated(answer, url))
        assert_valid(check_invalid_token(answer, url))
        assert_valid(check_foreign_origin(answer, url))
        assert_valid(check_app(answer, url, "token"))
    metadata_parameter(answer)
    uses_this_library(answer)


def test_no_document_floods_a_report() -> None:
    servers = [f"http://{number}.example.com" for number in range(10_000)]
    document = {"resource": URL, "authorization_servers": servers}
    assert len(list(check_document(document, URL, URL))) == MAX_SERVERS


@settings(deadline=None)
@given(DOCUMENTS, TEXT)
def test_any_document(document: dict[str, Any], text: str) -> None:
    assert_valid(check_issuer_member(document, text, URL))
    metadata, findings = read_metadata({"issuer": "https://a.example", **document}, URL)
    assert_valid(findings)
    assert (metadata is None) <= any(finding.severity is Severity.ERROR for finding in findings)
    if metadata is not None:
        assert_valid(check_server(metadata, URL, {text: [text]}))
    for resource in (URL, text):
        assert_valid(check_document(document, resource, URL))
    assert_valid(check_provider(text))
    well_known_urls(text)


@settings(deadline=None)
@given(JSON | st.lists(KEYS, max_size=5))
def test_any_key_set(keys: Any) -> None:
    assert_valid(check_keys({"keys": keys}, URL))


@settings(max_examples=60, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=5), st.sampled_from((None, "issuer", "resource")))
def test_every_sequence_of_answers_gives_a_report(answers: list[Answer], kind: Any) -> None:
    turns = itertools.cycle(answers)

    def respond(request: httpx.Request) -> httpx.Response:
        answer = next(turns)
        if answer.failure is not None:
            raise httpx.ReadError(answer.failure, request=request)
        fields = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.fields]
        return httpx.Response(answer.status or 200, headers=fields, stream=httpx.ByteStream(answer.body or b""))

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(respond))

    (report,) = anyio.run(lambda: examine([URL], kind, http_client=client))
    assert report.findings
    assert_valid(report.findings)


def test_a_long_challenge_is_quick() -> None:
    for piece in ('"', "\\", 'a="', "a=", "a ", '"\\'):
        assert_valid(check_challenge(Answer(URL, 401, (("www-authenticate", "Bearer " + piece * 30_000),)), URL))


def test_codes_are_unique_and_complete() -> None:
    names = [code.name for code in CODES]
    assert len(set(names)) == len(names)
    for code in CODES:
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", code.name)
        assert code.means
        assert (code.severity in (Severity.OK, Severity.INFO)) or code.fix


def test_every_code_is_listed_and_used_by_a_check() -> None:
    checks = "".join(path.read_text("utf-8") for path in SOURCES.glob("*.py") if not path.name.endswith("_codes.py"))
    for module in ("_issuer_codes", "_key_codes", "_resource_codes", "_challenge_codes"):
        text = (SOURCES / f"{module}.py").read_text("utf-8")
        for name in re.findall(r"^([A-Z0-9_]+): Final = Code\(", text, re.MULTILINE):
            assert getattr(getattr(asgi_mcp_auth.doctor, module), name) in CODES
            assert re.search(rf"codes\.{name}\b|import {name}\b", checks), f"no check yields {module}.{name}"


def test_a_finding_cannot_be_changed() -> None:
    finding: Any = found(CODES[0], URL, "\x1b[2J" * 300)
    with pytest.raises(AttributeError):
        finding.evidence = ""
    assert finding.evidence.endswith("...")


def test_a_report_lists_errors_first_and_each_finding_once() -> None:
    by_severity = {severity: [code for code in CODES if code.severity is severity] for severity in Severity}
    mixed = [by_severity[severity][number] for number in range(2) for severity in reversed(Severity)]
    report = Report.of(URL, None, [found(code, URL) for code in (*mixed, *mixed)])
    assert [finding.code for finding in report.findings] == [
        code for severity in Severity for code in by_severity[severity][:2]
    ]


# description, status, kind of document, what the fix says, RFC
STATUSES = [
    pytest.param(404, KEY_SET, "Serve the key set at this URL, or fix `jwks_uri`.", "RFC 7517 5", id="key set 404"),
    pytest.param(410, KEY_SET, "Serve the key set at this URL, or fix `jwks_uri`.", "RFC 7517 5", id="key set 410"),
    pytest.param(404, RESOURCE_METADATA, "fix `resource_metadata` in the challenge.", "RFC 9728 3.2", id="resource metadata 404"),
    pytest.param(404, SERVER_METADATA, "fix the URL that names it (`metadata_url`).", "RFC 8414 3.2", id="server metadata 404"),
    pytest.param(401, KEY_SET, "Serve the key set to clients without a token.", "RFC 7517 5", id="401"),
    pytest.param(429, KEY_SET, "rate limit", "RFC 7517 5", id="429"),
    pytest.param(502, KEY_SET, "Fix the server's error.", "RFC 7517 5", id="key set 502"),
    pytest.param(502, SERVER_METADATA, "or answer 404 if there is no metadata at this URL.", "RFC 8414 3.2", id="server metadata 502"),
    pytest.param(204, KEY_SET, "Answer 200 with the key set.", "RFC 7517 5", id="204"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "fix", "reference"), STATUSES)
def test_the_fix_of_a_wrong_status_fits_the_status_and_the_document(
    status: int, kind: DocumentType, fix: str, reference: str
) -> None:
    (finding,) = read_document(Answer(URL, status, body=b""), kind).findings
    assert (finding.code.name, finding.reference) == ("error_status", reference)
    assert fix in finding.fix
    assert status != 404 or "404" not in finding.fix


# location, whether the redirect only adds or removes a slash
REDIRECTS = [
    pytest.param("/mcp/", True, id="path"),
    pytest.param("https://mcp.example.com/mcp/", True, id="URL"),
    pytest.param("http://mcp.example.com/mcp/", True, id="http behind a TLS proxy"),
    pytest.param("/mcp/?a=b", True, id="with a query"),
    pytest.param("/login", False, id="another path"),
    pytest.param("https://other.example.com/mcp/", False, id="another host"),
    pytest.param("/mcp", False, id="itself"),
    pytest.param("http://[", False, id="not a URL"),
]


@pytest.mark.parametrize(("location", "slash"), REDIRECTS)
def test_a_redirect_of_the_app_to_itself_with_a_slash_is_recognised(location: str, slash: bool) -> None:
    for url in (URL, f"{URL}/") if slash and location == "/mcp/" else (URL,):
        target = location if url == URL else "/mcp"
        (finding,) = check_app(Answer(url, 307, (("location", target),)), url, "token")
        assert finding.code.name == ("app_redirects_slash" if slash else "app_wrong_status")


@pytest.mark.anyio
@pytest.mark.parametrize("token", ["", "a b", "a\r\nx: y", "\u00e9", "x" * 20_000])
async def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="not an access token"):
        await examine([URL], token=token)


def test_importing_the_doctor_prints_nothing_and_needs_no_extra() -> None:
    unwanted = ["uvicorn", "starlette", "mcp", "asgi_mcp_auth.cli", "asgi_mcp_auth.testing"]  # httpx imports click
    program = f"import sys, asgi_mcp_auth.doctor; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
