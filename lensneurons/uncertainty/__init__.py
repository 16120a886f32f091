"""Intervals and tests over items, groups of items, and swaps of two runs."""
