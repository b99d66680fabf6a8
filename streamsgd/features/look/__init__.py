"""What the first look finds out beyond types, by quick comparisons on its rows."""
