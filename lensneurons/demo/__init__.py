"""The demo: a world of word problems in ten languages and a small model that is trained on them."""
