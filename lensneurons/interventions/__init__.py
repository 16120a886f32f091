"""Changing a model while it runs: ablation, scaling, steering and patching, as context managers."""
