"""Views of single texts: what a neuron does on every character, and where a layer looks.

`patch_grid` shows where two sentences differ: a patch at every layer and position. `explore` links
layers, neurons and parallel texts on one page.

>>> ln.views.tokens(model, ["She has 3 apples.", "小明有3个苹果。"], "L3N17")   # doctest: +SKIP
>>> ln.views.attention(model, "She has 3 apples.", 2)                      # doctest: +SKIP
"""

from lensneurons.tokens.characters import Span, TextTokens, group_tokens, token_labels
from lensneurons.views.attention_view import AttentionView, attention
from lensneurons.views.explorer import ExploredText, Explorer, explore
from lensneurons.views.patch_grid import PatchGrid, patch_grid
from lensneurons.views.token_view import TokenView, tokens

__all__ = [
    "AttentionView",
    "ExploredText",
    "Explorer",
    "PatchGrid",
    "Span",
    "TextTokens",
    "TokenView",
    "attention",
    "explore",
    "group_tokens",
    "patch_grid",
    "token_labels",
    "tokens",
]
