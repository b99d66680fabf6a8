"""Everything that is compiled. Only this package knows Numba; nothing in it knows a file or a column name.

jit         the one decorator, the disk cache, the verbs that dispatch on parts
inlining    verbs put into the loops that call them
memory      numbers at an address, prefetching, squares transposed in registers
maths       exp and log1p as vector code
thrift      where the row groups stand in a Parquet footer
rows        layouts of a block's rows: how a row meets the weights
losses      plain Python parts: what a row costs            (testable without Numba)
penalties   plain Python parts: what a weight costs
optimizers  plain Python parts: how a coordinate moves
schedules   plain Python parts: how the rate changes
loops       the one training loop and the scoring loop
mixing      shuffles: rows within tiles, tiles within a chunk
scatter     decoded columns into rows
tallies     metrics over a block
"""
