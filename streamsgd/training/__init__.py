"""A job, its phases, who runs them, and the loop that joins them."""
