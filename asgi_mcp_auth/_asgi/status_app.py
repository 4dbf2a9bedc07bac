"""The status snapshot as an ASGI app for operators: an HTML page, or JSON for clients that accept it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any, Final

from asgi_mcp_auth._asgi.response import complete_lifespan, send_response
from asgi_mcp_auth._oauth.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.status import DocumentStatus, ExchangeStatus, IssuerStatus, ResourceStatus, Status, StoreStatus

__all__ = ("StatusApp", "status_page")

STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#d4d7dd, #3a3f47); --bad: light-dark(#b3261e, #ff8a80);
  --good: light-dark(#1b6e3c, #7bd99a); --soft: light-dark(#5a616c, #a3abb8); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #16181c); color: light-dark(#1c1f24, #e8eaee); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
div { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; overflow-wrap: normal; } .bad { color: var(--bad); }
.good { color: var(--good); } p { color: var(--soft); }
td:first-child { min-width: 14rem; }
"""
SECURITY: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
MAX_ROWS = 200  # issuers on the page; a pattern may admit thousands


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"  # noqa: PLR2004


def _table(titles: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _state(document: DocumentStatus | None) -> str:
    if document is None:
        return "-"
    failed = f", {document.failures} failed: {document.last_error}" if document.failures else ""
    return f"{document.state}{failed}"


def status_page(status: Status) -> str:
    """Return the snapshot as a page. Issuers and key ids come from the network, so every value is escaped."""
    issuers, resources = status.issuers[:MAX_ROWS], status.resources
    skipped = len(status.issuers) - len(issuers)
    counted = [*((one.issuer, one.refusals) for one in issuers), *((one.resource, one.refusals) for one in resources)]
    refusals = [(name, reason, count) for name, counts in counted for reason, count in counts.items()]
    ready, store = "ready: the keys of every named issuer are usable", status.store
    parts = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>asgi_mcp_auth: status</title><style>{STYLE}</style><h1>Authorization status</h1>",
        f'<p class="good">This process is {ready}.</p>'
        if status.ready
        else '<p class="bad">This process is not ready: keys of a named issuer are missing, or the store fails.</p>',
        "<p>Counts are those of this process since its start.</p><h2>Issuers</h2>",
        _table(
            ("issuer", "keys", "key set", "age", "next refresh", "usable for", "metadata", "unusable keys"),
            map(_issuer_row, issuers),
        ),
        f"<p>{skipped} more issuers are not shown.</p>" if skipped else "",
        "<h2>Refused tokens</h2>",
        _table(("issuer or resource", "reason", "count"), refusals) if refusals else "<p>None.</p>",
        *(
            ()
            if store is None
            else ("<h2>Shared store</h2>", _table(("store", "state", "calls", "note"), [_store_row(store)]))
        ),
        *(
            ()
            if status.revocation is None
            else ("<h2>Revocations</h2>", _table(("scope", "watermarks"), status.revocation.watermarks.items()))
        ),
        "" if status.revocation is None else f"<p>Age: {_seconds(status.revocation.age)}.</p>",
        *(
            (
                "<h2>Token exchange</h2>",
                _table(
                    ("issuer", "exchanged", "from the cache", "refused", "failed", "cached tokens", "note"),
                    map(_exchange_row, status.exchanges),
                ),
            )
            if status.exchanges
            else ()
        ),
        "<h2>Caches</h2>",
        _table(
            ("resource", "tokens", "memory", "hits", "misses", "evictions", "issuer pool"), map(_cache_row, resources)
        ),
    )
    return "".join(parts)


def _issuer_row(one: IssuerStatus) -> tuple[object, ...]:
    keys, key_set = ", ".join(key.kid or "(no kid)" for key in one.keys) or "none", one.key_set
    times = map(_seconds, (key_set.age, key_set.next_refresh, key_set.usable_for))
    return one.issuer, keys, _state(key_set), *times, _state(one.metadata), len(one.skipped)


def _store_row(one: StoreStatus) -> tuple[object, ...]:
    state = one.state if one.failing_for is None else f"{one.state} for {_seconds(one.failing_for)}"
    return one.store, state, one.calls, "; ".join(filter(None, (one.last_error, one.warning))) or "-"


def _exchange_row(one: ExchangeStatus) -> tuple[object, ...]:
    refused = ", ".join(f"{count} {reason}" for reason, count in one.refused.items()) or 0
    return one.issuer, one.exchanged, one.cached, refused, one.failed, one.entries, one.last_error or "-"


def _cache_row(one: ResourceStatus) -> tuple[object, ...]:
    cache, pool = one.token_cache, "-" if one.pool is None else f"{one.pool.entries} of {one.pool.size}"
    if cache is None:
        return one.resource, "off", "-", "-", "-", "-", pool
    memory = f"{cache.bytes / 1e6:.1f} of {cache.max_bytes / 1e6:.0f} MB"
    tokens = f"{cache.entries} of {cache.size}"
    return one.resource, tokens, memory, cache.hits, cache.misses, cache.evictions, pool


class StatusApp:
    """An ASGI app that answers GET with the status. It checks no credential: serve it on an internal path only.

    Args:
        status: Returns the snapshot.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or complete a lifespan."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = RequestInfo(scope)
        if request.method not in {"GET", "HEAD"} or request.is_websocket:
            answer = json_response(405, {"detail": "Use GET"}, ((b"allow", b"GET, HEAD"),))
        elif any(name == b"accept" and b"application/json" in value for name, value in scope["headers"]):
            answer = json_response(200, self._status().to_dict())
        else:
            body = status_page(self._status()).encode("utf-8", "replace")
            answer = Response(200, (*SECURITY, (b"content-length", str(len(body)).encode("ascii"))), body)
        await send_response(answer, request, receive, send)
