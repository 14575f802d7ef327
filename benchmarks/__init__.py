"""Side-by-side measurements. Each module prints a table, or JSON."""
