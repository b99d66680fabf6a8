"""What a round does with a chunk: pure functions that run anywhere."""
