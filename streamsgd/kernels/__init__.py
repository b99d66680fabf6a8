"""Everything that is compiled. Only this package knows Numba; nothing in it knows a file or a column name.

compile  the one decorator, its disk cache, verbs that dispatch on parts, numbers at an address, exp and log1p
parts    plain Python parts: losses, penalties, optimizers, schedules         (testable without Numba)
structs  named tuples of arrays: rows, state, step, block
learn    what moves weights: the one training loop, and a rule per kind of optimizer
sums     what adds up rows and moves nothing: objective, sandwich, bounds, scores, metrics
algebra  loops that round alike everywhere: L-BFGS, factors, eigenvalues
encode   decoded columns into shuffled rows
thrift   where the row groups stand in a Parquet footer
"""
