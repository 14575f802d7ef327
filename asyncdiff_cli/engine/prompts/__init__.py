"""What is drawn and trained on."""
