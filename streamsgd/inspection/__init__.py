"""What the data is, for people."""
