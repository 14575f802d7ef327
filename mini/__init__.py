"""How the embedded backbone ``mini`` is made: data, VAE, CLIP, transformer, export, evaluation."""
