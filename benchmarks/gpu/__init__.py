"""The real backbones on a GPU, at full size and with random weights: speed, memory, exactness."""
