"""How kernels are compiled, kept on disk, and dispatch on parts."""
