"""Schedules that are measured on a model, without a reward."""
