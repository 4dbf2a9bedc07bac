"""`asgi-mcp-auth doctor` and `explain`: reading the token, showing progress, printing findings and steps."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import click
from rich.text import Text

from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.cli._terminal import console, write
from asgi_mcp_auth.config import DPoPMode, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.doctor import (
    Explanation,
    Finding,
    Kind,
    Report,
    Severity,
    examine,
    explain,
    find_issuers,
    find_kinds,
    is_url,
    load_configuration,
)
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("Proof", "explain_with", "is_url", "read_token", "run_doctor", "run_explain")

T = TypeVar("T")

VERSION = 1
"""The version of the JSON format."""
QUIET_SECONDS = 1.0
INDENT = 11  # columns before the code of a finding
LONGEST_TOKEN = 64 * 1024
LONGEST_VALUE = 200
WHY_NOT_AN_ARGUMENT = (
    "A token is read from standard input, never from an argument: arguments end up in the history of the shell, and "
    "every user of the machine can see them."
)
STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "yellow",
    Severity.INFO: "cyan",
    Severity.OK: "green",
}
OUTCOMES: Final = {"pass": "green", "fail": "bold red", "not reached": "dim"}


class Proof(NamedTuple):
    """A DPoP proof, the method of its request, and a client certificate in PEM."""

    proof: str | None = None
    method: str = "POST"
    certificate: str | None = None


NO_PROOF: Final = Proof()


def read_token(source: str) -> str:
    """Return the token on standard input; a terminal does not show it while it is typed.

    Raises:
        click.UsageError: `source` is not "-", so perhaps a token; or standard input is empty.
    """
    if source != "-":
        raise click.UsageError(WHY_NOT_AN_ARGUMENT)  # without the argument, which may be a token
    if sys.stdin.isatty():
        text = str(click.prompt("Token", hide_input=True, err=True))
    else:
        text = sys.stdin.buffer.read(LONGEST_TOKEN).decode("utf-8", "replace")
    token = text.strip()
    scheme, _, rest = token.partition(" ")
    if scheme.lower() in ("bearer", "dpop"):
        token = rest.strip()
    if not token:
        raise click.UsageError("There is no token on standard input. Pipe or type one.")
    return token


def _run(work: Callable[[Callable[[str], None]], Awaitable[T]]) -> T:
    """Run async work; on a terminal, show after a second which URL it is waiting for."""
    logging.getLogger("asgi_mcp_auth").addHandler(logging.NullHandler())  # the findings report what matters
    status = console(stderr=True).status("")
    soon = threading.Timer(QUIET_SECONDS, status.start)
    if sys.stderr.isatty():
        soon.start()

    def progress(url: str) -> None:
        status.update(Text(f"asking {printable(url, 100)}"))

    try:
        return anyio.run(work, progress)
    finally:
        soon.cancel()
        if soon.ident is not None:  # the timer was started, and may be running
            soon.join()
        status.stop()


def run_doctor(targets: Sequence[str], kind: Kind | None, token: str | None, *, as_json: bool, strict: bool) -> int:
    """Examine the targets, with `token` the apps of the resources too, and print the findings. Return the exit status.

    Raises:
        click.UsageError: `token` is not an access token.
    """
    try:
        reports = _run(lambda progress: examine(targets, kind, token=token, progress=progress))
    except ConfigurationError as error:
        raise click.UsageError(" ".join(map(str, error.problems))) from None
    errors = sum(report.count(Severity.ERROR) for report in reports)
    warnings = sum(report.count(Severity.WARNING) for report in reports)
    failed = errors > 0 or (strict and warnings > 0)
    if as_json:
        _print_json({"errors": errors, "warnings": warnings, "reports": [report.to_dict() for report in reports]})
    else:
        for report in reports:
            _print_report(report)
        summary = f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}."
        write(console(), summary, "bold red" if failed else "green")
    return int(failed)


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps({"version": VERSION, **content}, indent=2))


def _print_report(report: Report) -> None:
    out = console()
    write(out, f"{printable(report.target, 500)} ({report.kind or 'not recognised'})", "bold")
    for finding in report.findings:
        write(out, _headline(finding), hanging=INDENT)
        for name, text in (("found", finding.evidence), ("fix", finding.fix), ("see", _reference(finding))):
            if text:
                write(out, f"{' ' * INDENT}{name}: {text}", "dim" if name == "see" else "", hanging=INDENT + 2)
    out.print()


def _headline(finding: Finding) -> Text:
    style = STYLES[finding.severity]
    severity = Text(f"  {finding.severity.value:<8} ", style)
    return severity.append(finding.code.name, "bold").append(f": {finding.code.means} [{finding.subject}]", "")


def _reference(finding: Finding) -> str:
    return "" if finding.severity is Severity.OK else finding.reference


def explain_with(
    token: str,
    config: str | None,
    resource: str | None,
    issuers: Sequence[str],
    scopes: Sequence[str],
    *,
    as_json: bool,
    sent: Proof = NO_PROOF,
) -> int:
    """Explain a token for the configuration of a file, the environment or the options. Return the exit status."""
    from_options = bool(issuers or scopes) or (resource is not None and config is None and not _environment())
    if config is not None and (issuers or scopes):
        raise click.UsageError("--issuer and --scope cannot be combined with --config. Remove them, or --config.")
    if from_options and resource is None:
        raise click.UsageError("The resource is missing. Pass --resource URL.")
    if not from_options and config is None and not _environment():
        msg = "There is no configuration to verify the token with. Pass --config FILE or --resource URL."
        raise click.UsageError(msg)

    try:
        if from_options and resource is not None:
            trusted = issuers or _run(partial(_issuers_of, resource))
            auth = _configured(resource, trusted, scopes, "off" if sent.proof is None else "allowed")
        else:
            auth = load_configuration(config)
        explanation = _run(lambda _: explain(auth, token, resource, **sent._asdict()))
    except ConfigurationError as error:
        write(console(stderr=True), str(error), hanging=4)
        return 2
    if as_json:
        _print_json(explanation.to_dict())
    else:
        _print_explanation(explanation)
    return int(not explanation.accepted)


def run_explain(token: str, targets: Sequence[str], kind: Kind | None, *, as_json: bool) -> int:
    """Explain a token for the targets of `doctor`. Return the exit status."""
    files = [target for target in targets if kind == "config" or not is_url(target)]
    urls = [target for target in targets if target not in files]
    if len(files) > 1:
        raise click.UsageError("There is more than one configuration file. Pass one.")
    if files:
        return explain_with(token, files[0], urls[0] if urls else None, (), (), as_json=as_json)
    kinds = _run(partial(find_kinds, urls, kind))
    resources = [url for url in urls if "resource" in kinds[url]]
    if len(resources) != 1:
        msg = "A token is explained for one resource. Pass its URL (and issuers, if you like), or a configuration file."
        raise click.UsageError(msg)
    issuers = [url for url in urls if url not in resources]
    return explain_with(token, None, resources[0], issuers, (), as_json=as_json)


def _environment() -> bool:
    return any(name.startswith("MCP_AUTH_") for name in os.environ)


def _configured(resource: str, issuers: Sequence[str], scopes: Sequence[str], dpop: DPoPMode) -> MCPAuth:
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=list(issuers))
    return MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=list(scopes)), dpop=dpop))


async def _issuers_of(resource: str, progress: Callable[[str], None]) -> tuple[str, ...]:
    """Return the issuers in the metadata of a running resource."""
    issuers = await find_issuers(resource, progress)
    if not issuers:
        raise click.UsageError(f"{printable(resource)} names no issuer, or does not respond. Pass --issuer URL.")
    return issuers


def _print_explanation(explanation: Explanation) -> None:
    out = console()
    write(out, f"The token looks like {explanation.looks_like}; the signature is not shown.", "bold")
    for part, members in (("Header", explanation.header), ("Claims, unverified", explanation.claims)):
        if members is not None:
            write(out, f"\n{part}:")
            for name, value in members.items():
                write(out, f"  {printable(name, 64)}: {_value(value)}", hanging=4)
    write(out, f"\nSteps, for {explanation.resource}:")
    for step in explanation.steps:
        line = Text(f"  {step.outcome:<12}", OUTCOMES[step.outcome]).append(f"{step.name:<16}", "")
        reason = [] if step.reason is None else [step.reason]
        expected = [] if step.expected is None else [f"expected {step.expected}"]
        line.append("; ".join([*reason, *expected, *([] if step.found is None else [f"found {step.found}"])]), "")
        write(out, line, hanging=30)
    out.print()
    if explanation.accepted:
        write(out, "The token is accepted.", "bold green")
        return
    write(out, f"The token is rejected: {explanation.status} {explanation.reason}.", "bold red")
    if explanation.hint:
        write(out, explanation.hint)
    if explanation.public:
        write(out, f"Without a token: {', '.join(explanation.public)}.", hanging=INDENT)


def _value(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
