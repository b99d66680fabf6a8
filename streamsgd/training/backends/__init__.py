"""Who runs the rounds of a job."""
