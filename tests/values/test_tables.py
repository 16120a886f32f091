"""Tables in notebooks: escaped, and columns of sentences read from the left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lensneurons.values.files import plain_numbers, write_csv
from lensneurons.values.tables import html_table


def test_columns_of_sentences_are_aligned_at_the_left() -> None:
    long = "neurons of a language that is longer than a label <b>"
    html = html_table("t", ("n", "claim", "p"), [(1, "short", 0.5), (2, long, 0.1)])
    left = " style='text-align:left'"
    assert f"<th>n</th><th{left}>claim</th><th>p</th>" in html
    assert f"<td>1</td><td{left}>short</td><td>0.5</td>" in html
    assert "label &lt;b&gt;" in html
    assert left not in html_table("t", ("n", "word"), [(1, "short")])


def test_a_csv_keeps_a_named_index_and_leaves_a_counted_one_out(tmp_path: Path) -> None:
    named = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["de", "sw"], name="language"))
    assert write_csv(named, tmp_path / "a.csv").read_text() == "language,n\nde,1\nsw,2\n"
    assert write_csv(pd.DataFrame({"n": [1]}), tmp_path / "b.csv").read_text() == "n\n1\n"


def test_numbers_for_json() -> None:
    value = {"a": (np.float32(0.5), np.int64(3)), "b": [float("nan"), np.inf, True, None]}
    found = plain_numbers(value)
    assert found == {"a": [0.5, 3], "b": [None, None, True, None]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
