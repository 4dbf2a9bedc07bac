"""Authorization of a request: whether its token is sufficient for its path and the operations in its body.

The JSON-RPC body decides; header fields can only cause a rejection. The body is read once, after the token has been
verified (before that for public methods), and only if a rule, a hook or a list filter needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from asgi_mcp_auth._asgi.asgi_types import Receive, WrapSend
from asgi_mcp_auth._asgi.body import read_body, replay, without_body
from asgi_mcp_auth._asgi.lists import ListRules, rewrite_lists
from asgi_mcp_auth._asgi.run import NO_OVERRIDES, Overrides
from asgi_mcp_auth._asgi.sessions import SessionBinding
from asgi_mcp_auth._asgi.streams import LISTEN
from asgi_mcp_auth._mcp.headers import MCPFields, header_params
from asgi_mcp_auth._mcp.operations import IN_BODY_ONLY, LISTS, Asked, Named, asked_by_fields, asks, named, operations
from asgi_mcp_auth._oauth.json_types import JSONValue
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.routes import Route
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import Authorize, HookCaller
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.authorization import Operation, TargetKind
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import (
    Forbidden,
    InsufficientAuthentication,
    InsufficientScope,
    MessageRefused,
    MethodNotAllowed,
    NoCredential,
    Reason,
    Refusal,
)
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("Admission", "Authorizer")

WITHOUT_MESSAGE = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
STREAM_METHODS = frozenset(("GET", "DELETE"))  # the event stream and the end of a session
CHATGPT = (b"openai-mcp", b"chatgpt")  # in its User-Agent
MAX_PUBLIC_BODY = 65_536  # bytes that are read for a client without a token
MAX_KNOWN, MAX_KNOWN_LENGTH = 1024, 256  # operations whose requirements are cached, and characters of an operation
NO_PARAMS: Mapping[str, str] = {}


class Admission(NamedTuple):
    """An admitted request.

    Attributes:
        overrides: What the app sees of the request in another way than the server passed it.
        operations: What the body asks for, if there is a hook.
        needed: The scopes that the rules for the body require.
        named: What the body asks for, without arguments, if an observer or the audit log wants to know.
    """

    overrides: Overrides = NO_OVERRIDES
    operations: tuple[Operation, ...] = ()
    needed: Sequence[Requirement] = ()
    named: tuple[Named, ...] = ()


ADMITTED = Admission()


class Authorizer:
    """The scope policy of one resource, with the hook and the session binding of the configuration.

    Args:
        resource: The resource.
        hooks: Calls the hook, within its time limit.
        authorize: The hook that is called about operations; None for no hook.
        sessions: The entries that bind sessions to their callers; None for no binding.
        clock: Seconds since the epoch.
        max_body_size: The largest body, in bytes, that is read.
        observed: Whether an observer or the audit log needs the operations.
        reads_all: Whether the audit log needs the operations of every request.

    Attributes:
        looks_inside: Whether more than the path decides about requests for MCP paths.
        admits_anonymous: Whether any operation is public.
    """

    def __init__(
        self,
        resource: CompiledResource,
        *,
        hooks: HookCaller,
        authorize: Authorize | None,
        sessions: StoreUse | None,
        clock: Callable[[], float],
        max_body_size: int,
        observed: bool,
        reads_all: bool = False,
    ) -> None:
        self._resource = resource
        self._rules = resource.policy.operations
        self._hooks = hooks
        self._authorize = authorize
        self._clock = clock
        self._max_body = max_body_size
        self._sessions = None if sessions is None else SessionBinding(sessions, resource.identifier, clock)
        self._rewrites_lists = self._rules.filter_lists or "security_schemes" in self._rules.annotate_lists
        self._restricts = self._rules.any or self._rewrites_lists or authorize is not None
        self._reads = self._restricts or reads_all
        self._leeways = {trusted.rules.issuer: trusted.rules.leeway for trusted in resource.trust.named}
        self._order = {scope: position for position, scope in enumerate(resource.policy.known)}
        self._known: dict[tuple[str, TargetKind | None, str | None], tuple[Requirement, ...]] = {}
        self._observed = observed
        self.looks_inside = self._reads or self._sessions is not None
        self.admits_anonymous = bool(self._rules.public_methods)

    def admit_path(self, route: Route, request: RequestInfo, verified: Verified) -> Admission | Refusal:
        """Admit or refuse a request by the rule of its path; neither body nor hook is asked."""
        requirement = route.requirement
        if requirement.strength is None and requirement.met_by(verified.auth_info.scopes):
            return ADMITTED
        return self._lacking(request, [requirement], verified) or ADMITTED

    async def admit_message(
        self, route: Route, request: RequestInfo, receive: Receive, verified: Verified
    ) -> Admission | Refusal:
        """Admit or refuse a request by its path, the operations in its body, the hook and the session."""
        if request.is_websocket:
            if self._restricts:  # the messages of a websocket are not read
                found = "operation rules cannot be applied to a websocket"
                return Forbidden(Reason.WEBSOCKETS_DISABLED, found=found)
            return self.admit_path(route, request, verified)
        fields = MCPFields(request.fields)
        if not self._reads:
            admission = self.admit_path(route, request, verified)
        elif request.method in WITHOUT_MESSAGE:
            admission = self._admit_without_message(route, request, receive, verified, fields)
        else:
            admission = await self._admit_body(route, request, receive, verified, fields)
        if isinstance(admission, Refusal) or self._sessions is None:
            return admission
        session = await self._sessions.check(request, fields.modern, verified.auth_info)
        if isinstance(session, Refusal):
            return session
        return _with_session(admission, session)

    def _admit_without_message(
        self, route: Route, request: RequestInfo, receive: Receive, verified: Verified, fields: MCPFields
    ) -> Admission | Refusal:
        lacking = self._lacking(request, [route.requirement], verified)
        if lacking is not None:
            return lacking
        filtering = self._filtering(verified.auth_info, fields, None) if request.method == "GET" else None
        return Admission(Overrides(without_body(receive), filtering))

    async def _admit_body(
        self, route: Route, request: RequestInfo, receive: Receive, verified: Verified, fields: MCPFields
    ) -> Admission | Refusal:
        """Apply the rules to the operations in the body, then call the hook."""
        path = route.requirement
        needed = [path]
        try:
            asked, params, receive, is_batch = await self._read(request, receive, fields, self._max_body)
            for one in asked if len(asked) == 1 else {one[:3]: one for one in asked}.values():  # each target once
                more = self._requirements(one)
                if isinstance(more, Forbidden):
                    more.client_id, more.operation = verified.auth_info.client_id, str(operations(one, params)[0])
                    return self._naming(asked, self._lacking(request, [path], verified) or more)
                needed += more
        except MessageRefused as refused:  # report a missing scope of the path first, even if the body is malformed
            return self._lacking(request, [path], verified) or refused.without_traceback()
        granted = verified.auth_info.scopes
        for requirement in needed:
            if requirement.strength is not None or not requirement.met_by(granted):
                if self._is_public(route, asked):  # the baseline is not needed: it is not without a token either
                    needed = needed[1:]
                lacking = self._lacking(request, needed, verified, (operations(one, params)[0] for one in asked))
                if isinstance(lacking, InsufficientScope) and not is_batch:
                    lacking.tool_call_id = self._tool_call_id(request, asked)
                if lacking is not None:
                    return self._naming(asked, lacking)
                break
        admission = self._admission(verified.auth_info, fields, asked, params, receive, needed)
        if self._authorize is None:
            return admission
        more_scopes = await self._hooks.authorize(
            self._authorize, verified.auth_info, admission.operations, request, request.token
        )
        if not isinstance(more_scopes, Refusal):
            if not more_scopes:
                return admission
            more_scopes = self._required_by_hook(request, admission, more_scopes, verified)
        more_scopes.operations = admission.named
        return more_scopes

    def _naming(self, asked: Iterable[Asked], refusal: Refusal) -> Refusal:
        """Return the refusal with the operations of the body, if anything consumes them."""
        if self._observed:
            refusal.operations = named(asked)
        return refusal

    def _requirements(self, one: Asked) -> Sequence[Requirement] | Forbidden:
        """Return what the rules require for an operation, from a bounded cache (`benchmarks: in_process`)."""
        known = self._known.get(one[:3])
        if known is not None:
            return known
        more = self._rules.requirements(one)
        if not isinstance(more, Forbidden) and len(one[0]) + len(one[2] or "") <= MAX_KNOWN_LENGTH:
            if len(self._known) >= MAX_KNOWN:  # clients choose the names
                self._known.clear()
            self._known[one[:3]] = tuple(more)
        return more

    def _admission(  # noqa: PLR0917 - the values that reading the body yields
        self,
        info: AuthInfo | None,
        fields: MCPFields,
        asked: list[Asked],
        params: Mapping[str, str],
        receive: Receive,
        needed: Sequence[Requirement] = (),
    ) -> Admission:
        hooked = () if self._authorize is None else tuple(each for one in asked for each in operations(one, params))
        filtering = self._filtering(info, fields, asked) if self._rewrites_lists else None
        listens = LISTEN in [one[0] for one in asked]
        overrides = Overrides(receive, filtering, listens=listens)
        return Admission(overrides, hooked, needed, named(asked) if self._observed else ())

    async def admit_anonymous(
        self, refusal: NoCredential, route: Route, request: RequestInfo, receive: Receive
    ) -> Admission | Refusal:
        """Return the admission of a request without a credential if everything it asks for is public.

        Otherwise return the refusal, which names the scopes of what the body asks for if the policy has public
        operations. Paths with a rule of their own have no public operations.
        """
        if not self.admits_anonymous or route.requirement != self._resource.policy.baseline:
            return refusal
        # Another scheme, or a field without one, may be a credential that cannot be verified.
        is_missing = not any(line.strip(b" \t") for line in request.fields.get(b"authorization", ()))
        if not is_missing or not route.checks_message or request.is_websocket:
            return refusal
        if request.method in STREAM_METHODS and self._rules.has_public_targets:
            return MethodNotAllowed(Reason.NO_CREDENTIAL, response_headers=((b"allow", b"POST"),))
        if request.method != "POST":
            return refusal
        fields = MCPFields(request.fields)
        limit = min(self._max_body, MAX_PUBLIC_BODY)
        try:
            asked, params, receive, is_batch = await self._read(request, receive, fields, limit, allow_responses=False)
            if not asked or not self._is_public(route, asked):
                return self._needs_token(refusal, request, asked, is_batch=is_batch)
        except MessageRefused as refused:  # a client that signs in learns what is wrong with another body
            return refused.without_traceback() if refused.reason is Reason.HEADER_MISMATCH else refusal
        admission = self._admission(None, fields, asked, params, receive)
        if self._sessions is None:
            return admission
        session = await self._sessions.check(request, fields.modern, None)
        if isinstance(session, Refusal):
            return session
        return _with_session(admission, session)

    def _is_public(self, route: Route, asked: Iterable[Asked]) -> bool:
        """Return whether everything that a body asks for, under every name, needs no token."""
        if not self.admits_anonymous or route.requirement != self._resource.policy.baseline:
            return False
        return all(self._rules.is_public(one) for one in asked)

    def _needs_token(
        self, refusal: NoCredential, request: RequestInfo, asked: list[Asked], *, is_batch: bool
    ) -> NoCredential:
        """Return the refusal of operations that need a token, with the scopes to request (RFC 6750 section 3.1).

        Raises:
            MessageRefused: A resource's URI can be read in ways that have different rules.
        """
        if not self._rules.has_public_targets:
            return refusal
        protected = [self._requirements(one) for one in asked if not self._rules.is_public(one)]
        found = [rule for rules in protected if not isinstance(rules, Forbidden) for rule in rules]
        named = NoCredential(refusal.reason)
        names = (*self._resource.policy.challenged.named, *(name for rule in found for name in rule.named))
        named.required = tuple(dict.fromkeys(names))
        if not is_batch:
            named.tool_call_id = self._tool_call_id(request, asked)
        return named

    def _tool_call_id(self, request: RequestInfo, asked: Sequence[Asked]) -> str | int | None:
        """Return the id of a `tools/call` whose refusal is a tool result; None to refuse with an HTTP status."""
        style = self._rules.challenge_style
        if style == "http" or not asked or asked[0][0] != "tools/call":
            return None
        if style == "auto":
            agents = [value.lower() for name, value in request.forwarded if name.lower() == b"user-agent"]
            if not any(word in agent for agent in agents for word in CHATGPT):
                return None
        return asked[0][3].message_id

    async def _read(
        self,
        request: RequestInfo,
        receive: Receive,
        fields: MCPFields,
        limit: int,
        *,
        allow_responses: bool = True,
    ) -> tuple[list[Asked], Mapping[str, str], Receive, bool]:
        """Return the operations of a request, its `Mcp-Param-*` fields, a `receive` for the app, and if it is a batch.

        Raises:
            MessageRefused: The body is not a JSON-RPC message, or contradicts the header fields.
        """
        params = NO_PARAMS if self._authorize is None else header_params(request.scope["headers"], None)
        hooked = self._authorize is not None
        if self._rules.headers_only:
            asked = asked_by_fields(fields)
            if asked[0] not in IN_BODY_ONLY:
                return self._rules.resolve([asked], hooked=hooked), params, receive, False
        body = await read_body(receive, fields, limit)
        whole = asks(body, fields, allow_batches=self._rules.allow_batches, allow_responses=allow_responses)
        is_batch = body.lstrip(b" \t\r\n").startswith(b"[")
        return self._rules.resolve(whole, hooked=hooked), params, replay(body, receive), is_batch

    def _lacking(
        self, request: RequestInfo, needed: Iterable[Requirement], verified: Verified, asked: Iterable[Operation] = ()
    ) -> InsufficientScope | InsufficientAuthentication | None:
        """Return the refusal that names everything the request needs; None if the token has it."""
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
        named = () if scopes_met else self._named(request, requirements, verified)
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
        refusal.operation = ", ".join(map(str, list(asked)[:3])) or None
        return refusal

    def _named(self, request: RequestInfo, requirements: list[Requirement], verified: Verified) -> tuple[str, ...]:
        """Return the scopes of a challenge: the baseline, then granted scopes, then the scopes of the operation.

        Granted scopes are included if `scope_strategy` or the protocol revision of the client requires it.
        """
        policy = self._resource.policy
        cumulative = policy.cumulative
        if cumulative is None:  # clients since 2026-07-28 request their granted scopes again on their own
            cumulative = not MCPFields(request.fields).modern
        granted = verified.auth_info.scopes if cumulative else ()
        known = sorted(self._order[scope] for scope in set(granted) if scope in self._order)
        kept = [policy.hierarchy.request_name(policy.known[position]) for position in known]
        operation = [name for requirement in requirements for name in requirement.named]
        return tuple(dict.fromkeys((*policy.baseline.named, *kept, *operation)))

    def _required_by_hook(
        self, request: RequestInfo, admission: Admission, scopes: tuple[str, ...], verified: Verified
    ) -> Refusal:
        required = self._resource.policy.hierarchy.require(scopes)
        lacking = self._lacking(request, [*admission.needed, required], verified, admission.operations)
        if lacking is not None:
            return lacking
        found = "NeedScopes names only scopes that are granted"  # asking for them again would be a loop
        return Forbidden(Reason.DENIED_BY_HOOK, found=found, client_id=verified.auth_info.client_id)

    def _filtering(self, info: AuthInfo | None, fields: MCPFields, asked: Iterable[Asked] | None) -> WrapSend | None:
        """Return a wrapper of `send` that removes unusable entries from lists; None if no list is filtered.

        Without `info` the caller is unauthenticated: the list keeps what the caller may use after signing in, if the
        policy has public targets.
        """
        rules = self._rules
        if not self._rewrites_lists:
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

        def lacks(kind: TargetKind, name: str) -> tuple[str, ...] | None:
            listed = self._rules.listed(kind, name)
            if isinstance(listed, Forbidden):
                return None
            is_public = rules.is_listed_public(kind, name)
            if info is None and rules.has_public_targets:
                return ()
            needed = listed if is_public else [baseline, *listed]
            strengths = [one.strength for one in needed if one.strength is not None]
            strong = all(strength.met_by(claims, now, leeway) for strength in strengths)
            if strong and all(one.met_by(granted) for one in needed):
                return ()
            return tuple(dict.fromkeys(scope for one in needed for scope in one.named)) or None

        def schemes(tool: str) -> list[JSONValue] | None:
            listed = rules.listed("tool", tool)
            if isinstance(listed, Forbidden):
                return None
            is_public = rules.is_listed_public("tool", tool)
            names = [name for one in (listed if is_public else [baseline, *listed]) for name in one.named]
            oauth2: JSONValue = {"type": "oauth2", "scopes": [*dict.fromkeys(names)]}
            if not is_public:
                return [oauth2]
            return [{"type": "noauth"}, *([oauth2] if names else [])]

        rewriting = ListRules(
            lacks if rules.filter_lists else None,
            schemes if "security_schemes" in rules.annotate_lists else None,
            mark="required_scopes" in rules.annotate_lists,
            modern=fields.modern,
        )
        return lambda send: rewrite_lists(send, lists, rewriting)


def _with_session(admission: Admission, session: Overrides) -> Admission:
    """Return the admission with the changes that the session makes."""
    own = admission.overrides
    both = _both(own.wrap_send, session.wrap_send)
    return admission._replace(overrides=session._replace(receive=own.receive, wrap_send=both, listens=own.listens))


def _both(inner: WrapSend | None, outer: WrapSend | None) -> WrapSend | None:
    if inner is None or outer is None:
        return inner or outer
    return lambda send: inner(outer(send))
