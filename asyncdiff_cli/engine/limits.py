"""The largest values that are believed, from options and from data: memory and time follow them.

Each is far above what makes sense, and low enough that what it leads to ends in a refusal of the
machine rather than in its standstill.
"""

MAX_COUNT = 1_000_000
"""Iterations, prompts, batches and the like, which are listed in memory."""
MAX_IMAGES = 100_000
"""Images of one call of `sample`."""
MAX_BATCH = 10_000
"""Images that a picture's record names as drawn with it."""
MAX_STEPS = 1000
"""Steps: as many as there are timesteps in training."""
MAX_SIDE = 16_384
"""Pixels to a side."""
MAX_GUIDANCE = 1000.0
MAX_TOKENS = 4096
"""Tokens of a prompt, or of a module's readings."""
MAX_VALUES = 1000
"""Numbers in a list of them."""
MAX_COLUMNS = 100
"""Images beside one another."""
MAX_WIDTH = 8192
"""Channels of a module's tokens."""
MAX_CHANNELS = 65_536
"""Channels of latents, embeddings and layers."""
MAX_LAYERS = 128
MAX_DEPTH = 1000
"""Layers of a model that is loaded."""
MAX_PLACES = 1024
"""Patches to a side for which a model makes embeddings of places."""
MAX_UNITS = 1 << 24
"""Words, tokens and the like that a model which is loaded knows."""
MAX_SETTING = 1e12
"""Any other number in the configuration of a model."""
MAX_PATCH = 64
MAX_NUMBER = 1e6
"""Weights, norms and rates that have no bound of their own."""
