"""What was measured, drawn."""
