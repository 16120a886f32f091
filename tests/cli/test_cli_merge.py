"""`lensneurons merge`: a tree of merges is one run over everything; what is no sum is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import planted
import pytest

from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cli import main
from lensneurons.corpora.corpus import load_corpus
from lensneurons.models.loading import load_model

FOUND = ["--percentile", planted.PERCENTILE, "--top-rate", planted.TOP_RATE, "--json"]
COUNT = {"groups": 4, "progress": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders of a planted model: of each language, and of all in one."""
    folder = tmp_path_factory.mktemp("runs")
    planted.save_model(folder / "model")
    model, corpus = load_model(folder / "model", device="cpu"), load_corpus(planted.texts())
    collect(model, corpus, run_dir=folder / "all", **COUNT)
    for language in planted.LANGUAGES:
        collect(model, corpus.select([language]), run_dir=folder / language, **COUNT)
    return folder


def called(capture, *arguments: object) -> tuple[int, str, str]:
    code = main([str(one) for one in arguments])
    captured = capture.readouterr()
    return code, captured.out, captured.err


def test_a_tree_of_merges_is_one_run(runs, tmp_path, capsys) -> None:
    first, second = planted.LANGUAGES[:2], planted.LANGUAGES[2:]
    for name, some in (("one", first), ("two", second)):
        code, out, err = called(
            capsys, "merge", *(runs / k for k in some), "--out", tmp_path / "sums" / name
        )
        assert (code, err) == (0, "")
        assert f"next: lensneurons identify {tmp_path / 'sums' / name}" in out
    parts = sorted((tmp_path / "sums").iterdir())
    assert [one.name for one in parts] == ["one", "two"]
    assert called(capsys, "merge", *parts, "--out", tmp_path / "sum")[0] == 0
    whole, found = (ActivationStatistics.load(one) for one in (runs / "all", tmp_path / "sum"))
    assert found.languages == whole.languages
    for name in ("grouped_counts", "grouped_tokens", "sums", "squares"):
        assert getattr(found, name).tobytes() == getattr(whole, name).tobytes()
    told = [called(capsys, "identify", one, *FOUND)[1] for one in (runs / "all", tmp_path / "sum")]
    assert told[0] == told[1]
    assert json.loads(told[0])["parts"] == [list(span) for span in planted.BOUNDARIES]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["sum", "sums"]


def test_what_is_no_sum_is_refused_and_leaves_no_file(runs, tmp_path, capsys) -> None:
    first, second = (runs / k for k in planted.LANGUAGES[:2])

    def refused(*arguments: object) -> str:
        code, out, err = called(capsys, "merge", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    out = ["--out", tmp_path / "out" / "sum"]
    told = refused(first, second, first, *out)
    assert f"part 3 ({first}), beside those before it: both statistics counted" in told
    assert "would count its tokens twice" in told
    half = called(capsys, "merge", first, second, "--out", tmp_path / "half")
    assert half[0] == 0
    assert f"part 2 ({second})" in refused(tmp_path / "half", second, *out)
    other = ActivationStatistics.load(second)
    other = replace(other, provenance=replace(other.provenance, dtype="bfloat16"))
    other.save(tmp_path / "other")
    told = refused(first, tmp_path / "other", *out)
    assert f"part 2 ({tmp_path / 'other'})" in told
    assert "dtype: 'float32' and 'bfloat16'" in told
    assert str(tmp_path / "nothing") in refused(first, tmp_path / "nothing", *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "statistics.safetensors"])
def test_a_sum_takes_the_place_of_no_part(name, runs, tmp_path, capsys) -> None:
    copied = shutil.copytree(runs / "en", tmp_path / "en")
    file = copied / "statistics.safetensors"
    before = file.read_bytes()
    assert called(capsys, "merge", copied / name, runs / "de", "--out", file)[0] == 2
    assert file.read_bytes() == before
