"""The time that the middleware adds to one request in process, and to the start of a program.

Measured region: `await app(scope, receive, send)` around a trivial ASGI app on one asyncio loop. Each call has a new
scope, made before the measurement. Times are processor times. Not measured: the server, the network, the client, and
fetching keys, which are cached. The control is the bare app; a figure is a case minus its control of the same round.
The lower bound is hand-written and checks almost nothing (see `least`). The bare signature checks call
`cryptography` directly. For bodies, the app reads the body and the control is the same middleware without rules: the
figure is the cost of reading, strict parsing, comparing the header fields and finding the rule. Imports are timed in
new processes with compiled bytecode; their control imports `jwt` alone.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from exchanges import (
    METADATA_PATH,
    RESOURCE,
    SCOPE,
    FreshTokens,
    in_turn,
    make_body,
    make_exchange,
    protected,
    reading_app,
    resource_config,
    trivial_app,
)
from least import Least
from measuring import NOTHING, Case, Effort, Spread, Times, WrongAnswerError, added, measure, spread
from reporting import Cell, Promise, Report, Table

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    Choose,
    Decision,
    Introspection,
    MCPAuth,
    MemoryStore,
    TokenExchange,
)
from asgi_mcp_auth._options import MCPAuthOptions
from asgi_mcp_auth._signals.watermarks import watermark_of
from asgi_mcp_auth.auth import protection_of
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("run",)

ALGORITHMS = ("RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "Ed25519", "Ed448")
BARE = "control: the bare app"
LEAST = "lower bound for a known token"
UNRULED = "{}, without rules"
BODIES = {"200 B": 200, "4 KB": 4096, "256 KB": 262_144}
PUBLIC = "200 B, public tool without a token"
BRIDGED = "known token, MCP SDK bridge"
BELOW = "known token, below the resource's path"
OBSERVED = "known token, with an observer"
SAMPLED = "known token, with an observer that wants nothing"
NOT_AUDITED = "known token, with an audit log that wants nothing"
AUDITED = "known token, audited"
AUDITED_CALL = "known token, audited tool call"
MEASURED = "known token, with telemetry"
KNOWN = "known token"
REFUSED = "no token: 401"
REPORTING = ((SAMPLED, KNOWN, 2.0), (OBSERVED, KNOWN, 10.0), (MEASURED, KNOWN, 10.0), (AUDITED, NOT_AUDITED, 10.0))
"""What may be added to a known token, in µs: what reports, what it is compared with, and the limit."""
PROVEN = "known token, with a DPoP proof"
OPAQUE = "known opaque token"
UNREVOKED = "known token, revocation without watermarks"
REVOCABLE = "known token, 10,000 watermarks of five kinds"
EXCHANGED = "known token, with an exchanged token from the cache"
FLOOD = 2000

VerifyOnce = Callable[[], None]


def bare_check(issuer: Issuer, key: SigningKey) -> VerifyOnce:
    """Return a function that does the signature check alone."""
    signing_input, _, encoded = issuer.mint(RESOURCE, scope=SCOPE, key=key).rpartition(".")
    message, signature = signing_input.encode("ascii"), base64.urlsafe_b64decode(encoded + "==")
    public = key.private.public_key()
    if key.alg.startswith("Ed"):
        return lambda: public.verify(signature, message)
    digests: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
    digest = digests[key.alg[2:]]
    if key.alg.startswith("ES"):
        half = len(signature) // 2
        der = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
        return lambda: public.verify(der, message, ec.ECDSA(digest))
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size) if key.alg[0] == "P" else padding.PKCS1v15()
    return lambda: public.verify(signature, message, scheme, digest)


def as_exchange(check: VerifyOnce) -> Callable[[], Awaitable[None]]:
    """Return a bare check as a coroutine function."""

    async def exchange() -> None:
        check()

    return exchange


async def seasoned(app: Any, tokens: Sequence[str]) -> Callable[[], Awaitable[int]]:
    """Return exchanges with tokens in turn; the app has seen each token once."""
    for token in tokens:
        if (status := await make_exchange(app, token)()) != 200:
            msg = f"a good token was answered {status}"
            raise WrongAnswerError(msg)
    return make_exchange(app, in_turn(tokens))


def ignore(_: Decision) -> None:
    """Observe nothing."""


def ignore_line(_: str) -> None:
    """Keep no line of the audit log."""


def never_revoked(_: AuthInfo) -> bool:
    """Accept every token."""
    return False


class SampledOut:
    """An observer that wants no decision."""

    def wants(self, outcome: str) -> bool:
        """Return False for every outcome."""
        del outcome
        return False

    def __call__(self, decision: object) -> None:
        """Ignore a decision."""


def simple_cases(issuer: Issuer) -> list[Case]:
    """Return the cases with one known token, with no token, and for the metadata."""
    app, known = protected(issuer), issuer.mint(RESOURCE, scope=SCOPE)
    checking, least = protected(issuer, options={"allowed_hosts": ["mcp.example.com"]}), Least(trivial_app, known)
    revocable = protected(issuer, options={"is_revoked": never_revoked})
    return [
        NOTHING,
        Case(name=BARE, exchange=make_exchange(trivial_app, known)),
        Case(name=LEAST, exchange=make_exchange(least, known), control=BARE),
        Case(name=KNOWN, exchange=make_exchange(app, known), control=BARE),
        Case(name=BELOW, exchange=make_exchange(app, known, path="/mcp/notes/1"), control=BARE),
        Case(name="known token, revocation hook", exchange=make_exchange(revocable, known), control=BARE),
        Case(name="known token, Host checked", exchange=make_exchange(checking, known), control=BARE),
        Case(name=REFUSED, exchange=make_exchange(app), expected=401, control=BARE),
        Case(name="metadata document", exchange=make_exchange(app, path=METADATA_PATH), control=BARE),
    ]


def audited(issuer: Issuer, *operations: str) -> Any:
    """Return an app whose audit log has these operations."""
    options: MCPAuthOptions = {
        "audit": "best_effort",
        "audit_sink": ignore_line,
        "audit_operations": [*operations],
    }
    return protected(issuer, reading_app, options=options)


def reporting_cases(issuer: Issuer) -> list[Case]:
    """Return the cases with one known token whose decision is reported."""
    known = issuer.mint(RESOURCE, scope=SCOPE)
    observed = protected(issuer, options={"on_decision": [ignore]})
    sampled = protected(issuer, options={"on_decision": [SampledOut()]})
    measured, every = protected(issuer, options={"telemetry": True}), audited(issuer, "*")
    no_call = audited(issuer, "tools/call purge*")
    body = make_body(200)
    return [
        Case(name=OBSERVED, exchange=make_exchange(observed, known), control=BARE),
        Case(name=SAMPLED, exchange=make_exchange(sampled, known), control=BARE),
        Case(name=MEASURED, exchange=make_exchange(measured, known), control=BARE),
        Case(name=NOT_AUDITED, exchange=make_exchange(no_call, known, method="GET"), control=BARE),
        Case(name=AUDITED, exchange=make_exchange(every, known, method="GET"), control=BARE),
        Case(name=AUDITED_CALL, exchange=make_exchange(every, known, body=body), control=BARE),
    ]


def algorithm_cases(issuer: Issuer, calls: int) -> list[Case]:
    """Return the cases with new tokens of each algorithm, and its bare check."""
    app, cases = protected(issuer), list[Case]()
    for key in issuer.keys:
        tokens = FreshTokens.of(issuer, key, calls)
        new = make_exchange(app, tokens.next)
        cases.append(Case(name=f"new {key.alg} token", exchange=new, control=BARE, prepare=tokens.prepare, calls=calls))
        bare = as_exchange(bare_check(issuer, key))
        cases.append(Case(name=f"bare {key.alg} check", exchange=bare, expected=None, calls=calls))
    return cases


def proof_case(issuer: Issuer, calls: int) -> Case:
    """Return the case with a token that is bound to a key, and a new proof for each request."""
    app = protected(issuer, options={"dpop": "allowed"})
    token = issuer.mint(RESOURCE, scope=SCOPE, cnf={"jkt": issuer.proof_key.thumbprint})
    proofs = FreshTokens(lambda: issuer.prove("POST", RESOURCE, token), calls)
    exchange = make_exchange(app, token, proof=proofs.next)
    return Case(name=PROVEN, exchange=exchange, control="known token", prepare=proofs.prepare, calls=calls)


def minting(issuer: Issuer, names: Sequence[str]) -> Callable[[], str]:
    """Return a function that mints tokens with these issuers in turn."""
    name = in_turn(names)
    return lambda: issuer.mint(RESOURCE, scope=SCOPE, iss=name())


async def population_cases(sizes: Sequence[int], calls: int) -> list[Case]:
    """Return the cases with many tokens of one issuer, and with tokens of many issuers that a resolver admitted."""
    issuer, cases = Issuer(algorithms=("Ed25519",)), list[Case]()
    for size in sizes:
        known = await seasoned(protected(issuer), [issuer.mint(RESOURCE, scope=SCOPE) for _ in range(size)])
        cases.append(Case(name=f"known token, {size:,} distinct", exchange=known, control=BARE))

        def resolver(name: str) -> AuthServerConfig:
            return AuthServerConfig(issuer=name, jwks=issuer.jwks())

        names = [f"https://{number}.tenants.example.com" for number in range(size)]
        of_each = [issuer.mint(RESOURCE, scope=SCOPE, iss=name) for name in names]
        # One app per case: in one app, the new tokens would evict the known ones.
        admitting, app = (
            MCPAuth(resource_config(["https://auth.example.com", resolver])).wrap(trivial_app) for _ in range(2)
        )
        await seasoned(app, of_each)
        many = await seasoned(admitting, of_each)
        cases.append(Case(name=f"known token, {size:,} issuers", exchange=many, control=BARE))
        tokens = FreshTokens(minting(issuer, names), calls)
        new = make_exchange(app, tokens.next)
        name = f"new Ed25519 token, {size:,} issuers"
        cases.append(Case(name=name, exchange=new, control=BARE, prepare=tokens.prepare, calls=calls))
    return cases


def introspecting(issuer: Issuer, http_client: Callable[[], httpx.AsyncClient] | None = None) -> Any:
    """Return an app that introspects opaque tokens."""
    introspection = Introspection(client_id="rs", client_secret="rs", ttl=300, inactive_ttl=60)  # noqa: S106
    given: MCPAuthOptions = {"verifier": Choose(opaque=introspection)}
    if http_client is not None:
        given["http_client"] = http_client
    return protected(issuer, options=given)


async def opaque_cases(issuer: Issuer, calls: int) -> list[Case]:
    """Return the cases with opaque tokens. A new one includes an exchange of httpx with an issuer in process."""
    app = introspecting(issuer)
    known = issuer.mint_opaque(RESOURCE, scope=SCOPE)
    tokens = FreshTokens(lambda: issuer.mint_opaque(RESOURCE, scope=SCOPE), calls)
    new, unknown = make_exchange(app, tokens.next), make_exchange(app, "unknown")
    return [
        Case(name=OPAQUE, exchange=await seasoned(app, [known]), control=BARE),
        Case(name="unknown opaque token, asked before", exchange=unknown, expected=401, control=BARE),
        Case(name="new opaque token", exchange=new, control=BARE, prepare=tokens.prepare, calls=calls),
    ]


def revocation_cases(issuer: Issuer) -> list[Case]:
    """Return the cases with revocation on: without watermarks, and with many of every kind, none of which matches."""
    known = issuer.mint(RESOURCE, scope=SCOPE, jti="t", sid="s", email="alice@example.com")
    options: list[MCPAuthOptions] = [{"revocation": True, "store": MemoryStore()} for _ in range(2)]
    empty, full = (protected(issuer, options=each) for each in options)
    revocations = protection_of(full.auth).revocations
    if revocations is None:
        raise WrongAnswerError("revocation is off")
    now = issuer.clock()
    for other in (f"other-{number}" for number in range(2000)):
        claim = ("email", other)
        for watermark in (
            watermark_of(issuer.url, other, None, None, None, None, now),
            watermark_of(issuer.url, other, "c1", None, None, None, now),
            watermark_of(issuer.url, None, None, other, None, None, now),
            watermark_of(issuer.url, None, None, None, other, None, now),
            watermark_of(issuer.url, None, None, None, None, claim, now),
        ):
            revocations.watermarks.add(watermark)
    return [
        Case(name=UNREVOKED, exchange=make_exchange(empty, known), control=KNOWN),
        Case(name=REVOCABLE, exchange=make_exchange(full, known), control=KNOWN),
    ]


def exchange_cases(issuer: Issuer) -> list[Case]:
    """Return the case of an app that exchanges the caller's token, which is in the cache after the first request."""

    async def calling(scope: Any, receive: Any, send: Any) -> None:
        await app.auth.exchange(audience="https://api.example.com", scopes=["orders:read"])
        await trivial_app(scope, receive, send)

    settings = TokenExchange(client_id="mcp-server", client_secret="secret")  # noqa: S106
    app = protected(issuer, calling, options={"token_exchange": [settings]})
    token = issuer.mint(RESOURCE, scope=SCOPE, exp=int(issuer.clock()) + 86_400)
    return [Case(name=EXCHANGED, exchange=make_exchange(app, token), control=KNOWN)]


async def opaque_flood(issuer: Issuer) -> Table:
    """Send unknown opaque tokens at once, and count the calls of an introspection endpoint that takes 5 ms."""
    running, most, asked = 0, 0, 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most, asked
        if scope["path"] == "/introspect":
            running, asked = running + 1, asked + 1
            most = max(most, running)
            await asyncio.sleep(0.005)
            running -= 1
        await issuer(scope, receive, send)

    app = introspecting(issuer, http_client=lambda: httpx.AsyncClient(transport=httpx.ASGITransport(slow)))
    statuses = Counter(await asyncio.gather(*(make_exchange(app, f"unknown-{number}")() for number in range(FLOOD))))
    columns = ("unknown tokens at once", "calls at once", "calls", "answered 401", "answered 503")
    row = (f"{FLOOD:,}", str(most), str(asked), str(statuses[401]), str(statuses[503]))
    return Table(title="A flood of unknown opaque tokens", columns=columns, rows=[row])


async def body_cases(issuer: Issuer, effort: Effort) -> list[Case]:
    """Return the cases with bodies under tool rules, and the same without rules."""
    cases, token = list[Case](), issuer.mint(RESOURCE, scope=SCOPE)
    without = protected(issuer, reading_app)
    anonymous = make_exchange(protected(issuer, reading_app, public_tools=["add"]), body=make_body(200))
    rules = {"add": [SCOPE], "delete_*": ["mcp:write"], "purge": ["mcp:admin"]}
    ruled = protected(issuer, reading_app, tools=rules)
    forbidden = make_exchange(ruled, token, body=make_body(200, tool="purge"))
    if (status := await forbidden()) != 400:  # its header field says add
        msg = f"a call of another tool than the header field names was answered {status}"
        raise WrongAnswerError(msg)
    for name, size in BODIES.items():
        calls, body, control = effort.of(max(4, 200 * 1000 // size), 2), make_body(size), UNRULED.format(name)
        cases += [
            Case(name=control, exchange=make_exchange(without, token, body=body), calls=calls),
            Case(name=name, exchange=make_exchange(ruled, token, body=body), control=control, calls=calls),
        ]
    cases.append(Case(name=PUBLIC, exchange=anonymous, control=UNRULED.format("200 B"), calls=effort.of(1000, 2)))
    return cases


def bridge_cases(issuer: Issuer) -> list[Case]:
    """Return the case with the MCP SDK loaded, which changes the scope for the app. It runs last: the import stays."""
    try:
        import mcp.server.auth.middleware.auth_context  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return []
    token = issuer.mint(RESOURCE, scope=SCOPE)
    return [Case(name=BRIDGED, exchange=make_exchange(protected(issuer), token), control=BARE)]


def milliseconds_to_run(statement: str) -> float:
    """Return the time of an import statement, as measured in a new process."""
    program = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1e3)"
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def imports(rounds: int) -> tuple[Table, list[Promise]]:
    """Return the import times, and the time that the package adds to the import of `jwt`.

    The package imports a public name when it is used; the last row is what a program needs that uses the middleware.
    """
    jwt, package, use = "import jwt", "import asgi_mcp_auth", "from asgi_mcp_auth import MCPAuthMiddleware"
    statements = {"nothing: a module that is there": "import time", jwt: jwt}
    statements |= {package: f"{jwt}; {package}", use: f"{jwt}; {use}"}
    for statement in statements.values():
        milliseconds_to_run(statement)
    times = {name: list[float]() for name in statements}
    for _ in range(rounds):
        for name, statement in statements.items():
            times[name].append(milliseconds_to_run(statement))
    over = {name: added(times[name], times[jwt]) for name in (package, use)}
    rows: list[tuple[Cell, ...]] = [(name, spread(times[name]), over.get(name)) for name in statements]
    table = Table(title="Importing", columns=("program", "ms", "ms over import jwt"), rows=rows)
    promised = [Promise(name=name, limit=60, measured=over[name], unit="ms over import jwt") for name in over]
    return table, promised


def case_table(title: str, cases: Sequence[Case], times: Times) -> Table:
    """Return a table of the cost of each case, and of the cost added to its control."""
    rows: list[tuple[Cell, ...]] = []
    for case in cases:
        beside = None if case.control is None else added(times[case.name], times[case.control])
        rows.append((case.name, spread(times[case.name]), beside))
    return Table(title=title, columns=("case", "µs", "µs added to its control"), rows=rows, plotted=2)


def algorithm_table(times: Times) -> Table:
    """Return a table that compares new tokens with bare checks."""
    rows: list[tuple[Cell, ...]] = []
    for alg in ALGORITHMS:
        new, bare = times[f"new {alg} token"], times[f"bare {alg} check"]
        cost = [own - none for own, none in zip(new, times[BARE], strict=True)]
        ratio = spread(one / other for one, other in zip(cost, bare, strict=True))
        rows.append((alg, spread(bare), spread(cost), ratio, added(cost, bare)))
    columns = ("algorithm", "bare check, µs", "µs added", "times the bare check", "µs over the bare check")
    return Table(title="A new token and the bare check of cryptography", columns=columns, rows=rows, plotted=2)


def promises(times: Times, algorithms: Table, importing: Sequence[Promise]) -> list[Promise]:
    """Return the targets with their measured values."""
    by_name = {row[0]: row for row in algorithms.rows}

    def beside(case: str, limit: float, control: str = BARE, name: str | None = None) -> Promise:
        floor = added(times[LEAST], times[BARE]) if case == KNOWN else None
        measured = added(times[case], times[control])
        return Promise(name=name or case, limit=limit, measured=measured, unit="µs added", floor=floor)

    def checked(alg: str, column: int, limit: float, unit: str) -> Promise:
        measured = by_name[alg][column]
        assert isinstance(measured, Spread)
        return Promise(name=f"new {alg} token", limit=limit, measured=measured, unit=unit)

    def proven(limit: float) -> Promise:
        cost, bare = times[PROVEN], times["bare ES256 check"]
        over = [own - known for own, known in zip(cost, times["known token"], strict=True)]
        measured = spread(one / other for one, other in zip(over, bare, strict=True))
        return Promise(name=PROVEN, limit=limit, measured=measured, unit="times the bare ES256 check")

    def opaque(limit: float) -> Promise:
        pairs = zip(added_each(OPAQUE), added_each(KNOWN), strict=True)
        measured = spread(own / known for own, known in pairs)
        return Promise(name=OPAQUE, limit=limit, measured=measured, unit="times a known JWT")

    def added_each(case: str) -> list[float]:
        return [own - bare for own, bare in zip(times[case], times[BARE], strict=True)]

    return [
        beside(KNOWN, 7),
        beside(BELOW, 8),
        beside(OBSERVED, 8),
        *(beside(case, limit, control, f"{case}, over: {control}") for case, control, limit in REPORTING),
        *([beside(BRIDGED, 10)] if BRIDGED in times else []),
        opaque(1.5),
        beside(EXCHANGED, 20, KNOWN),
        beside(REVOCABLE, 1.5, UNREVOKED, f"{REVOCABLE}, over none"),
        beside(REFUSED, 4.5),
        beside("metadata document", 4.5),
        proven(1.6),
        checked("RS256", 3, 2.5, "times the bare check"),
        checked("ES256", 4, 40, "µs over the bare check"),
        checked("Ed25519", 4, 40, "µs over the bare check"),
        beside("200 B", 16, UNRULED.format("200 B"), "policy decision on a 200 B POST"),
        *importing,
    ]


async def measure_all(effort: Effort) -> Report:
    rounds, calls, few = effort.of(25, 2), effort.of(500, 3), effort.of(100, 2)
    issuer = Issuer(algorithms=ALGORITHMS)
    population = (1, 100, 10_000)[: effort.of(3, 2)]
    simple = [
        *simple_cases(issuer),
        *reporting_cases(issuer),
        proof_case(issuer, few),
        *await opaque_cases(issuer, few),
        *exchange_cases(issuer),
        *revocation_cases(issuer),
        *await population_cases(population, few),
    ]
    bodies, signed = await body_cases(issuer, effort), algorithm_cases(issuer, few)
    bridged = bridge_cases(issuer)
    times = await measure([*simple, *signed, *bodies, *bridged], rounds=rounds, calls=calls)
    algorithms = algorithm_table(times)
    importing, over_jwt = imports(effort.of(15, 1))
    return Report(
        name="in process",
        tables=[
            case_table("One request", [*simple, *bridged], times),
            algorithms,
            case_table("A JSON-RPC body", bodies, times),
            await opaque_flood(issuer),
            importing,
        ],
        promises=promises(times, algorithms, over_jwt),
        notes=() if bridged else ("The MCP SDK is not installed: its bridge is not measured.",),
    )


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    return asyncio.run(measure_all(effort))
