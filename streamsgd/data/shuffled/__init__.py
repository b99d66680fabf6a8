"""`streamsgd shuffle`: rows in random order as Parquet, within bounded memory."""
