"""The table of the evidence: every cheap rival at equal denoiser calls, tuned on other prompts."""
