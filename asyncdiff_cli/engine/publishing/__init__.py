"""What is put on the hub: modules and schedules, with a card that says what they are worth."""
