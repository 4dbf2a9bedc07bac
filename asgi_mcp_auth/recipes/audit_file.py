"""A protected app whose audit log is a file with rotation; a request that cannot be recorded is answered 503.

    uvicorn audit_file:app

Needs fastmcp and uvicorn. The file has one JSON object per line. Each worker process needs a file of its own.
"""

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from typing import NoReturn

from fastmcp import FastMCP

from asgi_mcp_auth import MCPAuthMiddleware


class AuditFile(RotatingFileHandler):
    """A file that reports a failed write to the caller; logging handlers only print it."""

    def handleError(self, record: logging.LogRecord) -> NoReturn:  # noqa: N802 - the name of logging
        """Raise the failure."""
        del record
        raise sys.exception() or OSError("The audit line was not written")


file = AuditFile(os.environ.get("AUDIT_FILE", "audit.jsonl"), maxBytes=10_000_000, backupCount=10, encoding="ascii")


def write(line: str) -> None:
    """Write one line."""
    file.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))


server = FastMCP("notes")


@server.tool
def purge() -> str:
    """Delete all notes."""
    return "done"


app = MCPAuthMiddleware(
    server.http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    audit="required",
    audit_sink=write,
    audit_operations=["tools/call"],  # allowed calls; refusals are always written
)
