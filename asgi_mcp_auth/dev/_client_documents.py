"""Client ID metadata documents (draft-ietf-oauth-client-id-metadata-document): clients identified by a URL.

The URL is checked before anything is fetched (section 3). A fetch follows no redirect, accepts only status 200 and
JSON, and is limited to 5 KiB and 5 seconds (section 4). It reaches public addresses, and loopback addresses unless the
server serves other machines. The document's `client_id` has to equal the URL (section 4.1). A document is cached as
long as its header fields say, between five minutes and a day. Errors are not cached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.http import ClientFactory, Fetched, Fetcher, UntrustedLimits
from asgi_mcp_auth._oauth.urls import is_loopback, parse_url
from asgi_mcp_auth.dev._clients import Client, ClientRules, read_client
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.errors import DiscoveryError

__all__ = ("ClientDocuments", "client_url_error", "read_document")

BOUNDS: Final = UntrustedLimits(max_bytes=5 * 1024, seconds=5.0)
MIN_LIFETIME, MAX_LIFETIME = 300.0, 86_400.0
MAX_CACHED = 256
MAX_FETCHES = 8
MAX_URL = 2048


def client_url_error(client_id: str, *, insecure: bool) -> str | None:
    """Return why a URL cannot be a client ID, or None (section 3).

    Args:
        client_id: The URL.
        insecure: Whether loopback http is accepted too.
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
    """Return the client that the document at `client_id` describes (section 4.1).

    Raises:
        OAuthError: `invalid_client`.
    """
    members = fetched.document
    if members.get("client_id") != client_id:
        raise OAuthError("invalid_client", "The client_id in the document differs from the URL of the document.")
    if not isinstance(members.get("client_name"), str) or not members["client_name"]:
        raise OAuthError("invalid_client", "The document has no client_name.")
    if any(name.startswith("client_secret") for name in members):
        raise OAuthError("invalid_client", "The document has a client secret, but the document is public.")
    if members.get("token_endpoint_auth_method") not in (None, "none"):
        raise OAuthError("invalid_client", "The token_endpoint_auth_method in the document is not none.")
    try:
        client = read_client(members, client_id=client_id, rules=rules, default_auth_method="none")
    except OAuthError as error:
        raise OAuthError("invalid_client", f"The document is invalid: {error.description}") from None
    if not client.redirect_uris:
        raise OAuthError("invalid_client", "The document has no redirect_uris.")
    return client


class _Cached(NamedTuple):
    client: Client
    expires_at: float


class ClientDocuments:
    """Clients by the URLs of their metadata documents.

    Args:
        rules: The rules for metadata.
        insecure: Whether loopback http URLs are accepted too.
        loopback: Whether documents are fetched from loopback addresses. Requests of other machines must not cause
            such fetches.
        clock: Seconds since the epoch.
        new_client: Makes the HTTP client for a fetch. A custom client is not guarded against private addresses.
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
        self._cached: BoundedMap[str, _Cached] = BoundedMap(MAX_CACHED)
        self._fetching = 0

    async def find(self, client_id: str) -> Client:
        """Return the client at a URL, from the cache or by a fetch.

        Raises:
            OAuthError: `invalid_client`, or `temporarily_unavailable` while too many documents are being fetched.
        """
        why = client_url_error(client_id, insecure=self._insecure)
        if why is not None:
            raise OAuthError("invalid_client", f"The client_id {why}.")
        cached = self._cached.get(client_id)
        if cached is not None and self._clock() < cached.expires_at:
            return cached.client
        if self._fetching >= MAX_FETCHES:
            raise OAuthError("temporarily_unavailable", "Too many documents are being fetched.", status=503)
        self._fetching += 1
        try:
            bounds = BOUNDS._replace(loopback=self._loopback)
            fetched = await self._fetcher.fetch_json(client_id, public_only=True, untrusted_limits=bounds)
        except DiscoveryError as error:
            raise OAuthError("invalid_client", _description(error.message)) from None
        finally:
            self._fetching -= 1
        client = read_document(fetched, client_id=client_id, rules=self._rules)
        lifetime = min(max(fetched.lifetime or MIN_LIFETIME, MIN_LIFETIME), MAX_LIFETIME)
        self._cached.put(client_id, _Cached(client, self._clock() + lifetime))
        return client

    def clear(self) -> None:
        """Remove every document from the cache."""
        self._cached.clear()


def _description(text: str) -> str:
    """Return a message in the characters of an error_description (RFC 6749 section 5.2)."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).replace('"', "'").replace("\\", "/")
