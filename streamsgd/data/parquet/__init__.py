"""Row groups of Parquet files as Arrow columns, whatever is wrong with them."""
