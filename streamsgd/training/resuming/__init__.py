"""Going on: what a checkpoint or an earlier model says, checked before anything depends on it."""
