"""Who chooses the deviations."""
