"""What trainings do to metrics that they do not see, with three mixes of rewards."""
