"""What models take of a device's memory."""
