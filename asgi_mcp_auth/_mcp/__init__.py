"""MCP messages and header fields, as pure functions: no I/O, no clock."""
