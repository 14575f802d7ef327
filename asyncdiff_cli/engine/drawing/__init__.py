"""Requests drawn as pictures with their provenance."""
