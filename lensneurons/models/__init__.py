"""Models: loaded, with their neurons found and proven, and run at the price of no logits."""
