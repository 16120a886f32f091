"""What a model says: likelihood of texts, answers written, and whether they are right."""
