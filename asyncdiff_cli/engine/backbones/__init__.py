"""Models: what is known of them, and how they are loaded and held."""
