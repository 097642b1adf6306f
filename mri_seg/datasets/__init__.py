"""Lists of cases with labels, and splits."""
