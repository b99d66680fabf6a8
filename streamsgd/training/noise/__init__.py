"""The noise of gradients: what their sums say, a pass that measures it, batches that grow by it."""
