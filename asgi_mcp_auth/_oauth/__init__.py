"""What the OAuth, JOSE and HTTP RFCs say, as pure functions and frozen values. No I/O, no clock, no state."""
