"""Models: how entries of a row become a score; see `kernels.models.machines`."""
