"""Experiments on language neurons: each runs a model many times, and gives one value to look at."""
