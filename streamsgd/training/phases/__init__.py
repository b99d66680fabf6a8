"""One stage of a run each."""
