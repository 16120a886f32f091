"""Languages: their codes, scripts and names, and the detection of a text's language."""
