"""The desynchronised sampler."""
