"""From a model and a corpus to activation statistics: counted in the hook, resumable, additive."""
