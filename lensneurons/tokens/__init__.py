"""From texts to token ids: encoded, sorted into batches, and which tokens count."""
