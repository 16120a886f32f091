"""One neuron looked at closely: its texts, its words, its importance, on one card."""
