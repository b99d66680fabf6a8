"""Decoded columns into shuffled rows."""
