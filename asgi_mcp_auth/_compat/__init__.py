"""The API of the library mcpauth, and the quirks of servers and frameworks."""
