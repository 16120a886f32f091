"""The demo: a world of word problems in ten languages, and a small model trained on them."""
