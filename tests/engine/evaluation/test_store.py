"""The rows of an evaluation: each once, in files that are complete or not there."""
