"""Every function that takes a path refuses in a sentence what no system has as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edited import draw_set

from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.alignment.responses import SampledResponses
from lensneurons.alignment.training import Alignment
from lensneurons.cards.card import NeuronCard
from lensneurons.comparison.paper_claims import Claims
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.experiments.ablation import AblationMatrix
from lensneurons.models.loading import load_model
from lensneurons.neurons.published import read_published_counts, read_published_mask
from lensneurons.plots.files import save_figure
from lensneurons.values.files import (
    load_arrays,
    load_json,
    read_kind,
    save_json,
    save_rows,
    system_path,
)
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder


def run_folder(path: Any) -> None:
    with open_folder(path, Provenance(), {}):
        pass


def figure(path: Any) -> None:
    import plotly.graph_objects as go

    save_figure(go.Figure(), path)


TAKERS = {
    "statistics": ActivationStatistics.load,
    "responses": SampledResponses.load,
    "alignment": Alignment.load,
    "card": NeuronCard.load,
    "claims": Claims.load,
    "matrix": AblationMatrix.load,
    "set": lambda path: draw_set().save(path),
    "corpus": lambda path: build_corpus([{"language": "en", "response": "a"}]).save(path),
    "read corpus": load_corpus,
    "model": load_model,
    "counts": read_published_counts,
    "mask": lambda path: read_published_mask(path, languages=["en"], d_mlp=4),
    "figure": figure,
    "arrays": lambda path: load_arrays(path, "x"),
    "json": load_json,
    "kind": read_kind,
    "write json": lambda path: save_json(path, {}),
    "write rows": lambda path: save_rows(path, "x", [], {}),
    "run folder": run_folder,
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=list(TAKERS))
def test_a_nul_and_a_long_name_end_in_a_sentence(take, tmp_path):
    for path in ("a\0b", f"{tmp_path}/a\0b.jsonl", f"{tmp_path}/{'n' * 300}.jsonl"):
        with pytest.raises(LensNeuronsError) as raised:
            take(path)
        assert len(str(raised.value)) < 1500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [3, None, b"a", ["a"], np.int64(1)])
def test_what_is_no_path_is_told(path):
    with pytest.raises(StorageError, match="is no path: give text or a pathlib.Path"):
        system_path(path)
