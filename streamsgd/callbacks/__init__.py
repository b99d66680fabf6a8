"""Sinks of what a run tells, for the tools that people track runs with; each needs its own library."""
