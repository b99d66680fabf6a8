"""What people see: plans, models, progress, as text."""
