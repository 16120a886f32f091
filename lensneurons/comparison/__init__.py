"""Two runs of the same texts: what changed, and what of it chance explains."""
