"""Metadata documents and key sets, fetched and cached. Every request to an authorization server is sent here."""
