"""Intervals over items and groups of items, and a test that swaps before and after."""
