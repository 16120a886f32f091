"""Language neurons: sets, scores, the bar tau, classes, published files, and layer parts."""
