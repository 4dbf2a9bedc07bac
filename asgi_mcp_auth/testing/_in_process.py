"""Seams between the tests and an existing `MCPAuth`: its issuers in process, and the origin of its resource."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.auth import MCPAuth, protection_of
from asgi_mcp_auth.testing._client import client_of_hosts
from asgi_mcp_auth.testing._issuer import Issuer

__all__ = ("base_url", "first_resource", "without_network")


def first_resource(auth: MCPAuth) -> str:
    """Return the identifier of the first protected resource: the audience of its tokens."""
    return auth.status().resources[0].resource


def base_url(auth: MCPAuth) -> str:
    """Return the origin of the first protected resource, to pass as `base_url` to a test client.

        client = TestClient(app, base_url=base_url(auth))

    Starlette's `TestClient` sends `Host: testserver` by default. A loopback resource (`http://127.0.0.1:8000/mcp`) and
    a configuration with `allowed_hosts` answer 421 to other hosts (DNS rebinding), and so does the MCP SDK's server.
    """
    url = parse_url(first_resource(auth))
    assert url is not None  # noqa: S101 - the configuration has been checked
    return url.origin


@contextmanager
def without_network(auth: MCPAuth, *issuers: Issuer) -> Generator[None]:
    """Replace the issuers of `auth` within the block: metadata and keys come from `issuers` and from no other host.

        with without_network(auth, issuer):
            client = TestClient(app, base_url=base_url(auth))
            response = client.get("/notes", headers={"authorization": f"Bearer {issuer.mint(...)}"})

    The block starts and ends with empty caches, so tokens of `issuers` are accepted within the block only. An app that
    is built when its module is imported can be tested unchanged.

    Args:
        auth: The configuration of the middleware. It must not serve other requests during the block.
        issuers: Each replaces the issuer with its `url`, also if the configuration has a `jwks_uri`, a `metadata_url`
            or its own metadata. Connections to other hosts fail, and their tokens get a 503.

    Not replaced: an issuer's static `jwks`, your own `verifier`, and earlier results of `fetch_server_config`.
    """
    aliases = dict(_aliases(auth, issuers))
    key_sets = protection_of(auth).key_sets
    with key_sets.fetching_with(lambda: client_of_hosts(issuers, aliases=aliases)):
        yield


def _aliases(auth: MCPAuth, issuers: Iterable[Issuer]) -> Generator[tuple[str, str]]:
    """Yield the metadata and key set URLs of the configuration, each with the URL of the test's issuer."""
    own = {issuer.url: issuer for issuer in issuers}
    for trusted in (trusted for resource in protection_of(auth).config.resources for trusted in resource.trust.named):
        issuer, config, url = own.get(trusted.rules.issuer), trusted.config, parse_url(trusted.rules.issuer)
        if issuer is None or url is None:
            continue
        jwks_uri = config.jwks_uri or (None if config.metadata is None else config.metadata.jwks_uri)
        if jwks_uri is not None:
            yield jwks_uri, issuer.metadata["jwks_uri"]
        if config.metadata_url is not None:
            yield config.metadata_url, discovery_urls(url, None)[0]
