"""How long things are waited for, and how often they are tried, before a run gives up rather than hang."""

DEADLINE = 1800.0
"""Seconds in which a chunk, a partition or any task of a cluster must come."""

NO_WORKER = 600.0
"""Seconds in which a cluster that lost its workers must have one again."""

ATTEMPTS = 100
"""Times that what workers lost is done again, before the cluster is called broken."""
