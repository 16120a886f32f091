"""One self-contained HTML report about the language neurons of a model.

`report_page` holds `report`, `sections` says what stands where, `findings` writes the sentences,
`neuron_table` makes the table and the cards; ``templates/page.*`` is the report itself.
"""

from lensneurons.reports.report_page import report

__all__ = ["report"]
