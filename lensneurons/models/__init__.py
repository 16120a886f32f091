"""Models: load them, find and prove their neurons, and run them without logits."""
