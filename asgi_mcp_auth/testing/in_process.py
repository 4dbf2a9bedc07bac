"""A configuration whose issuers are those of the tests, in process, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.testing.issuer import Issuer

__all__ = ("without_network",)


@contextmanager
def without_network(auth: MCPAuth, *issuers: Issuer) -> Generator[None]:
    """Within the block, `auth` gets metadata and keys from these issuers, and nothing from anywhere else.

    It starts with nothing fetched, whatever it knew, and knows nothing of the block afterwards: tokens of `issuers`
    are good within the block only. So an app that is built when its module is imported can be tested as it is.

        with without_network(auth, issuer):
            response = TestClient(app).get("/notes", headers={"authorization": f"Bearer {issuer.mint(...)}"})

    Args:
        auth: The configuration, in whatever middleware it is. It must not be serving anything else meanwhile.
        issuers: Each stands for the issuer of its `url`, also where the configuration gives a `jwks_uri`, a
            `metadata_url` or metadata of its own. Whatever else is asked for cannot be connected to, which is a 503.

    Not replaced: an issuer's static `jwks`, a `verifier` of your own, and what `fetch_server_config` fetched before.
    """
    from asgi_mcp_auth.testing.client import client_of_hosts  # noqa: PLC0415 - httpx, which importing is not to load

    aliases = dict(_aliases(auth, issuers))
    key_sets = auth._key_sets  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the seam is ours
    with key_sets.fetching_with(lambda: client_of_hosts(issuers, aliases=aliases)):
        yield


def _aliases(auth: MCPAuth, issuers: Iterable[Issuer]) -> Generator[tuple[str, str]]:
    """The places that the configuration gives for these issuers, and where the issuers of the tests have the same."""
    own = {issuer.url: issuer for issuer in issuers}
    for trusted in (trusted for resource in auth.site.resources for trusted in resource.trust.named):
        issuer, config, url = own.get(trusted.rules.issuer), trusted.config, parse_url(trusted.rules.issuer)
        if issuer is None or url is None:
            continue
        jwks_uri = config.jwks_uri or (None if config.metadata is None else config.metadata.jwks_uri)
        if jwks_uri is not None:
            yield jwks_uri, issuer.metadata["jwks_uri"]
        if config.metadata_url is not None:
            yield config.metadata_url, discovery_urls(url, None)[0]
