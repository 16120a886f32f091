"""From statistics to language neurons: scores, the bar, classes, and sets of neurons."""
