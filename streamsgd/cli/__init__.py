"""The command line: a thin skin over `streamsgd.api`."""
