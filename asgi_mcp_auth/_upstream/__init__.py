"""Calls of upstream APIs for the caller: exchange of the caller's token, and its use with httpx."""
