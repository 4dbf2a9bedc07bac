"""Revocation: watermarks and their replication, and the receivers of security events."""
