"""Routes: what holds for a method and a path, in a table in front of the path algorithm.

A `Route` is a value: the resource, the scopes that the path needs, a metadata document, a public path, or the refusal.
The routes of one configuration are few; the paths that lead to one are looked up in a bounded table, and a path that
is not in the table goes through `PathTable`, whose answer is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asgi_mcp_auth._oauth.resource_metadata import Document
from asgi_mcp_auth._policy.paths import PathTable
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import FOR_REQUESTS, RequestInfo, Scope
from asgi_mcp_auth.config import ServerMetadataPaths
from asgi_mcp_auth.errors import BadRequest, NotFound, Reason, Refusal

__all__ = ("NO_RESOURCE", "Route", "RouteTable", "is_well_known")

WELL_KNOWN = "/.well-known/"
REPUBLISHED_PATH = ServerMetadataPaths.OAUTH.encode("ascii")
MAX_KNOWN, MAX_KNOWN_LENGTH = 1024, 256  # paths in the table, and characters of one; clients choose the paths
NOTHING = Requirement()
NO_RESOURCE = NotFound(Reason.NO_SUCH_RESOURCE, response_headers=((b"access-control-allow-origin", b"*"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What holds for one method and path. Exactly one of the first five attributes is set.

    Attributes:
        resource: The index of the resource that owns the path.
        document: The metadata document to answer with.
        is_republished: Whether to answer with the issuer's own metadata.
        is_public: Whether the app serves the path without a credential.
        refusal: The answer for a path that no resource owns, or that is ambiguous.
        requirement: The scopes that the path needs, the baseline included.
        template: The path rule that applies, as configured; None if only the baseline applies.
        checks_message: Whether more than the path decides: rules for the body, a hook, sessions.
        reads: The header fields to read, for `RequestInfo`.
    """

    resource: int | None = None
    document: Document | None = None
    is_republished: bool = False
    is_public: bool = False
    refusal: Refusal | None = None
    requirement: Requirement = NOTHING
    template: str | None = None
    checks_message: bool = False
    reads: Mapping[bytes, bytes] = field(default_factory=lambda: FOR_REQUESTS, repr=False, compare=False)


PUBLIC, REPUBLISHED, NOT_FOUND = Route(is_public=True), Route(is_republished=True), Route(refusal=NO_RESOURCE)


def is_well_known(path: str, root_path: str = "") -> bool:
    """Whether a path is a well-known path, which no app serves unless it is public: clients probe and need a 404."""
    return path.startswith(WELL_KNOWN) or (root_path != "" and path.startswith(root_path.rstrip("/") + WELL_KNOWN))


class RouteTable:
    """The routes of one configuration.

    Args:
        paths: The path algorithm: owners, public paths, rules.
        documents: The metadata documents by raw path.
        protected: The routes of the resources by resource, path rule (None for the baseline), and whether it is MCP's.
        republishes: Whether the issuer's metadata is served at our own well-known path.
        own_root_path: The root path that the app below sets itself, without the server.
    """

    def __init__(
        self,
        paths: PathTable,
        documents: Mapping[bytes, Document],
        protected: Mapping[tuple[int, int | None, bool], Route],
        *,
        republishes: bool,
        own_root_path: str,
    ) -> None:
        self._paths = paths
        self._documents = {path: Route(document=document) for path, document in documents.items()}
        if republishes:
            self._documents.setdefault(REPUBLISHED_PATH, REPUBLISHED)
        self._protected = protected
        self._own_root_path = own_root_path
        self._known: dict[tuple[object, ...], Route] = {}

    def match(self, scope: Scope, claimed_root_path: str = "") -> Route:
        """Return what holds for a scope; `claimed_root_path` is the part of the root path that the client chose."""
        key = (scope.get("method"), scope["path"], scope.get("raw_path"), scope.get("root_path"))
        route = self._known.get(key)
        if route is not None and not claimed_root_path:
            return route
        route = self._find(RequestInfo(scope, FOR_REQUESTS), claimed_root_path)
        if (route.resource is not None or route.document is not None) and not claimed_root_path:
            self._remember(key, route)
        return route

    def owner_of(self, request: RequestInfo) -> int | None:
        """Return the resource whose tokens identify the callers of a public path; None if there is no single one."""
        return self._paths.owner_of(request.path, self._own_root_path or request.root_path)

    def _find(self, request: RequestInfo, claimed_root_path: str) -> Route:
        if request.may_be_well_known and not request.is_websocket:
            document = self._documents.get(request.well_known_path)
            if document is not None:
                return document
        root_path = self._own_root_path or request.root_path
        try:
            verdict = self._paths.resolve(request.method, request.path, root_path, claimed_root_path)
        except BadRequest as ambiguous:
            return Route(refusal=ambiguous.without_traceback())
        if verdict.public:
            return PUBLIC
        if verdict.owner is None or is_well_known(request.path, request.root_path):
            return NOT_FOUND
        return self._protected[verdict.owner, verdict.rule, not verdict.is_non_mcp]

    def _remember(self, key: tuple[object, ...], route: Route) -> None:
        """Put a path into the table. Emptying a full table costs each path that is in use one run of the algorithm."""
        if any(len(part) > MAX_KNOWN_LENGTH for part in key if isinstance(part, (str, bytes))):
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = route
