"""Which resource owns a request path, whether the path is public, and which scope rule applies.

Frameworks route the decoded path, and many also serve other spellings of the same path (`%2F`, `//`, dot segments, a
trailing slash). An unusual path is therefore evaluated in every form that a router may read, and is rejected if the
forms lead to different results: no request is checked for one resource and served by another.

Rules are written with the path that clients see. Between the client's path and the routed path there may be:

    a proxy that strips `/api`, with the server configured for it, or a mount: the root path is `/api`, and the path is
        `/x` or `/api/x`. Both are evaluated as `/api/x` (`full_path`) and rejected if a rule was written as `/x`.
    a proxy that strips `/api` without the server being configured: the path is `/x`. It is rejected if a rule is
        written as `/api/x` (`_without_front`).
    a client that sends the stripped prefix itself (Daphne): the claimed root path is used only if the configuration
        corroborates it or it makes no difference, and it never makes a path public (`_corroborates`, `_is_hidden`).

Limits: paths are compared with case, and `;parameters` are part of their segment, as in every ASGI framework seen. A
router that ignores case, or that drops `;parameters` as Tomcat does, serves a path that no rule was checked for.

The cost of a path is bounded. A canonical path has one form and at most `MAX_LENGTH` characters. Any other path has at
most `MAX_UNUSUAL` characters, `MAX_SEGMENTS` slashes, `MAX_ESCAPES` percent signs and `MAX_READINGS` forms. A path
that exceeds a limit is rejected.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from asgi_mcp_auth.errors import BadRequest, Reason

__all__ = (
    "PathRule",
    "PathTable",
    "Verdict",
    "ambiguous",
    "canonical_path",
    "full_path",
    "is_canonical",
    "parse_rule",
    "readings",
)

MAX_LENGTH = 8192  # servers should accept 8,000 octets (RFC 9110 section 4.1)
MAX_DECODINGS = 3
MAX_UNUSUAL = 512
MAX_SEGMENTS = 32
MAX_ESCAPES = 32
MAX_READINGS = 12
# Routers written with regular expressions let `$` match before a final newline.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLASHES = re.compile(r"/{2,}")
# A mistyped method would be a rule that never applies.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))


def ambiguous(path: str) -> BadRequest:
    """Return the refusal of a path that routers may read in several ways."""
    return BadRequest(Reason.AMBIGUOUS_PATH, found=path, description="Ambiguous request path")


def _decode(path: str) -> str:
    r"""Return the path percent-decoded, `\` as `/`, like `unquote` in time that hardly depends on the path."""
    if "%" in path:
        try:
            path = unquote_to_bytes(path.encode("utf-8")).decode("utf-8", "replace")
        except UnicodeEncodeError:  # a lone surrogate, which no decoded path contains
            raise ambiguous(path) from None
    return path.replace("\\", "/")


def _decodings(path: str) -> list[str]:
    r"""Return the path and its repeated decodings until the path is stable, `\` as `/`.

    Raises:
        BadRequest: The path does not start with `/`, has a control character, exceeds a limit, or keeps changing.
    """
    if path[:1] != "/" or len(path) > MAX_UNUSUAL or path.count("%") > MAX_ESCAPES:
        raise ambiguous(path)
    found = [path]
    while (decoded := _decode(found[-1])) != found[-1]:
        if len(found) > MAX_DECODINGS:
            raise ambiguous(path)
        found.append(decoded)
    if found[-1].count("/") > MAX_SEGMENTS or _CONTROL.search(found[-1]) is not None:
        raise ambiguous(path)
    return found


def _without_dots(path: str) -> str:
    """Return the path with dot segments resolved; empty segments stay."""
    if "/." not in path:
        return path
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def readings(path: str) -> set[str]:
    """Return every form that a router may read: decoded, slashes merged, dots resolved, in any combination.

    Raises:
        BadRequest: The path has too many forms, or cannot be decoded; see `_decodings`.
    """
    if is_canonical(path):
        return {path}
    found: set[str] = set()
    for decoded in _decodings(path):
        merged = _SLASHES.sub("/", decoded)
        forms = {decoded, merged, _without_dots(decoded), _without_dots(merged), posixpath.normpath(merged)}
        found |= forms
        found |= {form.rstrip("/") or "/" for form in forms}
    if len(found) > MAX_READINGS:
        raise ambiguous(path)
    return found


def canonical_path(path: str) -> str:
    r"""Return the path decoded until stable, `\` as `/`, slashes merged, dots resolved, without a trailing slash.

    Raises:
        BadRequest: The path cannot be decoded; see `_decodings`.
    """
    return path if is_canonical(path) else posixpath.normpath(_SLASHES.sub("/", _decodings(path)[-1]))


def is_canonical(path: str) -> bool:
    """Return True if `path` is its own canonical form; False also for a few canonical paths, for example `/100%`."""
    return (
        path[:1] == "/"
        and path.isprintable()
        and "//" not in path
        and "/." not in path
        and "%" not in path
        and "\\" not in path
        and (path[-1] != "/" or len(path) == 1)
    )


def full_path(path: str, root_path: str) -> str:
    """Return the public path. Servers disagree on whether `path` starts with the `root_path` (`PREPENDS_ROOT_PATH`).

    Raises:
        BadRequest: The root path occurs later in the path, where a router may cut it off
            (`_compat.asgi_servers.SEARCHES_ROOT_PATH`).
    """
    root = root_path.rstrip("/")
    if not root or path == root or path.startswith(root + "/"):
        return path
    if root in path:
        raise ambiguous(path)
    return root + path


class PathRule(NamedTuple):
    """`"/x"` (exact) or `"/x/*"` (`/x` and everything below), for one method or for any method (None)."""

    method: str | None
    path: str
    below: bool

    def __str__(self) -> str:
        return f"{self.method or ''} {self.path.rstrip('/') if self.below else self.path}{'/*' * self.below}".strip()


def parse_rule(text: str) -> PathRule | None:
    """Parse `[METHOD ]/path[/*]`; return None for another text or if the path is not canonical."""
    method, space, path = text.rpartition(" ")
    below = path.endswith("/*")
    if below:
        path = path[:-2] or "/"
    if path[:1] != "/" or "*" in path or (space and method.upper() not in METHODS):
        return None
    try:
        if canonical_path(path) != path:
            return None
    except BadRequest:
        return None
    return PathRule(method.upper() or None, path, below)


T = TypeVar("T")


class _Prefixes(Generic[T]):
    """Values by path prefix on whole segments. A lookup costs the depth of the deepest prefix, whatever the path."""

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = {("" if prefix == "/" else prefix): value for prefix, value in values.items()}
        self._depth = max((prefix.count("/") for prefix in self._values), default=0)
        self._length = max(map(len, self._values), default=0)

    def matches(self, path: str) -> Iterator[T]:
        """Yield the values of all prefixes of `path`, the longest first."""
        if not self._values:
            return
        path = path[: self._length + 1]  # one character more than any prefix: a segment cut here matches none
        segments = path.split("/", self._depth + 1)
        end = len(path) if len(segments) <= self._depth + 1 else len(path) - len(segments[-1]) - 1
        while end >= 0:
            value = self._values.get(path[:end])
            if value is not None:
                yield value
            end = path.rfind("/", 0, end)


class Verdict(NamedTuple):
    """The decision about one path: its resource, and the rules that apply.

    Attributes:
        owner: The index of the owning resource; None if no resource owns the path.
        public: Whether the app serves the path without a credential.
        rule: The index of the scope rule that applies, among the owner's rules.
        is_non_mcp: Whether the body of a request for the path is no MCP message.
    """

    owner: int | None
    public: bool
    rule: int | None
    is_non_mcp: bool = False


class PathTable:
    """Ownership, public paths and scope rules, compiled.

    Args:
        owners: The path prefixes of the resources, canonical, in order. A single resource owns every path.
        public: The public paths.
        rules: For each resource its scope rules, in order; `Verdict.rule` is the index in that list.
        non_mcp: For each resource the paths that are not MCP endpoints.
    """

    def __init__(
        self,
        owners: Iterable[str],
        public: Iterable[PathRule] = (),
        rules: Iterable[Iterable[PathRule]] = (),
        non_mcp: Iterable[Iterable[PathRule]] = (),
    ) -> None:
        self._prefixes = prefixes = tuple(owners)
        self._sole = len(prefixes) == 1
        self._owners = _Prefixes({prefix: index for index, prefix in enumerate(prefixes)})
        self.public = listed = tuple(public)
        self._public = frozenset(rule.path for rule in listed)
        self._public_below = _Prefixes({rule.path: True for rule in listed if rule.below})
        of_resources = tuple(map(tuple, rules)) or ((),) * len(prefixes)
        self._rules = tuple(map(_RuleTable, of_resources))
        self._cut = _RuleTable(_without_front(prefixes[0], of_resources[0]) if self._sole else ())
        non_mcps = tuple(map(tuple, non_mcp))
        self._non_mcp = tuple(map(_RuleTable, non_mcps)) if any(non_mcps) else None

    def _verdict(self, method: str, path: str) -> Verdict:
        if self._public and (path in self._public or next(self._public_below.matches(path), False)):
            return Verdict(None, True, None)
        owner = 0 if self._sole else next(self._owners.matches(path), None)
        rule = None if owner is None else self._rules[owner].find(method, path)
        if self._non_mcp is None or owner is None:
            return Verdict(owner, False, rule)
        return Verdict(owner, False, rule, self._non_mcp[owner].find(method, path) is not None)

    def owner_of(self, path: str, root_path: str = "") -> int | None:
        """Return the resource that owns a path in every way that routers may read it; None if there is none."""
        full = full_path(path, root_path) if root_path else path
        owners = {0 if self._sole else next(self._owners.matches(form), None) for form in (full, *readings(full))}
        return owners.pop() if len(owners) == 1 else None

    def _corroborates(self, root_path: str) -> bool:
        """Return whether every resource lies below the root path, which the configuration thereby confirms."""
        root = root_path.rstrip("/")
        return all(prefix == root or prefix.startswith(root + "/") for prefix in self._prefixes)

    def resolve(self, method: str, path: str, root_path: str = "", claimed: str = "") -> Verdict:
        """Return the verdict on a decoded path.

        Args:
            method: The request method.
            path: The decoded path.
            root_path: The path at which the app is mounted.
            claimed: The part of the root path that the client may have chosen. It makes no path public, and is used
                only if the configuration corroborates it or it makes no difference.

        Raises:
            BadRequest: `ambiguous_path`, if a router may read the path in ways that have different verdicts, or if
                the path exceeds a limit.
        """
        if len(path) + len(root_path) > MAX_LENGTH:
            raise ambiguous(path)
        full = full_path(path, root_path) if root_path else path
        verdict = self._verdict(method, full)
        forms = readings(full)
        if any(self._verdict(method, form) != verdict for form in forms):
            raise ambiguous(path)
        # Routers cut off the whole root path, or, of a server that got it from the client, the rest alone.
        cut = {form for root in {root_path, claimed} if root for form in readings(_without(full, root))}
        without = [self._verdict(method, form) for form in cut]
        if claimed and (verdict.public or not self._corroborates(claimed)) and any(o != verdict for o in without):
            raise ambiguous(path)
        if any(self._is_hidden(other, verdict, method, full, claimed=bool(claimed)) for other in without):
            raise ambiguous(path)
        if verdict.rule is None and any(self._was_cut(method, form) for form in (forms | cut if claimed else forms)):
            raise ambiguous(path)
        return verdict

    def _is_hidden(self, other: Verdict, verdict: Verdict, method: str, path: str, *, claimed: bool) -> bool:
        """Return whether the root path keeps a rule from applying.

        A rule that is written without the root path would never apply, so its path is rejected. A client may also
        claim a root path to avoid a rule or a resource.
        """
        if claimed and other.owner not in (None, verdict.owner):
            return True
        if other.rule is None or (other.owner, other.rule) == (verdict.owner, verdict.rule):
            return False
        if claimed or other.owner is None or other.owner != verdict.owner:
            return True
        return other.rule not in self._rules[other.owner].matches(method, path)

    def _was_cut(self, method: str, path: str) -> bool:
        """Return whether a rule would apply if a proxy had stripped the beginning of the resource's path."""
        return self._cut.find(method, path) is not None and next(self._owners.matches(path), None) is None


def _without(path: str, root_path: str) -> str:
    return path.removeprefix(root_path.rstrip("/")) or "/"


def _without_front(prefix: str, rules: Iterable[PathRule]) -> Iterator[PathRule]:
    """Yield the rules as they read where a proxy has stripped `/a` or `/a/b` of the resource's path `/a/b`.

    The rule for the whole resource is left out: it would apply to every path, so it does not show that one was cut.
    """
    segments = prefix.rstrip("/").split("/")
    fronts = ["/".join(segments[:length]) for length in range(2, len(segments) + 1)]
    for rule in rules:
        if rule.below and rule.path == prefix:
            continue
        for front in fronts:
            if rule.path == front or rule.path.startswith(front + "/"):
                yield rule._replace(path=rule.path.removeprefix(front) or "/")
            elif rule.below and (rule.path == "/" or front.startswith(rule.path + "/")):
                yield rule._replace(path="/")


class _RuleTable:
    """The scope rules of one resource. The longest path wins, exact before below, one method before any."""

    def __init__(self, rules: Iterable[PathRule]) -> None:
        exact: dict[str, dict[str | None, int]] = {}
        below: dict[str, dict[str | None, int]] = {}
        for index, rule in enumerate(rules):
            (below if rule.below else exact).setdefault(rule.path, {})[rule.method] = index
        self._any = bool(exact or below)
        self._exact = exact
        self._below = _Prefixes(below)

    def find(self, method: str, path: str) -> int | None:
        """Return the index of the rule that applies, or None."""
        return next(self.matches(method, path), None) if self._any else None

    def matches(self, method: str, path: str) -> Iterator[int]:
        """Yield the indexes of all rules that match a path, the rule that applies first."""
        method = method.upper()
        methods = ("HEAD", "GET", None) if method == "HEAD" else (method, None)  # a HEAD runs what a GET runs
        for by_method in (self._exact.get(path, {}), *self._below.matches(path)):
            for name in methods:
                if name in by_method:
                    yield by_method[name]
