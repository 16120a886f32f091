"""The published profile: recomputed from the published counts, and a value like others."""

from __future__ import annotations

import numpy as np
import pytest
from real_data import real_data

import lensneurons as ln
from lensneurons.errors import LensNeuronsError
from lensneurons.samples import PublishedProfile, published_profile


def test_it_follows_from_the_published_counts():
    known = published_profile("mistral-7b")
    folder = real_data("mistral_mgsm")
    statistics = ln.neurons.read_published_counts(folder, languages=known.languages)
    neurons = ln.identify(statistics)
    assert np.array_equal(neurons.layer_profile("all"), known.profile)
    assert neurons.d_mlp == known.d_mlp
    assert neurons.tau == pytest.approx(known.tau, abs=1e-6)


def test_it_has_the_shape_of_the_paper_and_names_its_source(tmp_path):
    known = published_profile("mistral-7b")
    assert known.profile.shape == (32, 3)
    assert known.profile.sum(axis=0).tolist() == [23235, 30224, 7797]
    assert "arXiv 2505.21505" in repr(known)
    shown = known._repr_html_()
    assert "tau 0.5644" in shown
    assert "<td>31</td><td>2084</td><td>4390</td><td>745</td>" in shown
    again = PublishedProfile.load(known.save(tmp_path / "profile"))
    assert repr(again) == repr(known)
    assert np.array_equal(again.profile, known.profile)
    with pytest.raises(ValueError, match="read-only"):
        known.profile[0] = 0


def test_unknown_names_are_refused():
    with pytest.raises(LensNeuronsError, match="choose one of .'mistral-7b'.. Did you mean"):
        published_profile("mistral-7")
