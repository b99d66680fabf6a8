"""What data is there, and its bytes as Arrow columns."""
