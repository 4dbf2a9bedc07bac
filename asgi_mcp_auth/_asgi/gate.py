"""Step 9 of a request: whether its token is enough for what it asks for, path and body together.

The JSON-RPC body decides, header fields can only refuse. It is read after the token was verified (but for public
methods), once, and only where a rule, a hook or a list needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asgi_mcp_auth._asgi.body import read_body, replay, without_body
from asgi_mcp_auth._asgi.filtering import filter_lists
from asgi_mcp_auth._asgi.sessions import SessionBinding
from asgi_mcp_auth._protocol.mcp_headers import BATCHING, MCPFields, check_fields, header_params, mismatch
from asgi_mcp_auth._protocol.operations import IN_BODY_ONLY, LISTS, operation_of_fields, operations
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.resource import CompiledResource
from asgi_mcp_auth._protocol.rpc import malformed, read_messages
from asgi_mcp_auth._protocol.scopes import Requirement
from asgi_mcp_auth._remote.authorizers import ask_authorize
from asgi_mcp_auth._remote.verifiers import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Forbidden, InsufficientAuthentication, InsufficientScope, Refusal
from asgi_mcp_auth.message_errors import MessageRefused
from asgi_mcp_auth.reasons import Reason

__all__ = ("Gate", "Passage")

WITHOUT_MESSAGE = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
MAX_PUBLIC_BODY = 65_536  # read for somebody without a token


class Passage(NamedTuple):
    """How an admitted request goes on to the app; None stands for what the server gave."""

    receive: Any = None
    operations: tuple[Operation, ...] = ()
    wrap_send: Callable[[Any], Any] | None = None
    scope: Any = None


OPEN = Passage()


class Gate:
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
        self._sessions = None if auth.session_store is None else SessionBinding(auth.session_store, resource.identifier)
        self._reads = self._rules.any or self._rules.filter_lists or auth.authorize is not None
        self._leeways = {trusted.rules.issuer: trusted.rules.leeway for trusted in resource.trust.named}
        self.public_methods = self._rules.public_methods
        self._places = {scope: place for place, scope in enumerate(resource.policy.known)}
        self._looks_inside = self._reads or self._sessions is not None

    def by_path_alone(self, rule: int | None, plain: bool) -> tuple[frozenset[str], ...] | None:
        """What satisfies each need of a path, where scopes are all that has a say; None where `admit` has to say it."""
        path = self._resource.requirement(rule)
        return path.satisfied_by if path.strength is None and (plain or not self._looks_inside) else None

    async def admit(  # noqa: PLR0917 - the request and what is known of it
        self, request: Request, rule: int | None, plain: bool, receive: Any, verified: Verified, token: bytes
    ) -> Passage | Refusal:
        """Whether the caller may do this."""
        path = self._resource.requirement(rule)
        if plain or not self._looks_inside:
            if path.strength is None and path.met_by(verified.auth_info.scopes):
                return OPEN
            return self._lacking(request, [path], verified) or OPEN
        if request.is_websocket:  # its messages cannot be judged
            if self._reads:
                return Forbidden(Reason.WEBSOCKETS_DISABLED, found="operation rules cannot judge a websocket")
            return self._lacking(request, [path], verified) or OPEN
        fields = MCPFields.read(request.scope["headers"])
        passage = await self._admit_message(request, path, receive, verified, fields, token)
        if isinstance(passage, Refusal) or self._sessions is None:
            return passage
        bound = await self._sessions.check(request.scope, fields.modern, verified.auth_info, token)
        if isinstance(bound, Refusal):
            return bound
        return passage._replace(scope=bound.scope, wrap_send=_both(passage.wrap_send, bound.wrap_send))

    async def _admit_message(  # noqa: PLR0917 - as above; each step has its exit
        self, request: Request, path: Requirement, receive: Any, verified: Verified, fields: MCPFields, token: bytes
    ) -> Passage | Refusal:
        if not self._reads:
            return self._lacking(request, [path], verified) or OPEN
        if request.method in WITHOUT_MESSAGE:
            filtering = self._filtering(verified.auth_info, fields, None) if request.method == "GET" else None
            return self._lacking(request, [path], verified) or Passage(without_body(receive), (), filtering)
        try:
            asked, receive = await self._read(request, receive, fields, self._max_body)
            needed = [path]
            for operation in asked:
                more = self._rules.requirements(operation)
                if isinstance(more, Forbidden):
                    more.client_id, more.operation = verified.auth_info.client_id, str(operation)
                    return self._lacking(request, [path], verified) or more
                needed += more
        except MessageRefused as refused:  # the baseline is asked for first, whatever the body is
            return self._lacking(request, [path], verified) or refused.bare()
        granted = verified.auth_info.scopes
        for requirement in needed:  # the usual case, told at once
            if requirement.strength is not None or not requirement.met_by(granted):
                lacking = self._lacking(request, needed, verified, asked)
                if lacking is not None:
                    return lacking
                break
        if self._authorize is not None:
            more_scopes = await ask_authorize(self._authorize, verified.auth_info, asked, request, token)
            if isinstance(more_scopes, Refusal):
                return more_scopes
            if more_scopes:
                return self._wanted_by_hook(request, needed, more_scopes, verified, asked)
        return Passage(receive, tuple(asked), self._filtering(verified.auth_info, fields, asked))

    async def admit_public(self, request: Request, plain: bool, receive: Any) -> Passage | None:
        """The way for a request without a token that asks for nothing but public methods; None for any other."""
        if not self.public_methods or plain or request.is_websocket or request.method != "POST":
            return None
        fields = MCPFields.read(request.scope["headers"])
        if self._sessions is not None and any(name == b"mcp-session-id" for name, _ in request.scope["headers"]):
            return None  # a session has an owner
        try:
            asked, receive = await self._read(request, receive, fields, min(self._max_body, MAX_PUBLIC_BODY))
        except MessageRefused:
            return None
        if not asked or any(operation.method not in self.public_methods for operation in asked):
            return None
        return Passage(receive, tuple(asked), self._filtering(None, fields, asked))

    async def _read(self, request: Request, receive: Any, fields: MCPFields, limit: int) -> tuple[list[Operation], Any]:
        """The operations of a request, and `receive` for the app.

        Raises:
            MessageRefused: There is no telling what they are.
        """
        headers = request.scope["headers"]
        params = header_params(headers, None) if self._authorize is not None else {}
        if self._rules.headers_only:
            operation = operation_of_fields(fields, params)
            if operation.method not in IN_BODY_ONLY:
                return [operation], receive
        body = await read_body(receive, fields, limit)
        messages, batch = read_messages(body)
        if fields.repeated is not None:
            raise mismatch(fields.repeated, messages[0].message_id)
        if batch and fields.version != BATCHING and not (fields.version is None and self._rules.allow_batches):
            what = "a batch"
            raise malformed(what)
        for message in messages:
            check_fields(fields, message)
            if message.method is None and fields.modern:
                what = "a response from a client"
                raise malformed(what, message_id=message.message_id)
        return operations(messages, params), replay(body, receive)

    def _lacking(
        self, request: Request, needed: Iterable[Requirement], verified: Verified, asked: Iterable[Operation] = ()
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
        told = ", ".join(map(str, list(asked)[:3]))
        refusal.operation = told or None
        return refusal

    def _named(self, request: Request, requirements: list[Requirement], verified: Verified) -> tuple[str, ...]:
        """The scopes of a challenge: the baseline, the granted ones where clients do not add them, the operation's."""
        policy = self._resource.policy
        cumulative = policy.cumulative
        if cumulative is None:  # clients since 2026-07-28 add what they were granted before
            cumulative = not MCPFields.read(request.scope["headers"]).modern
        granted = verified.auth_info.scopes if cumulative else ()
        known = sorted(self._places[scope] for scope in set(granted) if scope in self._places)
        kept = [policy.hierarchy.wire_name(policy.known[place]) for place in known]
        operation = [name for requirement in requirements for name in requirement.named]
        return tuple(dict.fromkeys((*policy.baseline.named, *kept, *operation)))

    def _wanted_by_hook(
        self,
        request: Request,
        needed: list[Requirement],
        scopes: tuple[str, ...],
        verified: Verified,
        asked: list[Operation],
    ) -> Refusal:
        wanted = self._resource.policy.hierarchy.require(scopes)
        lacking = self._lacking(request, [*needed, wanted], verified, asked)
        if lacking is not None:
            return lacking
        found = "NeedScopes names nothing but granted scopes"  # to ask for them again would be a loop
        return Forbidden(Reason.DENIED_BY_HOOK, found=found, client_id=verified.auth_info.client_id)

    def _filtering(
        self, info: AuthInfo | None, fields: MCPFields, asked: Iterable[Operation] | None
    ) -> Callable[[Any], Any] | None:
        """What takes unusable entries out of lists on their way to the client: None for nobody, who has no scopes."""
        if not self._rules.filter_lists:
            return None
        lists = None if asked is None else {op.message_id: op.method for op in asked if op.method in LISTS}
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


def _both(inner: Callable[[Any], Any] | None, outer: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if inner is None or outer is None:
        return inner or outer
    return lambda send: inner(outer(send))
