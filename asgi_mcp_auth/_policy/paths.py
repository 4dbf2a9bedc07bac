"""Which resource owns a request path, whether the path is public, and which scope rule applies.

Frameworks route the decoded path, and many also serve other spellings of the same path (`%2F`, `//`, dot segments, a
trailing slash). An unusual path is therefore evaluated in every form that a router may read, and is rejected if the
forms lead to different results: no request is checked for one resource and served by another.

Rules are written with the path that clients see. Between the client's path and the routed path there may be:

    a proxy that strips `/api`, with the server configured for it, or a mount: the root path is `/api`, and the path is
        `/x` or `/api/x`. Both are evaluated as `/api/x` (`full_path`) and rejected if a rule was written as `/x`.
    a proxy that strips `/api` without the server being configured: the path is `/x`. It is rejected if a rule is
        written as `/api/x` (`_was_cut`).
    a client that sends the stripped prefix itself (Daphne): the claimed root path is used only if the configuration
        corroborates it or it makes no difference, and it never makes a path public (`_corroborates`, `_is_hidden`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote

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

MAX_DECODINGS = 3
MAX_UNUSUAL = 4096  # a longer path that is not canonical is refused unread
# Routers written with regular expressions let `$` match before a final newline.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLASHES = re.compile(r"/{2,}")
# A mistyped method would be a rule that never applies.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))


def ambiguous(path: str) -> BadRequest:
    return BadRequest(Reason.AMBIGUOUS_PATH, found=path, description="Ambiguous request path")


def _decodings(path: str) -> list[str]:
    r"""The path and its repeated decodings until they are stable, `\\` as `/`.

    Raises:
        BadRequest: No path, a control character, too long, or still changing.
    """
    if path[:1] != "/" or len(path) > MAX_UNUSUAL:
        raise ambiguous(path)
    found = [path]
    while (decoded := unquote(found[-1]).replace("\\", "/")) != found[-1]:
        if len(found) > MAX_DECODINGS:
            raise ambiguous(path)
        found.append(decoded)
    if _CONTROL.search(found[-1]) is not None:
        raise ambiguous(path)
    return found


def _without_dots(path: str) -> str:
    """Dot segments resolved and nothing else: empty segments stay."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def readings(path: str) -> set[str]:
    """Every path that a router may take an unusual one for: decoded, slashes merged, dots resolved, in any combination.

    Raises:
        BadRequest: It cannot be read at all.
    """
    found: set[str] = set()
    for decoded in _decodings(path):
        merged = _SLASHES.sub("/", decoded)
        found |= {decoded, merged, _without_dots(decoded), _without_dots(merged), posixpath.normpath(merged)}
    return found | {reading.rstrip("/") or "/" for reading in found}


def canonical_path(path: str) -> str:
    r"""Decoded until stable, `\` as `/`, slashes merged, dot segments resolved, no trailing slash.

    Raises:
        BadRequest: It does not begin with `/` (absolute form), has a control character, or does not become stable.
    """
    return posixpath.normpath(_SLASHES.sub("/", _decodings(path)[-1]))


def is_canonical(path: str) -> bool:
    """Whether `path` is its own canonical form, told quickly."""
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
    """The public path: servers and frameworks disagree on whether `path` has the `root_path` in front of it.

    Raises:
        BadRequest: The root path stands somewhere else in the path, where some routers cut it off.
    """
    root = root_path.rstrip("/")
    if not root or path == root or path.startswith(root + "/"):
        return path
    if root in path:
        raise ambiguous(path)
    return root + path


class PathRule(NamedTuple):
    """`"/x"` (exact) or `"/x/*"` (`/x` and everything below), perhaps for one method only."""

    method: str | None
    path: str
    below: bool


def parse_rule(text: str) -> PathRule | None:
    """Read `[METHOD ]/path[/*]`, or None when it is not one or the path is not canonical."""
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
    """Values by path prefix on whole segments. Looking one up costs the depth of the deepest, not their number."""

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = {("" if prefix == "/" else prefix): value for prefix, value in values.items()}
        self._depth = max((prefix.count("/") for prefix in self._values), default=0)

    def matches(self, path: str) -> Iterator[T]:
        """The values of all prefixes of `path`, the longest first."""
        if not self._values:
            return
        segments = path.split("/", self._depth + 1)[: self._depth + 1]
        while segments:
            value = self._values.get("/".join(segments))
            if value is not None:
                yield value
            segments.pop()


class Verdict(NamedTuple):
    """What holds for a path: the owning resource's index, publicness, the scope rule's index, and plainness."""

    owner: int | None
    public: bool
    rule: int | None
    plain: bool = False
    """Whether its bodies are none of ours."""


class PathTable:
    """Ownership, public paths and scope rules, compiled.

    Args:
        owners: Path prefixes of the resources, canonical, in order. A single resource owns every path.
        public: Public paths, exact or with everything below.
        rules: For each resource its scope rules, in order; `Verdict.rule` is the place in that list.
            Where a proxy has cut the front of a resource's path off, and the server was not told, they would not
            apply: a path that one of them would apply to with that front is ambiguous.
        plain: For each resource its plain paths.
    """

    def __init__(
        self,
        owners: Iterable[str],
        public: Iterable[PathRule] = (),
        rules: Iterable[Iterable[PathRule]] = (),
        plain: Iterable[Iterable[PathRule]] = (),
    ) -> None:
        prefixes = tuple(owners)
        self._prefixes = prefixes
        self._sole = len(prefixes) == 1
        self._owners = _Prefixes({prefix: index for index, prefix in enumerate(prefixes)})
        listed = tuple(public)
        self._public = frozenset(rule.path for rule in listed)
        self._public_below = _Prefixes({rule.path: True for rule in listed if rule.below})
        listed_rules = tuple(map(tuple, rules)) or ((),) * len(prefixes)
        self._rules = tuple(map(_RuleTable, listed_rules))
        # A rule for all of the resource would apply to every path there is, so it says nothing about what was cut off.
        self._inside = _RuleTable(
            rule
            for prefix, own in zip(prefixes, listed_rules, strict=True)
            for rule in own
            if not (rule.below and rule.path == prefix)
        )
        self._fronts = tuple(_fronts(prefixes[0])) if self._sole and self._inside else ()
        plains = tuple(map(tuple, plain))
        self._plain = tuple(map(_RuleTable, plains)) if any(plains) else None

    def _verdict(self, method: str, path: str) -> Verdict:
        if self._public and (path in self._public or next(self._public_below.matches(path), False)):
            return Verdict(None, True, None)
        owner = 0 if self._sole else next(self._owners.matches(path), None)
        rule = None if owner is None else self._rules[owner].find(method, path)
        if self._plain is None or owner is None:
            return Verdict(owner, False, rule)
        return Verdict(owner, False, rule, self._plain[owner].find(method, path) is not None)

    def _corroborates(self, root_path: str) -> bool:
        """Whether every resource lies below the root path, so that the configuration itself says that it is one."""
        root = root_path.rstrip("/")
        return all(prefix == root or prefix.startswith(root + "/") for prefix in self._prefixes)

    def judge(self, method: str, path: str, root_path: str = "", claimed: str = "") -> Verdict:
        """The verdict on a decoded path.

        Args:
            method: The request method.
            path: The decoded path.
            root_path: Where the app is mounted.
            claimed: The part of the root path that the client may have chosen. It makes no path public; and unless
                the configuration corroborates it, it is believed only where it makes no difference.

        Raises:
            BadRequest: `ambiguous_path`, where a router may read the path in ways that are not judged alike.
        """
        full = full_path(path, root_path) if root_path else path
        verdict = self._verdict(method, full)
        if not is_canonical(full) and any(self._verdict(method, other) != verdict for other in readings(full)):
            raise ambiguous(path)
        if not root_path:
            if self._fronts and verdict.rule is None and self._was_cut(method, full):
                raise ambiguous(path)
            return verdict
        # Routers cut off all of it, a mount of theirs included; without the client's part, this would be the path.
        cut = {_without(full, root_path), _without(full, claimed)} if claimed else {_without(full, root_path)}
        without = [self._verdict(method, other) for one in cut for other in readings(one)]
        if claimed and (verdict.public or not self._corroborates(claimed)) and any(o != verdict for o in without):
            raise ambiguous(path)
        if any(self._is_hidden(other, verdict, method, full, claimed=bool(claimed)) for other in without):
            raise ambiguous(path)
        if verdict.rule is None and any(self._was_cut(method, one) for one in ({full} | cut if claimed else {full})):
            raise ambiguous(path)
        return verdict

    def _is_hidden(self, other: Verdict, verdict: Verdict, method: str, path: str, *, claimed: bool) -> bool:
        """Whether the root path keeps a rule from applying.

        One written without it would never apply: better no answer than the wrong one. And a client may claim one to
        get away from a rule, or from a resource.
        """
        if claimed and other.owner not in (None, verdict.owner):
            return True
        if other.rule is None or (other.owner, other.rule) == (verdict.owner, verdict.rule):
            return False
        if claimed or other.owner is None or other.owner != verdict.owner:
            return True
        return other.rule not in self._rules[other.owner].matches(method, path)

    def _was_cut(self, method: str, path: str) -> bool:
        """Whether a rule would apply if the front of the resource's path, which is not there, were put back."""
        if not self._fronts or next(self._owners.matches(path), None) is not None:
            return False
        return any(
            self._inside.find(method, (front + other).rstrip("/")) is not None
            for front in self._fronts
            for other in readings(path)
        )


def _without(path: str, root_path: str) -> str:
    return path.removeprefix(root_path.rstrip("/")) or "/"


def _fronts(path: str) -> Iterator[str]:
    """`/a` and `/a/b` of the path `/a/b`."""
    segments = path.rstrip("/").split("/")
    return ("/".join(segments[:length]) for length in range(2, len(segments) + 1))


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

    def __bool__(self) -> bool:
        return self._any

    def find(self, method: str, path: str) -> int | None:
        return next(self.matches(method, path), None) if self._any else None

    def matches(self, method: str, path: str) -> Iterator[int]:
        """All rules that speak of a path, the one that applies first."""
        method = method.upper()
        methods = ("HEAD", "GET", None) if method == "HEAD" else (method, None)  # a HEAD runs what a GET runs
        for by_method in (self._exact.get(path, {}), *self._below.matches(path)):
            for name in methods:
                if name in by_method:
                    yield by_method[name]
