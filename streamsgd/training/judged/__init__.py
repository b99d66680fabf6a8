"""Steps that are judged before they are taken: trust-region and armijo."""
