"""A protected app with JSON logs, and the records to alert on.

    uvicorn json_logs:app --no-access-log

Needs fastmcp and uvicorn. Each line has `level`, `logger` and `message`. Records of decisions also have `reason`, and
records of key sets and metadata have `event`. Alert on these lines:

    event = "keys_unavailable"      no keys of an issuer: its tokens get 503
    event = "keys_stale"            expired keys are used while their refresh fails
    event = "metadata_unfit"        MCP clients will fail with this issuer
    reason = "hook_failed"          a hook or a verifier failed: requests get 503
    reason = "store_unavailable"    the shared store failed or is full: requests get 503
    reason = "bad_signature"        many: an attack, or a key set that does not match the tokens
    reason = "insufficient_scope"   many: clients do not ask for the scopes that a rule needs
"""

import json
import logging
import os
import sys

from fastmcp import FastMCP

from asgi_mcp_auth import MCPAuthMiddleware

FIELDS = (
    *("event", "reason", "resource", "issuer", "kid", "alg", "client_id", "operation", "expected", "found"),
    *("request_id", "trace_id", "client_address", "suppressed"),
)


class JSONLines(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JSONLines())
logger = logging.getLogger("asgi_mcp_auth")
logger.addHandler(handler)
logger.setLevel(logging.INFO)  # DEBUG also logs requests without a token, with which every client starts
logger.propagate = False

app = MCPAuthMiddleware(
    FastMCP("notes").http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
)
