"""Who runs functions: threads, Dask, worker processes; and how much memory there is."""
