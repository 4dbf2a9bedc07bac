"""What the Model Context Protocol says about messages and header fields, as pure functions. No I/O, no clock."""
