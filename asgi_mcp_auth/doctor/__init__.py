"""Diagnose authorization servers, live protected resources, configuration files and access tokens.

`examine` checks targets and `explain` checks one token. Both return values and print nothing; the commands
`asgi-mcp-auth doctor` and `asgi-mcp-auth explain` print the values. `find_kinds`, `find_issuers` and
`load_configuration` are what the commands need to read their arguments.
"""

from asgi_mcp_auth.doctor._configuration import load_configuration
from asgi_mcp_auth.doctor._examine import CODES, Kind, examine, find_issuers, find_kinds, is_url
from asgi_mcp_auth.doctor._explain import Explanation, explain
from asgi_mcp_auth.doctor._findings import Code, Finding, Report, Severity

__all__ = (
    "CODES",
    "Code",
    "Explanation",
    "Finding",
    "Kind",
    "Report",
    "Severity",
    "examine",
    "explain",
    "find_issuers",
    "find_kinds",
    "is_url",
    "load_configuration",
)
