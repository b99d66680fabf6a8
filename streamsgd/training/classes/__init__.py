"""What is done where classes are rare: thinning, weights, strata, and the intercept at the end."""
