"""Loops that round alike everywhere."""
