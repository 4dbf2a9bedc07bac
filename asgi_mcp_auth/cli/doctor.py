"""`asgi-mcp-auth doctor` and `explain`: reading the token, showing progress, printing what was found."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import click
from rich.text import Text

from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.cli.commands import console
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.doctor import Explanation, Finding, Kind, Report, Severity, examine, explain
from asgi_mcp_auth.doctor.challenge import metadata_parameter
from asgi_mcp_auth.doctor.configuration import load
from asgi_mcp_auth.doctor.examine import is_url, kinds_of
from asgi_mcp_auth.doctor.resource import ask_without_token
from asgi_mcp_auth.doctor.resource_metadata import check_resource_metadata
from asgi_mcp_auth.doctor.web import Web
from asgi_mcp_auth.errors import ConfigurationError, printable

__all__ = ("explain_with", "run_doctor", "run_explain", "token_from")

T = TypeVar("T")

VERSION = 1
"""Of the shape of the JSON."""
QUIET_SECONDS = 1.0
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


def token_from(place: str) -> str:
    """The token on standard input; nothing is shown while it is typed.

    Raises:
        click.UsageError: It was given as an argument, or there is none.
    """
    if place != "-":
        raise click.UsageError(WHY_NOT_AN_ARGUMENT)  # and not a word of it
    if sys.stdin.isatty():
        text = str(click.prompt("Token", hide_input=True, err=True))
    else:
        text = sys.stdin.buffer.read(LONGEST_TOKEN).decode("utf-8", "replace")
    token = text.strip()
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token:
        msg = "There is no token on standard input."
        raise click.UsageError(msg)
    return token


def _run(work: Callable[[Callable[[str], None]], Awaitable[T]]) -> T:
    """Run something that waits; on a terminal, tell after a second what it waits for."""
    logging.getLogger("asgi_mcp_auth").addHandler(logging.NullHandler())  # what matters is in the findings
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
        if soon.ident is not None:  # it was started, and may be at it
            soon.join()
        status.stop()


def run_doctor(targets: Sequence[str], kind: Kind | None, *, as_json: bool, strict: bool) -> int:
    """Examine the targets and print what was found. Returns the exit status."""
    reports = _run(lambda progress: examine(targets, kind, progress=progress))
    errors = sum(report.count(Severity.ERROR) for report in reports)
    warnings = sum(report.count(Severity.WARNING) for report in reports)
    failed = errors > 0 or (strict and warnings > 0)
    if as_json:
        _print_json({"errors": errors, "warnings": warnings, "reports": [report.to_dict() for report in reports]})
    else:
        for report in reports:
            _print_report(report)
        told = f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}."
        console().print(Text(told, "bold red" if failed else "green"))
    return int(failed)


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps({"version": VERSION, **content}, indent=2))


def _print_report(report: Report) -> None:
    out = console()
    out.print(Text(f"{printable(report.target, 500)} ({report.kind or 'not recognised'})", "bold"))
    for finding in report.findings:
        out.print(_headline(finding))
        for name, text in (("seen", finding.evidence), ("mend", finding.fix), ("see", _reference(finding))):
            if text:
                out.print(Text(f"           {name}: {text}", "dim" if name == "see" else ""))
    out.print()


def _headline(finding: Finding) -> Text:
    style = STYLES[finding.severity]
    told = Text(f"  {finding.severity.value:<8} ", style)
    return told.append(finding.code.name, "bold").append(f": {finding.code.means} [{finding.subject}]", "")


def _reference(finding: Finding) -> str:
    return "" if finding.severity is Severity.OK else finding.code.reference


def explain_with(
    token: str,
    config: str | None,
    resource: str | None,
    issuers: Sequence[str],
    scopes: Sequence[str],
    *,
    as_json: bool,
) -> int:
    """Explain a token against a file, the environment, or what the options say. Returns the exit status."""
    from_options = bool(issuers or scopes) or (resource is not None and config is None and not _environment())
    if config is not None and (issuers or scopes):
        msg = "--issuer and --scope are for going without --config."
        raise click.UsageError(msg)
    if from_options and resource is None:
        msg = "Say for which resource: --resource URL."
        raise click.UsageError(msg)
    if not from_options and config is None and not _environment():
        msg = "Say against what to judge it: --config FILE, or --resource URL with --issuer URL."
        raise click.UsageError(msg)

    try:
        if from_options and resource is not None:
            trusted = issuers or _run(partial(_issuers_of, resource))
            auth = _configured(resource, trusted, scopes)
        else:
            auth = load(config)
        explanation = _run(lambda _: explain(auth, token, resource))
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        return 2
    if as_json:
        _print_json(explanation.to_dict())
    else:
        _print_explanation(explanation)
    return int(not explanation.accepted)


def run_explain(token: str, targets: Sequence[str], kind: Kind | None, *, as_json: bool) -> int:
    """Explain a token against the targets of the doctor. Returns the exit status."""
    files = [target for target in targets if kind == "config" or not is_url(target)]
    urls = [target for target in targets if target not in files]
    if len(files) > 1:
        msg = "Name one configuration file."
        raise click.UsageError(msg)
    if files:
        return explain_with(token, files[0], urls[0] if urls else None, (), (), as_json=as_json)
    kinds = _run(partial(kinds_of, urls, kind))
    resources = [url for url in urls if "resource" in kinds[url]]
    if len(resources) != 1:
        msg = "Name one resource (and perhaps issuers), or one configuration file."
        raise click.UsageError(msg)
    issuers = [url for url in urls if url not in resources]
    return explain_with(token, None, resources[0], issuers, (), as_json=as_json)


def _environment() -> bool:
    return any(name.startswith("MCP_AUTH_") for name in os.environ)


def _configured(resource: str, issuers: Sequence[str], scopes: Sequence[str]) -> MCPAuth:
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=list(issuers))
    return MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=list(scopes))))


async def _issuers_of(resource: str, progress: Callable[[str], None]) -> tuple[str, ...]:
    """The issuers that a live resource names."""
    web = Web(Fetcher(), [resource], progress=progress)
    told = metadata_parameter(await ask_without_token(web, resource))
    issuers = (await check_resource_metadata(web, resource, told)).servers
    if not issuers:
        msg = f"{printable(resource)} names no issuer, or does not answer: say --issuer URL."
        raise click.UsageError(msg)
    return issuers


def _print_explanation(explanation: Explanation) -> None:
    out = console()
    out.print(Text(f"It looks like {explanation.looks_like}; the signature is not shown.", "bold"))
    for part, members in (("header", explanation.header), ("claims", explanation.claims)):
        if members is not None:
            out.print(Text(f"\n{part}, as it says:" if part == "claims" else f"{part}:"))
            for name, value in members.items():
                out.print(Text(f"  {printable(name, 64)}: {_value(value)}"))
    out.print(Text(f"\nsteps, for {explanation.resource}:"))
    for step in explanation.steps:
        line = Text(f"  {step.outcome:<12}", OUTCOMES[step.outcome]).append(f"{step.name:<16}", "")
        reason = [] if step.reason is None else [step.reason]
        expected = [] if step.expected is None else [f"expected {step.expected}"]
        line.append("; ".join([*reason, *expected, *([] if step.found is None else [f"found {step.found}"])]), "")
        out.print(line)
    out.print()
    if explanation.accepted:
        out.print(Text("It is accepted.", "bold green"))
        return
    out.print(Text(f"It is refused: {explanation.status} {explanation.reason}.", "bold red"))
    if explanation.hint:
        out.print(Text(explanation.hint))


def _value(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
