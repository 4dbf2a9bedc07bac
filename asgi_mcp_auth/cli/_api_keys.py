"""The commands `api-key new`, `list` and `revoke`: keys are printed once, and a file contains only their digests."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from asgi_mcp_auth._policy.api_key_file import ApiKeyRecord, FaultyRecordError, digest_of, parse_lines, parse_record
from asgi_mcp_auth.cli._terminal import console, write
from asgi_mcp_auth.dev._files import replace_file

__all__ = ("api_key",)

KEY_BYTES = 32
DAY = 86_400
FILE_MODE = 0o600


EXAMPLES = """\b
Examples:
  asgi-mcp-auth api-key new --subject alice --scope notes:read --file keys
  asgi-mcp-auth api-key list keys
  asgi-mcp-auth api-key revoke keys 1f2e3d4c
"""


@click.group("api-key", short_help="Create, list and revoke API keys.", epilog=EXAMPLES)
def api_key() -> None:
    """Create, list and revoke the API keys of a file, which Choose(keys=ApiKeys(file=...)) reads."""


@api_key.command()
@click.option("--subject", required=True, help="The subject of the key's principal, a user or a service.")
@click.option("--scope", "scopes", multiple=True, help="A granted scope; repeat the option for several.")
@click.option("--expires-in-days", "days", type=click.IntRange(1, 3650), help="The life of the key. Default: no end.")
@click.option("--resource", help="The only resource that accepts the key. Default: all that read the file.")
@click.option("--prefix", default="pat_", show_default=True, help="The prefix of ApiKeys(prefix=...).")
@click.option("--pepper-env", metavar="NAME", help="The environment variable with the pepper of ApiKeys(pepper=...).")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Append the record to this file.")
def new(  # noqa: PLR0917 - the options
    subject: str,
    scopes: tuple[str, ...],
    days: int | None,
    resource: str | None,
    prefix: str,
    pepper_env: str | None,
    file: Path | None,
) -> int:
    """Print a new key, once. Its record goes to the file, or is printed too.

    The key cannot be recovered: only its digest is stored.
    """
    pepper = None if pepper_env is None else os.environ.get(pepper_env)
    if pepper_env is not None and not pepper:
        raise click.UsageError(f"The environment variable {pepper_env} is not set. Set it to the pepper.")
    key = prefix + secrets.token_urlsafe(KEY_BYTES)
    digest = digest_of(key.encode("ascii", "replace"), pepper)
    record = ApiKeyRecord(
        id=secrets.token_hex(4),
        subject=subject,
        sha256="" if pepper else digest,
        hmac_sha256=digest if pepper else "",
        scopes=scopes,
        expires_at=None if days is None else int(time.time()) + days * DAY,
        resource=resource,
    )
    try:
        parse_record(record.line().encode())
    except FaultyRecordError as error:
        raise click.UsageError(f"The key would not be accepted: {error}.") from None
    if file is not None:
        _append(file, record.line())
    click.echo(key)
    if file is None:
        click.echo(record.line())
    return 0


def _append(file: Path, line: str) -> None:
    """Append a line; a new file can be read by its owner only."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE), "r+b") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 1))
        starts_line = size == 0 or opened.read(1) == b"\n"
        opened.write(("" if starts_line else "\n").encode() + line.encode() + b"\n")


@api_key.command("list")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def list_keys(file: Path) -> int:
    """List the keys of a FILE: id, subject, scopes and state, without digests."""
    now = time.time()
    for _, record in _records(file):
        state = "revoked" if record.revoked else "no end"
        if record.expires_at is not None and not record.revoked:
            end = datetime.fromtimestamp(record.expires_at, UTC).date()
            state = f"{'expired' if record.expires_at <= now else 'until'} {end}"
        where = f" for {record.resource}" if record.resource else ""
        text = f"{record.id}  {record.subject}  {' '.join(record.scopes) or '-'}  {state}{where}"
        write(console(), text, hanging=2)
    return 0


@api_key.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("key_id")
def revoke(file: Path, key_id: str) -> int:
    """Revoke the key with this KEY_ID in a FILE. Servers that read the file refuse it within a second."""
    found = [(number, record) for number, record in _records(file) if record.id == key_id]
    if not found:
        write(console(stderr=True), f"asgi-mcp-auth api-key revoke: {file} has no key {key_id!r}.", hanging=2)
        return 1
    lines = file.read_text("utf-8").split("\n")
    for number, record in found:
        lines[number - 1] = replace(record, revoked=True).line()
    try:
        replace_file(file, "\n".join(lines).encode(), like=file.stat())
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror or error}. No key was revoked."
        raise click.ClickException(msg) from None
    write(console(), f"Revoked {key_id}.")
    return 0


def _records(file: Path) -> list[tuple[int, ApiKeyRecord]]:
    try:
        return list(parse_lines(file.read_bytes()))
    except (OSError, FaultyRecordError) as error:
        raise click.ClickException(f"{file} cannot be used: {error}.") from None
