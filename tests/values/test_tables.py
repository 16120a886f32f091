"""Tables in notebooks: escaped, and columns of sentences read from the left."""

from __future__ import annotations

from lensneurons.values.tables import html_table


def test_columns_of_sentences_are_aligned_at_the_left() -> None:
    long = "neurons of a language that is longer than a label <b>"
    html = html_table("t", ("n", "claim", "p"), [(1, "short", 0.5), (2, long, 0.1)])
    left = " style='text-align:left'"
    assert f"<th>n</th><th{left}>claim</th><th>p</th>" in html
    assert f"<td>1</td><td{left}>short</td><td>0.5</td>" in html
    assert "label &lt;b&gt;" in html
    assert left not in html_table("t", ("n", "word"), [(1, "short")])
