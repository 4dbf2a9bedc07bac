"""Fetching metadata documents and key sets, cached and refreshed. The one room that waits on the network."""
