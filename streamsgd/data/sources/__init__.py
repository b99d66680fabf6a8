"""Where rows come from: files and lists of them, tables in memory, streams, Dask, Delta, Iceberg."""
