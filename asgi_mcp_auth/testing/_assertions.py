"""An assertion about the challenge of a response (RFC 9110 section 11.6.1, RFC 6750 section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from types import EllipsisType
from typing import Protocol

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges

__all__ = ("Headers", "Response", "assert_challenge")

MISDIRECTED = 421


class Headers(Protocol):
    """Header fields by name, in any case; a name may occur more than once."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return the name and value of each field line."""
        ...


class Response(Protocol):
    """A response of httpx, httpx2, requests, a framework's test client, or a `ToolCall`."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Headers:
        """The header fields."""
        ...


def assert_challenge(
    response: Response,
    status: int = 401,
    *,
    scheme: str = "Bearer",
    error: str | EllipsisType | None = ...,
    scopes: str | Iterable[str] | EllipsisType | None = ...,
    resource_metadata: str | EllipsisType | None = ...,
    **params: str | None,
) -> Challenge:
    """Assert that a response has this status and exactly one challenge of this scheme, with these parameters.

    Omitted arguments are not checked. None means that the parameter must be absent.

    Args:
        response: A response of httpx, httpx2, requests, of a test client of Starlette, FastAPI, Django or Werkzeug, or
            the result of `call_tool`.
        status: The HTTP status: 400, 401 or 403 (RFC 6750 section 3.1).
        scheme: The authentication scheme, in any case. Challenges of other schemes are ignored.
        error: The error code: None for a request without a token, `"invalid_token"`, `"insufficient_scope"`, ….
        scopes: The scopes in `scope`, in any order: `"notes:read notes:write"` or `["notes:read", "notes:write"]`.
        resource_metadata: The exact URL of the protected resource metadata (RFC 9728 section 5.1).
        params: Other parameters by name, in any case, such as `error_description`, `acr_values` or `max_age`.

    Returns:
        The challenge, for further assertions.

    Raises:
        AssertionError: The message lists all differences and the `WWW-Authenticate` lines.

    Not checked: the order of parameters, repeated parameters, text after the first syntax error, the body, and the
    document at `resource_metadata` (`walk_discovery` fetches it).
    """
    __tracebackhide__ = True  # so that pytest shows the line of the test
    sent = [value for name, value in response.headers.items() if name.lower() == "www-authenticate"]
    found = [challenge for value in sent for challenge in parse_challenges(value)]
    ours = [challenge for challenge in found if challenge.scheme.lower() == scheme.lower()]
    expected = {"error": error, "resource_metadata": resource_metadata} | params
    differences: list[str] = []
    if response.status_code != status:
        differences.append(f"status: expected {status}, found {response.status_code}")
    if response.status_code == MISDIRECTED:
        differences.append("Host: not allowed; pass base_url=base_url(auth) to the test client")
    if len(ours) != 1:
        schemes = ", ".join(challenge.scheme for challenge in found) or "no challenge"
        differences.append(f"scheme: expected one challenge of {scheme}, found {schemes}")
    else:
        differences += filter(None, (_differs(ours[0], name, value) for name, value in expected.items()))
        differences += filter(None, [_scopes_differ(ours[0], scopes)])
    if differences:
        listed = "\n".join(f"  {line}" for line in differences)
        lines = "\n".join(f"  WWW-Authenticate: {value}" for value in sent) or "  no WWW-Authenticate"
        msg = f"not the expected challenge:\n{listed}\nThe response has status {response.status_code} and\n{lines}"
        raise AssertionError(msg)
    return ours[0]


def _show(value: str | None) -> str:
    return "none" if value is None else f'"{value}"'


def _differs(challenge: Challenge, name: str, expected: str | EllipsisType | None) -> str | None:
    """Return how a parameter differs from the expected value, else None."""
    found = challenge.params.get(name.lower())
    if expected is ... or found == expected:
        return None
    return f"{name}: expected {_show(expected)}, found {_show(found)}"


def _scopes_differ(challenge: Challenge, expected: str | Iterable[str] | EllipsisType | None) -> str | None:
    """Return how the scopes differ, else None. Their order has no meaning (RFC 6749 section 3.3)."""
    if isinstance(expected, EllipsisType):
        return None
    text = challenge.params.get("scope")
    wanted = None if expected is None else expected.split() if isinstance(expected, str) else list(expected)
    if wanted is None or text is None:
        return _differs(challenge, "scope", None if wanted is None else " ".join(wanted))
    found = text.split(" ")
    missing = [scope for scope in wanted if scope not in found]
    more = [scope for scope in found if scope not in wanted]
    if not missing and not more:
        return None
    parts = [f"missing: {' '.join(missing)}"] * bool(missing) + [f"not expected: {' '.join(more)}"] * bool(more)
    return f"scope: expected {_show(' '.join(wanted))}, found {_show(text)} ({'; '.join(parts)})"
