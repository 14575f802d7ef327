"""What policies are worth, measured."""
