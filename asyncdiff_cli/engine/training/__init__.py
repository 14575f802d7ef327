"""How a module is trained."""
