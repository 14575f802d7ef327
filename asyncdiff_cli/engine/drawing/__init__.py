"""From requests to pictures with their provenance."""
