"""Named tuples of arrays that kernels take."""
