"""What MCP servers execute under another name: data, with the versions in which each behaviour was seen.

A rule protects the tool, resource or prompt that runs, so the policy needs every name that leads there. Nothing here
imports a server package: `MCPAuth` passes in which of `MODULES` are loaded.

How servers look up a resource's URI, as `_mcp.resource_uris` takes into account (tests/test_names_in_servers.py):

* mcp 2.3: the text as it stands, then templates.
* fastmcp 4.2 on mcp 2.3: the text as it stands, compared with the registered URI after pydantic's `AnyUrl`; then
  templates, without query and fragment (https://github.com/PrefectHQ/fastmcp, `match_uri_template`).
* mcp 1.30: the text after `AnyUrl` (WHATWG URL standard), then templates.
* fastmcp 2.14 and 3.4 on mcp 1.30: the same, and templates are matched without the query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from asgi_mcp_auth.authorization import TargetKind

__all__ = ("MODULES", "ProxyTool", "loaded_proxies", "local_name")

_APP_ADDRESS = re.compile(r"__[0-9a-f]{12}_(.+)", re.DOTALL)


def local_name(tool: str) -> str | None:
    r"""Return the name that a `FastMCPApp` tool has in its app, from its public address; None for another name.

    fastmcp 4.2 calls a tool by `__<sha256("app\0tool")[:12]>_<tool>` too, whatever namespace or rename its listed name
    has (`fastmcp/server/providers/addressing.py`, `parse_hashed_backend_name`).
    """
    found = _APP_ADDRESS.fullmatch(tool) if tool.startswith("__") else None
    return None if found is None else found[1]


class ProxyTool(NamedTuple):
    """A tool that a server package generates, and the targets that a call of the tool reaches.

    Attributes:
        tool: The name; `*_` at its beginning stands for the namespace of a mounted server.
        arguments: As in `ScopePolicy.proxies`.
        module: The module of the package that has to be loaded.
        source: Where the package makes the tool.
    """

    tool: str
    arguments: Mapping[str, TargetKind | Literal["any"]]
    module: str
    source: str


_SEARCH = "fastmcp.server.transforms.search.base"
_CODE_MODE = "fastmcp.experimental.transforms.code_mode"
_BULK = "fastmcp.contrib.bulk_tool_caller"

# Seen in fastmcp 3.4 and 4.2; `call_tool_bulk` and `call_tools_bulk` in 2.14 too. mcp 1.x and 2.x have no such tool.
_PROXY_TOOLS: Final = (
    ProxyTool("call_tool", {"name": "tool"}, "fastmcp", "BaseSearchTransform._make_call_tool"),
    ProxyTool("*_call_tool", {"name": "tool"}, _SEARCH, "BaseSearchTransform below Namespace"),
    ProxyTool("search_tools", {"*": "any"}, "fastmcp", "BaseSearchTransform._make_search_tool"),
    ProxyTool("*_search_tools", {"*": "any"}, _SEARCH, "BaseSearchTransform below Namespace"),
    ProxyTool("read_resource", {"uri": "resource"}, "fastmcp", "ResourcesAsTools._make_read_resource_tool"),
    ProxyTool("*_read_resource", {"uri": "resource"}, "fastmcp", "ResourcesAsTools below Namespace"),
    ProxyTool("get_prompt", {"name": "prompt"}, "fastmcp", "PromptsAsTools._make_get_prompt_tool"),
    ProxyTool("*_get_prompt", {"name": "prompt"}, "fastmcp", "PromptsAsTools below Namespace"),
    ProxyTool("call_tool_bulk", {"tool": "tool"}, "fastmcp", "BulkToolCaller.call_tool_bulk"),
    ProxyTool("*_call_tool_bulk", {"tool": "tool"}, _BULK, "BulkToolCaller.register_tools(prefix=…)"),
    ProxyTool("call_tools_bulk", {"tool_calls[].tool": "tool"}, "fastmcp", "BulkToolCaller.call_tools_bulk"),
    ProxyTool("*_call_tools_bulk", {"tool_calls[].tool": "tool"}, _BULK, "BulkToolCaller.register_tools(prefix=…)"),
    ProxyTool("execute", {"*": "any"}, "fastmcp", "CodeMode._make_execute_tool"),
    ProxyTool("*_execute", {"*": "any"}, _CODE_MODE, "CodeMode below Namespace"),
    # Too common as names of other tools to be taken for CodeMode's where CodeMode is not loaded.
    ProxyTool("search", {"*": "any"}, _CODE_MODE, "code_mode.Search"),
    ProxyTool("get_schema", {"*": "any"}, _CODE_MODE, "code_mode.GetSchemas"),
    ProxyTool("tags", {"*": "any"}, _CODE_MODE, "code_mode.GetTags"),
    ProxyTool("list_tools", {"*": "any"}, _CODE_MODE, "code_mode.ListTools"),
)

MODULES: Final = frozenset(proxy.module for proxy in _PROXY_TOOLS)
"""The modules whose presence in `sys.modules` decides which of the tools above exist."""


def loaded_proxies(loaded: frozenset[str]) -> dict[str, Mapping[str, TargetKind | Literal["any"]]]:
    """Return the proxy tools of the loaded modules, in the form of `ScopePolicy.proxies`."""
    return {proxy.tool: proxy.arguments for proxy in _PROXY_TOOLS if proxy.module in loaded}
