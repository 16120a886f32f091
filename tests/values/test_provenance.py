"""Provenance: what may be added or compared, and what the refusal says."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from importlib import metadata

import pytest

from lensneurons.errors import ProvenanceError
from lensneurons.values.provenance import (
    UNKNOWN,
    Provenance,
    installed_version,
    library_versions,
    require_same,
)

ONE = Provenance(
    **{entry.name: f"some {entry.name}" for entry in fields(Provenance)}
    | {"corpora": ("c", "d"), "versions": {"torch": "2"}}
)
RECORDED = ("versions", "corpora", "quantisation")
COMPARED = [entry.name for entry in fields(Provenance) if entry.name not in RECORDED]


def test_an_empty_provenance_knows_nothing():
    assert {getattr(Provenance(), name) for name in COMPARED} == {UNKNOWN, "none"}
    assert Provenance().template == "none"
    assert Provenance().corpora == ()


def test_it_comes_back_from_json_of_this_version_and_of_others():
    values = json.loads(json.dumps(ONE.to_dict()))
    assert Provenance.from_dict(values | {"tomorrow": 1}) == ONE
    del values["scope"], values["corpora"], values["template"]
    assert Provenance.from_dict(values) == replace(ONE, scope=UNKNOWN, corpora=(), template="none")


@pytest.mark.parametrize("name", [n for n in COMPARED if n not in ("model", "revision")])
def test_each_difference_is_named_with_both_values(name):
    other = replace(ONE, **{name: "other"})
    with pytest.raises(ProvenanceError, match=rf"\({name}: 'some {name}' and 'other'\)"):
        require_same(ONE, other)
    require_same(ONE, other, ignoring=(name,))


def test_all_differences_are_named_at_once():
    other = replace(ONE, dtype="x", scope="y")
    with pytest.raises(ProvenanceError, match="dtype: .*; scope: "):
        require_same(ONE, other)


@pytest.mark.parametrize("name", ["model", "revision"])
def test_the_name_of_a_model_matters_only_where_its_weights_are_unknown(name):
    require_same(ONE, replace(ONE, **{name: "other"}))
    blind = replace(ONE, weights=UNKNOWN)
    with pytest.raises(ProvenanceError, match=f"{name}: "):
        require_same(blind, replace(blind, **{name: "other"}))


def test_merging_keeps_the_corpora_sorted_and_looks_at_no_versions():
    other = replace(ONE, corpora=("a", "e"), versions={"torch": "3"})
    assert ONE.merge(other) == replace(ONE, corpora=("a", "c", "d", "e"))
    assert other.merge(ONE).corpora == ("a", "c", "d", "e")
    with pytest.raises(ProvenanceError, match="both statistics counted the corpus d: .* twice"):
        ONE.merge(replace(ONE, corpora=("d", "e")))


def test_the_versions_are_those_that_are_installed_and_asked_once(monkeypatch):
    import torch

    versions = library_versions()
    assert versions["torch"] == torch.__version__
    assert set(versions) == {"lensneurons", "transformer-lens", "transformers", "torch", "numpy"}
    monkeypatch.setattr(metadata, "version", missing)
    versions["torch"] = "changed by the caller"
    assert library_versions() == versions | {"torch": torch.__version__}


def missing(name):
    raise metadata.PackageNotFoundError(name)


def test_a_missing_library_is_unknown(monkeypatch):
    monkeypatch.setattr(metadata, "version", missing)
    installed_version.cache_clear()
    try:
        assert set(library_versions().values()) == {UNKNOWN}
    finally:
        installed_version.cache_clear()
