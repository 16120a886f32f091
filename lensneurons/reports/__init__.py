"""One self-contained page about the language neurons of a model: words, figures, tables, cards.

`compose` holds `report`; `sections` and its neighbours say what stands where; `figures` fits plotly
figures to a page; ``templates/page.*`` is the page itself.
"""

from lensneurons.reports.compose import report

__all__ = ["report"]
