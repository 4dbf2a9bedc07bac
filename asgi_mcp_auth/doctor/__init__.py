"""Finding out what will make real clients fail: an issuer, a live resource or a configuration file, and a token.

`examine` looks at targets and `explain` at a token; both return values, and print nothing. The command
`asgi-mcp-auth doctor` prints them.
"""

from asgi_mcp_auth.doctor.catalogue import CODES
from asgi_mcp_auth.doctor.examine import Kind, examine
from asgi_mcp_auth.doctor.explain import Explanation, explain
from asgi_mcp_auth.doctor.findings import Code, Finding, Report, Severity

__all__ = ("CODES", "Code", "Explanation", "Finding", "Kind", "Report", "Severity", "examine", "explain")
