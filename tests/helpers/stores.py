"""Stores of few rows, made without drawing."""

import json

from asyncdiff_cli.engine.evaluation.store import Store

SETTINGS = {
    "backbone": "mini",
    "revision": None,
    "seed": 42,
    "rewards": {"sharpness": {"dtype": "float32"}, "noise": {"dtype": "float32"}},
}


def row(prompt_id=0, policy="baseline", **changes):
    """A row of all columns."""
    return {
        "prompt_id": prompt_id,
        "prompt": f"prompt {prompt_id}",
        "category": "color",
        "seed": 2**63 - 1 - prompt_id,
        "policy": policy,
        "gamma": 1.0,
        "bound": 0.5,
        "num_inference_steps": 3,
        "deviations": [0.25, -0.5],
        "cond_sigmas": [1.0, 0.75, 0.5],
        "seconds": 0.125,
        "policy_settings": json.dumps({"name": policy}),
        "image": None,
        "provenance": "{}",
        "sharpness": 0.1 + prompt_id,
        "noise": -2.0,
        **changes,
    }


def begun(path, **changes):
    """A store without rows, whose settings are written."""
    store = Store.open(path, {**SETTINGS, **changes})
    store.begin()
    return store


def rows_of(store):
    """All rows, as dictionaries."""
    return store.read(store.schema.names).to_pylist()
