"""Two models that read the same texts: what changed, and what of it chance explains."""
