"""Client id metadata documents (draft-ietf-oauth-client-id-metadata-document): a client that is its own URL.

The URL is judged before anything is fetched (section 3); the fetch has no redirects, only 200, only JSON, at most 5 KiB
and 5 seconds, and no address but public ones and, where nobody else asks for it, this machine's (section 4); what comes
back has to name the URL to the letter (section 4.1). Documents are kept for as long as their headers say, between five
minutes and a day; errors never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from asgi_mcp_auth._keys.http import ClientFactory, Fetched, Fetcher, UntrustedLimits
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth.dev.clients import Client, ClientRules, read_client
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.memory import Bounded
from asgi_mcp_auth.errors import DiscoveryError

__all__ = ("ClientDocuments", "read_document", "why_not_client_url")

BOUNDS: Final = UntrustedLimits(max_bytes=5 * 1024, seconds=5.0)
SHORTEST, LONGEST = 300.0, 86_400.0
MAX_KEPT = 256
MAX_AT_ONCE = 8
MAX_URL = 2048


def why_not_client_url(client_id: str, *, insecure: bool) -> str | None:
    """Why a URL cannot be a client id, or None (section 3).

    Args:
        client_id: The URL.
        insecure: Whether http to this machine is accepted too.
    """
    url = parse_url(client_id) if len(client_id) <= MAX_URL else None
    if url is None:
        return "is not an absolute URL without user information"
    if url.scheme != "https" and not (insecure and url.scheme == "http" and is_loopback(url.host)):
        return "is not https"
    if url.path in ("", "/"):
        return "has no path"
    if url.fragment is not None:
        return "has a fragment"
    if any(segment in (".", "..") for segment in url.path.lower().replace("%2e", ".").split("/")):
        return "has a dot segment"
    return None


def read_document(fetched: Fetched, *, client_id: str, rules: ClientRules) -> Client:
    """Read a document that was fetched from `client_id` (section 4.1).

    Raises:
        OAuthError: `invalid_client` and what is wrong with it.
    """
    members = fetched.document
    if members.get("client_id") != client_id:
        raise OAuthError("invalid_client", "The document's client_id is not the URL it is at.")
    if not isinstance(members.get("client_name"), str) or not members["client_name"]:
        raise OAuthError("invalid_client", "The document has no client_name.")
    if any(name.startswith("client_secret") for name in members):
        raise OAuthError("invalid_client", "The document has a secret, which everybody can read.")
    if members.get("token_endpoint_auth_method") not in (None, "none"):
        raise OAuthError("invalid_client", "The document's token_endpoint_auth_method is not none.")
    try:
        client = read_client(members, client_id=client_id, rules=rules, default_auth_method="none")
    except OAuthError as error:
        raise OAuthError("invalid_client", f"The document is refused: {error.description}") from None
    if not client.redirect_uris:
        raise OAuthError("invalid_client", "The document has no redirect_uris.")
    return client


class _Kept(NamedTuple):
    client: Client
    until: float


class ClientDocuments:
    """Clients by the URLs of their documents.

    Args:
        rules: What is accepted of clients.
        insecure: Whether http to this machine is accepted too.
        loopback: Whether documents of this machine are fetched: not at the request of other machines.
        clock: Seconds since the epoch.
        new_client: Makes the HTTP client of one fetch; one of the user's own is not guarded.
    """

    def __init__(
        self,
        *,
        rules: ClientRules,
        insecure: bool,
        loopback: bool,
        clock: Callable[[], float],
        new_client: ClientFactory | None,
    ) -> None:
        self._rules = rules
        self._insecure = insecure
        self._loopback = loopback
        self._clock = clock
        self._fetcher = Fetcher(new_client)
        self._kept: Bounded[str, _Kept] = Bounded(MAX_KEPT)
        self._fetching = 0

    async def find(self, client_id: str) -> Client:
        """The client at a URL.

        Raises:
            OAuthError: `invalid_client`, or `temporarily_unavailable` while too many documents are being fetched.
        """
        why = why_not_client_url(client_id, insecure=self._insecure)
        if why is not None:
            raise OAuthError("invalid_client", f"The client_id {why}.")
        kept = self._kept.get(client_id)
        if kept is not None and self._clock() < kept.until:
            return kept.client
        if self._fetching >= MAX_AT_ONCE:
            raise OAuthError("temporarily_unavailable", "Too many documents are being fetched.", status=503)
        self._fetching += 1
        try:
            bounds = BOUNDS._replace(loopback=self._loopback)
            fetched = await self._fetcher.fetch_json(client_id, public_only=True, untrusted_limits=bounds)
        except DiscoveryError as error:
            raise OAuthError("invalid_client", _in_description(error.message)) from None
        finally:
            self._fetching -= 1
        client = read_document(fetched, client_id=client_id, rules=self._rules)
        lifetime = min(max(fetched.lifetime or SHORTEST, SHORTEST), LONGEST)
        self._kept.put(client_id, _Kept(client, self._clock() + lifetime))
        return client

    def clear(self) -> None:
        """Forget every document."""
        self._kept.clear()


def _in_description(text: str) -> str:
    """A message in the characters of an error_description (RFC 6749 section 5.2)."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).replace('"', "'").replace("\\", "/")
