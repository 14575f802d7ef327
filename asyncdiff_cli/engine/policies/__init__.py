"""The policies, which choose the deviations."""
