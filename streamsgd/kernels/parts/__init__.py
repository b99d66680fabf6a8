"""What users plug in: losses, penalties, optimizers, schedules, in plain Python."""
