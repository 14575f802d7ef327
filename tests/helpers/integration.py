"""What `integrate` is run with."""

import torch

from asyncdiff_cli.engine import Synchronous
from asyncdiff_cli.engine.backbones.adapters import TextConditions
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler

TEXT = TextConditions(torch.zeros(2, 1, 1))
STEPS = 6


def scheduler_on_a_grid(name: str, **settings):
    scheduler = make_scheduler(name, "sd3", {"shift": 3.0, **settings})
    scheduler.set_timesteps(STEPS)
    return scheduler


class Answers(Synchronous):
    def __init__(self, answer):
        object.__setattr__(self, "answer", answer)

    def __call__(self, state):
        return torch.tensor(self.answer)
