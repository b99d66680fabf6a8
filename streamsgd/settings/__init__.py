"""Every choice: its name, its range, where it comes from."""
