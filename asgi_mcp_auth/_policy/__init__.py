"""The user's configuration compiled into immutable values that a request is checked against. No I/O, no clock."""
