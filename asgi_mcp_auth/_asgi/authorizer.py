"""Step 9 of a request: whether its token is enough for what it asks for, path and body together.

The JSON-RPC body decides, header fields can only refuse. It is read after the token was verified (but for public
methods), once, and only where a rule, a hook or a list needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from asgi_mcp_auth._asgi.admission import OPEN, Permission
from asgi_mcp_auth._asgi.body import read_body, replay, without_body
from asgi_mcp_auth._asgi.lists import filter_lists
from asgi_mcp_auth._asgi.sessions import SESSION_ID, SessionBinding
from asgi_mcp_auth._asgi.streams import LISTEN
from asgi_mcp_auth._mcp.headers import MCPFields, header_params
from asgi_mcp_auth._mcp.operations import IN_BODY_ONLY, LISTS, Asked, asked_by_fields, asks, operation
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import RequestInfo, canonical_name
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.authorization import Operation, TargetKind
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import (
    Forbidden,
    InsufficientAuthentication,
    InsufficientScope,
    MessageRefused,
    Reason,
    Refusal,
)

__all__ = ("Authorizer",)

WITHOUT_MESSAGE = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
MAX_PUBLIC_BODY = 65_536  # read for somebody without a token
MAX_KNOWN, MAX_KNOWN_LENGTH = 1024, 256  # operations whose requirements are remembered, and characters of one
NO_PARAMS: Mapping[str, str] = {}


class Authorizer:
    """The scope policy of one resource, with the hook and the session binding of the whole.

    Args:
        resource: The resource.
        auth: Where the hook, the store, the clock and the limit come from.
    """

    def __init__(self, resource: CompiledResource, auth: MCPAuth) -> None:
        self._resource = resource
        self._rules = resource.policy.operations
        self._authorize = auth.authorize
        self._clock = auth.clock
        self._max_body = auth.max_body_size
        self._hooks = auth.hooks
        self._sessions: SessionBinding | None = None
        if auth.session_store is not None:
            self._sessions = SessionBinding(auth.session_store, resource.identifier, auth.hooks)
        self._reads = self._rules.any or self._rules.filter_lists or auth.authorize is not None
        self._leeways = {trusted.rules.issuer: trusted.rules.leeway for trusted in resource.trust.named}
        self.public_methods = self._rules.public_methods
        self._places = {scope: place for place, scope in enumerate(resource.policy.known)}
        self._looks_inside = self._reads or self._sessions is not None
        self._known: dict[tuple[str, TargetKind | None, str | None], tuple[Requirement, ...]] = {}
        self._shows = bool(auth.observers) or auth.authorize is not None

    def by_path_alone(self, rule: int | None, plain: bool) -> tuple[frozenset[str], ...] | None:
        """What satisfies each need of a path, where scopes are all that has a say; None where `admit` has to say it."""
        path = self._resource.requirement(rule)
        return path.satisfied_by if path.strength is None and (plain or not self._looks_inside) else None

    def before_message(self, method: str, rule: int | None, plain: bool) -> Requirement | None:
        """What a path needs, where `admit_message` has the only other say; None where `admit` has to look further."""
        alone = self._reads and self._authorize is None and self._sessions is None
        return self._resource.requirement(rule) if alone and not plain and method not in WITHOUT_MESSAGE else None

    async def admit(  # noqa: PLR0917 - the request and what is known of it
        self, request: RequestInfo, rule: int | None, plain: bool, receive: Any, verified: Verified, token: bytes
    ) -> Permission | Refusal:
        """Whether the caller may do this."""
        path, headers = self._resource.requirement(rule), request.scope["headers"]
        if plain or not self._looks_inside:
            if path.strength is None and path.met_by(verified.auth_info.scopes):
                return OPEN
            return self._lacking(headers, [path], verified) or OPEN
        if request.is_websocket:  # its messages cannot be judged
            if self._reads:
                return Forbidden(Reason.WEBSOCKETS_DISABLED, found="operation rules cannot judge a websocket")
            return self._lacking(headers, [path], verified) or OPEN
        fields = MCPFields.read(headers)
        passage = await self._admit_message(request, path, receive, verified, fields, token)
        if isinstance(passage, Refusal) or self._sessions is None:
            return passage
        bound = await self._sessions.check(request.scope, fields.modern, verified.auth_info, token)
        if isinstance(bound, Refusal):
            return bound
        return Permission(
            passage.receive,
            passage.operations,
            _both(passage.wrap_send, bound.wrap_send),
            bound.scope,
            passage.needed,
            passage.listens,
        )

    async def _admit_message(  # noqa: PLR0917 - as above
        self, request: RequestInfo, path: Requirement, receive: Any, verified: Verified, fields: MCPFields, token: bytes
    ) -> Permission | Refusal:
        headers = request.scope["headers"]
        if not self._reads:
            return self._lacking(headers, [path], verified) or OPEN
        if request.method in WITHOUT_MESSAGE:
            filtering = self._filtering(verified.auth_info, fields, None) if request.method == "GET" else None
            return self._lacking(headers, [path], verified) or Permission(without_body(receive), (), filtering)
        passage = await self.admit_message(headers, path, receive, verified, fields)
        if isinstance(passage, Refusal) or self._authorize is None:
            return passage
        more = await self._hooks.authorize(self._authorize, verified.auth_info, passage.operations, request, token)
        if isinstance(more, Refusal):
            return more
        return self._wanted_by_hook(headers, passage, more, verified) if more else passage

    async def admit_message(
        self, headers: Any, path: Requirement, receive: Any, verified: Verified, fields: MCPFields
    ) -> Permission | Refusal:
        """Whether the rules let the caller do what the body asks for; the hook has not been asked."""
        needed = [path]
        try:
            asked, params, receive = await self._read(headers, receive, fields, self._max_body)
            for one in asked:
                more = self._requirements(one)
                if isinstance(more, Forbidden):
                    more.client_id, more.operation = verified.auth_info.client_id, str(operation(one, params))
                    return self._lacking(headers, [path], verified) or more
                needed += more
        except MessageRefused as refused:  # the baseline is asked for first, whatever the body is
            return self._lacking(headers, [path], verified) or refused.without_traceback()
        granted = verified.auth_info.scopes
        for requirement in needed:  # the usual case, told at once
            if requirement.strength is not None or not requirement.met_by(granted):
                lacking = self._lacking(headers, needed, verified, (operation(one, params) for one in asked))
                if lacking is not None:
                    return lacking
                break
        if self._shows or self._rules.filter_lists:
            return self._passage(verified.auth_info, fields, asked, params, receive, needed)
        return Permission(receive, listens=_listens(asked))

    def _requirements(self, one: Asked) -> Sequence[Requirement] | Forbidden:
        """What the rules ask for, remembered for a while: to find it, in the midst of other work, costs 1.7 µs."""
        known = self._known.get(one[:3])
        if known is not None:
            return known
        more = self._rules.requirements(one)
        if not isinstance(more, Forbidden) and len(one[0]) + len(one[2] or "") <= MAX_KNOWN_LENGTH:
            if len(self._known) >= MAX_KNOWN:  # clients choose the names
                self._known.clear()
            self._known[one[:3]] = tuple(more)
        return more

    def _passage(  # noqa: PLR0917 - what was found on the way
        self,
        info: AuthInfo | None,
        fields: MCPFields,
        asked: list[Asked],
        params: Mapping[str, str],
        receive: Any,
        needed: Sequence[Requirement] = (),
    ) -> Permission:
        operations = tuple(operation(one, params) for one in asked) if self._shows else ()
        filtering = self._filtering(info, fields, asked) if self._rules.filter_lists else None
        return Permission(receive, operations, filtering, None, needed, _listens(asked))

    async def admit_public(self, request: RequestInfo, plain: bool, receive: Any) -> Permission | None:
        """The way for a request without a token that asks for nothing but public methods; None for any other."""
        if not self.public_methods or plain or request.is_websocket or request.method != "POST":
            return None
        headers = request.scope["headers"]
        fields = MCPFields.read(headers)
        if self._sessions is not None and any(canonical_name(name) == SESSION_ID for name, _ in headers):
            return None  # a session has an owner
        try:
            asked, params, receive = await self._read(headers, receive, fields, min(self._max_body, MAX_PUBLIC_BODY))
        except MessageRefused:
            return None
        if not asked or any(method not in self.public_methods for method, *_ in asked):
            return None
        return self._passage(None, fields, asked, params, receive)

    async def _read(
        self, headers: Any, receive: Any, fields: MCPFields, limit: int
    ) -> tuple[list[Asked], Mapping[str, str], Any]:
        """What a request asks for, its `Mcp-Param-*` fields, and `receive` for the app.

        Raises:
            MessageRefused: There is no telling.
        """
        params = NO_PARAMS if self._authorize is None else header_params(headers, None)
        if self._rules.headers_only:
            asked = asked_by_fields(fields)
            if asked[0] not in IN_BODY_ONLY:
                return [asked], params, receive
        body = await read_body(receive, fields, limit)
        return asks(body, fields, allow_batches=self._rules.allow_batches), params, replay(body, receive)

    def _lacking(
        self, headers: Any, needed: Iterable[Requirement], verified: Verified, asked: Iterable[Operation] = ()
    ) -> InsufficientScope | InsufficientAuthentication | None:
        """The refusal that names everything the request needs, or None when the token has it."""
        info = verified.auth_info
        requirements = list(needed)
        scopes_met = all(requirement.met_by(info.scopes) for requirement in requirements)
        strengths = [requirement.strength for requirement in requirements if requirement.strength is not None]
        unmet = []
        if strengths:
            claims, now, leeway = info.claims, self._clock(), self._leeways.get(info.issuer, 0.0)
            unmet = [strength for strength in strengths if not strength.met_by(claims, now, leeway)]
        if scopes_met and not unmet:
            return None
        named = () if scopes_met else self._named(headers, requirements, verified)
        refusal: InsufficientScope | InsufficientAuthentication
        log = {"found": " ".join(info.scopes) or "none", "issuer": info.issuer, "client_id": info.client_id}
        if unmet:
            ages = [strength.max_age for strength in unmet if strength.max_age is not None]
            accepted = next((strength.acr_values for strength in unmet if strength.acr_values), ())
            refusal = InsufficientAuthentication(
                acr_values=accepted, max_age=min(ages) if ages else None, required=named, **log
            )
        else:
            refusal = InsufficientScope(required=named, **log)
        told = ", ".join(map(str, list(asked)[:3]))
        refusal.operation = told or None
        return refusal

    def _named(self, headers: Any, requirements: list[Requirement], verified: Verified) -> tuple[str, ...]:
        """The scopes of a challenge: the baseline, the granted ones where clients do not add them, the operation's."""
        policy = self._resource.policy
        cumulative = policy.cumulative
        if cumulative is None:  # clients since 2026-07-28 add what they were granted before
            cumulative = not MCPFields.read(headers).modern
        granted = verified.auth_info.scopes if cumulative else ()
        known = sorted(self._places[scope] for scope in set(granted) if scope in self._places)
        kept = [policy.hierarchy.request_name(policy.known[place]) for place in known]
        operation = [name for requirement in requirements for name in requirement.named]
        return tuple(dict.fromkeys((*policy.baseline.named, *kept, *operation)))

    def _wanted_by_hook(
        self, headers: Any, passage: Permission, scopes: tuple[str, ...], verified: Verified
    ) -> Refusal:
        wanted = self._resource.policy.hierarchy.require(scopes)
        lacking = self._lacking(headers, [*passage.needed, wanted], verified, passage.operations)
        if lacking is not None:
            return lacking
        found = "NeedScopes names nothing but granted scopes"  # to ask for them again would be a loop
        return Forbidden(Reason.DENIED_BY_HOOK, found=found, client_id=verified.auth_info.client_id)

    def _filtering(
        self, info: AuthInfo | None, fields: MCPFields, asked: Iterable[Asked] | None
    ) -> Callable[[Any], Any] | None:
        """What takes unusable entries out of lists on their way to the client: None for nobody, who has no scopes."""
        if not self._rules.filter_lists:
            return None
        lists = (
            None
            if asked is None
            else {message.message_id: method for method, _, _, message in asked if method in LISTS}
        )
        if lists is not None and not lists:
            return None
        granted, claims, issuer = ((), {}, "") if info is None else (info.scopes, info.claims, info.issuer)
        now, leeway = self._clock(), self._leeways.get(issuer, 0.0)
        baseline = self._resource.policy.baseline

        def lacks(kind: Any, name: str) -> tuple[str, ...] | None:
            needed = self._rules.listed(kind, name)
            if isinstance(needed, Forbidden):
                return None
            if needed is None:
                needed = baseline
            weak = needed.strength is not None and not needed.strength.met_by(claims, now, leeway)
            if needed.met_by(granted) and baseline.met_by(granted) and not weak:
                return ()
            return tuple(dict.fromkeys((*baseline.named, *needed.named))) or None

        return lambda send: filter_lists(send, lists, lacks, mark=self._rules.mark_reachable, modern=fields.modern)


def _listens(asked: list[Asked]) -> bool:
    return LISTEN in [method for method, *_ in asked]


def _both(inner: Callable[[Any], Any] | None, outer: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if inner is None or outer is None:
        return inner or outer
    return lambda send: inner(outer(send))
