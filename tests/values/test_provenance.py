"""Provenance: what may be added or compared, and what the refusal says."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from lensneurons.errors import ProvenanceError
from lensneurons.values.provenance import UNKNOWN, Provenance, library_versions, require_same

ONE = Provenance(
    **{entry.name: f"some {entry.name}" for entry in fields(Provenance)}
    | {"corpora": ("c", "d"), "versions": {"torch": "2"}}
)
COMPARED = [entry.name for entry in fields(Provenance) if entry.name not in ("versions", "corpora")]


def test_an_empty_provenance_knows_nothing():
    assert {getattr(Provenance(), name) for name in COMPARED} == {UNKNOWN}
    assert Provenance().corpora == ()


def test_it_comes_back_from_json():
    assert Provenance.from_dict(json.loads(json.dumps(ONE.to_dict()))) == ONE


def test_entries_of_later_versions_are_left_out():
    assert Provenance.from_dict(ONE.to_dict() | {"tomorrow": 1}) == ONE


def test_entries_that_an_earlier_version_did_not_write_are_unknown():
    values = ONE.to_dict()
    del values["scope"], values["corpora"]
    assert Provenance.from_dict(values) == replace(ONE, scope=UNKNOWN, corpora=())


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


def test_versions_never_matter():
    require_same(ONE, replace(ONE, versions={"torch": "3"}))


def test_merging_keeps_the_corpora_sorted():
    other = replace(ONE, corpora=("a", "e"))
    assert ONE.merge(other) == other.merge(ONE) == replace(ONE, corpora=("a", "c", "d", "e"))


def test_a_shared_corpus_is_refused():
    with pytest.raises(ProvenanceError, match="both statistics counted the corpus d: .* twice"):
        ONE.merge(replace(ONE, corpora=("d", "e")))


def test_the_versions_are_those_that_are_installed():
    import torch

    versions = library_versions()
    assert versions["torch"] == torch.__version__
    assert set(versions) == {"lensneurons", "transformer-lens", "transformers", "torch", "numpy"}


def test_a_missing_library_is_unknown(monkeypatch):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert set(library_versions().values()) == {UNKNOWN}
