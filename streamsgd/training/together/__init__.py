"""Several runs that learn from one decode: `train_many`, `tune`, and pilots of batch sizes."""
