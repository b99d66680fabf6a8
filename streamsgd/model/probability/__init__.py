"""Probabilities that hold: calibration, maps of scores, intervals and sets that hold a given share."""
