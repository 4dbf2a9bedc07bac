"""From a credential to a verified identity: the verifier protocol, JWT verification and its cache, user hooks."""
