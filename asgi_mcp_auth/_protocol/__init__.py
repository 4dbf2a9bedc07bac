"""The protocol as pure functions: bytes, configuration and `now` in; a value or one of our errors out.

Nothing here waits, reads a clock, the network or the environment.
"""
