"""Blocks of shuffled rows, in order."""
