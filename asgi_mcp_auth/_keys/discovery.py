"""Discovery of authorization server metadata (RFC 8414 section 3, OpenID Connect Discovery section 4, MCP's order)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import anyio

from asgi_mcp_auth._keys.http import ClientFactory, Fetcher
from asgi_mcp_auth._oauth.server_metadata import ALLOW_HTTP, accept_metadata, insecure_url, split_faulty
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth._policy.problems import show, show_url
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig, AuthServerType, TranspileData
from asgi_mcp_auth.errors import ConfigurationError, DiscoveryError, InvalidServerMetadata, Problem, printable

__all__ = (
    "discover",
    "fetch_server_config",
    "fetch_server_config_async",
    "fetch_server_config_by_well_known_url",
    "fetch_server_config_by_well_known_url_async",
)

logger = logging.getLogger("asgi_mcp_auth.discovery")


class Discovered(NamedTuple):
    """Accepted metadata, and the seconds that its server says the document is fresh."""

    metadata: AuthorizationServerMetadata
    lifetime: float | None


async def _fetch_metadata(
    fetcher: Fetcher,
    url: str,
    issuer: str | None,
    transpile: TranspileData | None,
    *,
    allow_http: bool,
    public_only: bool = False,
) -> Discovered:
    fetched = await fetcher.fetch_json(url, public_only=public_only)
    shown = show_url(url)
    sound, ignored = split_faulty(fetched.document)
    document: Mapping[str, object] = sound
    if transpile is not None:
        try:
            made = transpile(sound)
            document = dict(await made if inspect.isawaitable(made) else made)
        except Exception as error:
            logger.exception("transpile_data failed for %s", shown)
            msg = f"transpile_data failed for {shown} with {type(error).__name__}."
            raise InvalidServerMetadata(msg, cause=error) from error
    metadata = accept_metadata(document, issuer=issuer, url=shown, allow_http=allow_http, ignored=ignored)
    return Discovered(metadata, fetched.lifetime)


async def discover(
    fetcher: Fetcher, config: AuthServerConfig, *, allow_http: bool, public_only: bool = False
) -> Discovered:
    """Fetch and accept the metadata of a configured issuer, from `metadata_url` or from its well-known URLs in order.

    Every failure moves on to the next URL. That is safe because the document must name the issuer.

    Args:
        fetcher: Fetches documents.
        config: Names the issuer.
        allow_http: Whether plain http is allowed beyond loopback.
        public_only: Whether addresses that are not public are refused.

    Raises:
        DiscoveryError: No URL has acceptable metadata; `transient` if one of them may have it later.
    """
    issuer = config.issuer if config.metadata is None else config.metadata.issuer
    fetch = partial(
        _fetch_metadata,
        fetcher,
        issuer=issuer,
        transpile=config.transpile_data,
        allow_http=allow_http,
        public_only=public_only,
    )
    if config.metadata_url is not None:
        return await fetch(config.metadata_url)
    url = parse_url(issuer or "")
    assert url is not None  # noqa: S101 - checked at construction
    failures: list[DiscoveryError] = []
    for candidate in discovery_urls(url, config.type):
        try:
            return await fetch(candidate)
        except DiscoveryError as error:
            failures.append(error)
    failure = f"No metadata for issuer {printable(issuer)}. {' '.join(error.message for error in failures)}"
    if any(error.transient for error in failures):
        raise DiscoveryError(failure, transient=True, cause=failures[-1])
    if any(isinstance(error, InvalidServerMetadata) for error in failures):
        raise InvalidServerMetadata(failure, cause=failures[-1])
    raise DiscoveryError(failure, transient=False, cause=failures[-1])


def _check_fetchable(url: str, name: str) -> None:
    if (why := insecure_url(url, allow_http=False)) is not None:
        fix = f"{ALLOW_HTTP} That option belongs to MCPAuth: pass it AuthServerConfig(issuer=...), which it fetches."
        raise ConfigurationError([Problem(name, f"{show(url)} {why}.", fix)])


async def fetch_server_config_async(
    issuer: str,
    type: AuthServerType | None = None,  # noqa: A002 - the name mcpauth's users know
    transpile_data: TranspileData | None = None,
    *,
    http_client: ClientFactory | None = None,
) -> AuthServerConfig:
    """Fetch an issuer's metadata from its well-known URL.

    Args:
        issuer: The issuer identifier; the document must have exactly this `issuer` (RFC 8414 section 3.3).
        type: OAUTH inserts the well-known path, OIDC appends it, None tries all URLs in MCP's order.
        transpile_data: A function, sync or async, that changes the document before the document is checked.
        http_client: A factory of an `httpx.AsyncClient`.

    Raises:
        DiscoveryError: The document could not be fetched.
        InvalidServerMetadata: The document was fetched and cannot be used.
        ConfigurationError: `issuer` is not an https URL.
    """
    _check_fetchable(issuer, "issuer")
    config = AuthServerConfig(issuer=issuer, type=type, transpile_data=transpile_data)
    metadata = (await discover(Fetcher(http_client), config, allow_http=False)).metadata
    return AuthServerConfig(issuer=issuer, type=type, metadata=metadata)


async def fetch_server_config_by_well_known_url_async(
    well_known_url: str,
    type: AuthServerType | None = None,  # noqa: A002 - the name mcpauth's users know
    transpile_data: TranspileData | None = None,
    *,
    issuer: str | None = None,
    http_client: ClientFactory | None = None,
) -> AuthServerConfig:
    """Fetch metadata from a known URL. The document names the issuer, which must equal `issuer` if that is given.

    Raises: As `fetch_server_config_async`.
    """
    _check_fetchable(well_known_url, "well_known_url")
    found = await _fetch_metadata(Fetcher(http_client), well_known_url, issuer, transpile_data, allow_http=False)
    metadata = found.metadata
    return AuthServerConfig(issuer=metadata.issuer, type=type, metadata=metadata, metadata_url=well_known_url)


def _run(work: Callable[[], Awaitable[AuthServerConfig]]) -> AuthServerConfig:
    """Run async work from synchronous code, in a thread of its own, which works inside a running event loop too."""
    with ThreadPoolExecutor(1, "asgi_mcp_auth") as pool:
        return pool.submit(anyio.run, work).result()


def fetch_server_config(
    issuer: str,
    type: AuthServerType | None = None,  # noqa: A002 - the name mcpauth's users know
    transpile_data: TranspileData | None = None,
    *,
    http_client: ClientFactory | None = None,
) -> AuthServerConfig:
    """Fetch an issuer's metadata, blocking, for use at import; see `fetch_server_config_async`."""
    work = partial(fetch_server_config_async, issuer, type, transpile_data, http_client=http_client)
    return _run(work)


def fetch_server_config_by_well_known_url(
    well_known_url: str,
    type: AuthServerType | None = None,  # noqa: A002 - the name mcpauth's users know
    transpile_data: TranspileData | None = None,
    *,
    issuer: str | None = None,
    http_client: ClientFactory | None = None,
) -> AuthServerConfig:
    """Fetch metadata from a known URL, blocking; see `fetch_server_config_by_well_known_url_async`."""
    work = partial(
        fetch_server_config_by_well_known_url_async,
        well_known_url,
        type,
        transpile_data,
        issuer=issuer,
        http_client=http_client,
    )
    return _run(work)
