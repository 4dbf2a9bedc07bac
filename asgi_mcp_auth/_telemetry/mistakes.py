"""Warnings about mistakes that no single request shows: clients and proxies that lose the credential on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable

from asgi_mcp_auth._oauth.credentials import has_query_token
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.errors import NoCredential, Reason, Refusal

__all__ = ("MistakeLog",)

logger = logging.getLogger("asgi_mcp_auth")

MAX_STREAK = 50  # requests in a row: every client sends one without a token first, and scanners send some


class MistakeLog:
    """Logs each kind of mistake at most once per hour.

    Args:
        clock: Seconds.

    Attributes:
        streak: The number of requests in a row without `Authorization`. Set it to 0 for an accepted credential.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._budget = RecordBudget(clock, most=1, seconds=3600.0)
        self.streak = 0

    def check(self, refusal: Refusal, request: RequestInfo) -> None:
        """Log the mistake that explains a missing credential, if there is one."""
        if not isinstance(refusal, NoCredential):
            self.streak = 0
            return
        if refusal.reason is Reason.UNSUPPORTED_SCHEME and refusal.found == "bearer":
            self.streak = 0
            self._warn(
                "bearer",
                "A request had the scheme Bearer, which this resource does not accept. "
                "If DPoP is required, the client must send 'Authorization: DPoP <token>' and a proof.",
            )
        elif refusal.reason is Reason.UNSUPPORTED_SCHEME:
            self.streak = 0
            self._warn(
                "scheme",
                "A request had Authorization without the scheme Bearer (found: %s). "
                "The client must send 'Authorization: Bearer <token>'.",
                refusal.found,
            )
        elif request.query_string and has_query_token(request.query_string):
            self._warn(
                "query",
                "A request had its token in ?access_token=, which is ignored because URLs are logged. "
                "The client must send 'Authorization: Bearer <token>'.",
            )
        else:
            self.streak += 1
            if self.streak == MAX_STREAK:
                self.streak = 0
                self._warn(
                    "lost",
                    "%d requests in a row had no Authorization. Does something in front, such as a proxy or "
                    "a gateway, remove the header? Forward it, for example in nginx: "
                    "proxy_set_header Authorization $http_authorization;",
                    MAX_STREAK,
                )

    def _warn(self, kind: str, text: str, *args: object) -> None:
        grant = self._budget.take(kind)
        if grant is not None:
            logger.warning("%s%s", text % args, grant.note)
