"""What columns do: to one row, over their range, together, and to the loss."""
