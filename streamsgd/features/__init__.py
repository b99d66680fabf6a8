"""Columns to numbers: decided once by a sample, frozen in the model."""
