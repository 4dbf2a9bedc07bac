"""Fetching: authorization server metadata and key sets, cached and refreshed. The one room that waits on the network."""
