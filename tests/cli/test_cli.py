"""The command line: what it prints, its exit codes, one line for every error, and quick help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, get_args
from unittest.mock import Mock

import fuzzing
import numpy as np
import pages
import pandas as pd
import planted
import pytest
import tiny
import torch
from figure_values import make_matrix
from own_effects import of_neurons

from lensneurons.activations.collection import collect
from lensneurons.activations.items import ItemActivations, item_activations
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.cards.card import NeuronCard, describe
from lensneurons.cli import commands as cli_commands
from lensneurons.cli import main, summaries
from lensneurons.cli.options import WAYS
from lensneurons.cli.summaries import describe_card
from lensneurons.corpora.corpus import load_corpus
from lensneurons.errors import EmptySetWarning, LensNeuronsError
from lensneurons.experiments.ablation import ablation_matrix
from lensneurons.models.loading import load_model
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.methods import Method
from lensneurons.neurons.published import read_published_counts
from lensneurons.tokens.chat import chat_corpus

LANGUAGES = ("en", "sw", "zh")
DEMO = ["--corpus", "demo", "--limit", "2"]
PLANTED = ["--percentile", planted.PERCENTILE, "--top-rate", planted.TOP_RATE]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Six layers of 40 neurons in three languages, as the authors would have written them."""
    folder = tmp_path_factory.mktemp("published")
    random = np.random.default_rng(0)
    for language, tokens in zip(LANGUAGES, (900, 1000, 1300), strict=True):
        counts = (random.beta(0.3, 1.0, (6, 40)) * tokens).astype(np.int64)
        counts[:, :2] = tokens  # always on: language-agnostic
        content = {"total_tokens": tokens, "over_zero": torch.from_numpy(counts)}
        torch.save(content, folder / f"activation.{language}.toy.pt")
    return folder


@pytest.fixture(scope="module")
def model_and_corpus(tmp_path_factory) -> tuple[str, str]:
    """Folder of the planted model, and its corpus as JSON lines."""
    folder = tmp_path_factory.mktemp("planted")
    planted.save_model(folder / "model")
    load_corpus(planted.texts()).save(folder / "corpus.jsonl")
    return str(folder / "model"), str(folder / "corpus.jsonl")


@pytest.fixture(scope="module")
def run_folder(model_and_corpus, tmp_path_factory) -> Path:
    """A finished run of the planted model."""
    model, corpus = load_model(model_and_corpus[0], device="cpu"), load_corpus(model_and_corpus[1])
    folder = tmp_path_factory.mktemp("run") / "base"
    collect(model, corpus, run_dir=folder, groups=5, progress=False)
    return folder


def printed(capture, *arguments: object, bars: bool = False) -> str:
    """What a command prints; nothing but progress bars may stand on stderr."""
    assert main([str(a) for a in arguments]) == 0
    captured = capture.readouterr()
    assert bars or captured.err == ""
    return captured.out


def refused(capture, *arguments: object, bars: bool = False) -> str:
    """The one line of a command that ends with exit code 2, after the progress bars if any."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as end:  # argparse's own way
        code = end.code  # type: ignore[assignment]
    captured = capture.readouterr()
    assert (code, captured.out) == (2, "")
    assert bars or captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lensneurons", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def expected(folder: Path, **options: Any) -> dict[str, Any]:
    """The object, put together here from the functions of the package."""
    neurons = identify(read_published_counts(folder), **options)
    everything = neurons.with_population("all")
    return {
        "lambda": neurons.lambda_,
        "lambda_origin": neurons.lambda_origin,
        "lambda_floor": neurons.lambda_floor,
        "tau": neurons.tau,
        "selected": int(neurons.selected.sum()),
        "histogram": neurons.histogram().tolist(),
        "histogram_all": everything.histogram().tolist(),
        "per_language": {
            k: {"specific": len(neurons.specific[k]), "related": len(neurons.related[k])}
            for k in neurons.languages
        },
        "layers": everything.layer_profile().tolist(),
        "parts": None,
    }


def test_identify_prints_one_object(published, capsys) -> None:
    out = printed(capsys, "identify", published, "--published", "--json", "--top-rate", "0.2")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found == expected(published, top_rate=0.2)
    assert found["selected"] == 48 == sum(found["histogram"])
    assert sum(found["histogram_all"]) == 240
    assert len(found["histogram"]) == len(found["histogram_all"]) == 4
    assert len(found["layers"]) == 6
    assert list(found["per_language"]) == ["en", "sw", "zh"]
    assert printed(capsys, "identify", published, "--json", "--top-rate", "0.2") == out
    text = printed(capsys, "identify", published, "--top-rate", "0.2")
    told = ("48 selected neurons", "tau", "specific", "related", "N=3", "Four parts not found")
    assert all(word in text for word in told)


def test_identify_takes_every_option(published, capsys) -> None:
    def found(*options):
        return json.loads(printed(capsys, "identify", published, "--json", *options))

    three = found("--lambda", "0.1", "--percentile", "0.8", "--top-rate", "0.1")
    assert three == expected(published, lambda_=0.1, percentile=0.8, top_rate=0.1)
    assert found("--score", "lape")["lambda"] is None
    assert found("--score", "lape")["lambda_origin"] == "none"
    assert found("--tau", "0.5")["tau"] == 0.5
    assert list(found("--languages", "zh, en")["per_language"]) == ["zh", "en"]


def test_the_methods_are_those_of_identify() -> None:
    assert get_args(Method) == WAYS


def test_identify_by_a_method(run_folder, capsys) -> None:
    statistics = ActivationStatistics.load(run_folder)
    asked = ["identify", run_folder, "--json", "--top-rate", "0.2"]
    found = json.loads(printed(capsys, *asked, "--method", "difference"))
    told = identify(statistics, method="difference", top_rate=0.2)
    assert found["histogram"] == told.histogram("selected").tolist()
    assert found["histogram"] != json.loads(printed(capsys, *asked))["histogram"]
    again = ["--method", "script_lape", "--romanised", run_folder]
    same = json.loads(printed(capsys, *asked, *again))  # nothing is lost on the texts themselves
    assert same == json.loads(printed(capsys, *asked, "--method", "lape"))


def test_collect_writes_what_the_methods_read(llama, tmp_path, capsys, monkeypatch) -> None:
    model, _, corpus = llama
    turned = []

    def backwards(texts):
        items = [replace(one, response=one.response[::-1]) for one in texts]
        turned.append(replace(texts, items=tuple(items)))
        return turned[0]

    monkeypatch.setattr(cli_commands, "romanise", backwards)
    command = ["collect", model, "--corpus", corpus, "--device", "cpu", "--groups", "2"]
    file = tmp_path / "items"
    out = printed(capsys, *command, "--out", tmp_path / "own", "--items", file, bars=True)
    assert f"activations of single texts: {file}" in out
    assert not turned
    printed(capsys, *command, "--out", tmp_path / "latin", "--romanised", bars=True)
    own, latin = (ActivationStatistics.load(tmp_path / name) for name in ("own", "latin"))
    assert latin.provenance.corpora == (turned[0].fingerprint,)
    whole = load_model(model, device="cpu")
    items = item_activations(whole, load_corpus(str(corpus)), progress=False)
    capsys.readouterr()  # the bar of loading
    mapped = ItemActivations.load(file, memory_map=True)
    assert np.array_equal(mapped.mean, items.mean)
    for name, given, told in (
        ("average_precision", ["--items", file], {"items": items}),
        ("script_lape", ["--romanised", tmp_path / "latin"], {"romanised": latin}),
    ):
        asked = ["identify", tmp_path / "own", "--json", "--method", name, "--top-rate", "0.2"]
        found = json.loads(printed(capsys, *asked, *given))
        by_hand = identify(own, method=name, top_rate=0.2, **told)
        assert found["histogram"] == by_hand.histogram("selected").tolist()
        assert sum(found["histogram"]) > 0


def test_identify_a_run_folder(run_folder, capsys) -> None:
    found = json.loads(printed(capsys, "identify", run_folder, "--json", *PLANTED))
    assert found["layers"] == [list(row) for row in planted.PROFILE]
    assert found["parts"] == [list(span) for span in planted.BOUNDARIES]
    assert found["tau"] == float(planted.tau())
    assert found["lambda"] == pytest.approx(planted.lambda_and_number()[0])


def test_out_writes_neurons_and_table(published, tmp_path, capsys) -> None:
    out = tmp_path / "found"
    told = json.loads(printed(capsys, "identify", published, "--out", out, "--json"))
    neurons = LanguageNeurons.load(out / "neurons.safetensors")
    assert told["lambda"] == neurons.lambda_
    rows = (out / "neurons.csv").read_text().splitlines()
    assert rows[0].startswith("name,layer,neuron,class,languages,n_above,score,p_max,p_en")
    assert len(rows) == 1 + len(neurons.to_pandas())
    assert "<html" in (out / "neurons.html").read_text()


def test_parts_have_intervals_where_items_were_counted_in_groups(
    run_folder, published, capsys
) -> None:
    options = [*PLANTED, "--draws", 20]
    found = json.loads(printed(capsys, "parts", run_folder, "--json", *options))
    keys = "parts there best_division criteria explained fewer_p trend_p shares intervals"
    assert set(found) == set(keys.split())
    assert found["parts"] == found["best_division"] == [list(s) for s in planted.BOUNDARIES]
    assert found["intervals"] == {"2": [3, 3], "3": [7, 7], "4": [11, 11]}
    assert all(c["verdict"] == "holds" for c in found["criteria"] if c["part"])
    text = printed(capsys, "parts", run_folder, *options)
    assert "Four parts found; part 1: layers 0 to 2, part 2: layers 3 to 6, part 3" in text
    assert "part 2 begins in layers 3 to 3 (95 % of 20 draws)" in text
    found = json.loads(printed(capsys, "parts", published, "--json"))
    assert (found["parts"], found["intervals"]) == (None, {})


def test_collect_and_resume(llama, tmp_path, capsys) -> None:
    """The same command again finds the run finished, and changes nothing."""
    model, _, corpus = llama
    arguments = ["collect", model, "--corpus", corpus, "--out", tmp_path / "run", "--device", "cpu"]
    first = printed(capsys, *arguments, "--groups", "3", bars=True)
    told = "ActivationStatistics: 3 layers x 52 neurons"
    assert first.startswith(told)
    assert first.endswith(f"next: lensneurons identify {tmp_path / 'run'}\n")
    assert "counted tokens" in first.splitlines()[1]
    file = tmp_path / "run" / "statistics.safetensors"
    written = file.read_bytes(), file.stat().st_mtime_ns
    assert ActivationStatistics.load(tmp_path / "run").n_groups == 3
    assert printed(capsys, *arguments, "--groups", "3", bars=True) == first
    assert (file.read_bytes(), file.stat().st_mtime_ns) == written
    line = refused(capsys, *arguments, "--groups", "4", bars=True)
    assert "another plan (groups: 3, now 4)" in line


def test_collect_with_a_model_that_is_spread(llama, tmp_path, capsys) -> None:
    """Most layers lie on a disk, as 150 KB of memory are not enough for them."""
    model, _, corpus = llama
    command = ["collect", model, "--corpus", corpus, "--groups", "2"]
    printed(capsys, *command, "--device", "cpu", "--out", tmp_path / "whole", bars=True)
    spread = [
        "--device-map",
        "auto",
        "--max-memory",
        "cpu=150KB",
        "--offload-folder",
        tmp_path / "o",
    ]
    printed(capsys, *command, *spread, "--out", tmp_path / "split", bars=True)
    there = load_model(
        model, device_map="auto", max_memory={"cpu": "150KB"}, offload_folder=tmp_path / "o"
    )
    assert any(weight.is_meta for weight in there.original_model.parameters())
    whole, split = (ActivationStatistics.load(tmp_path / name) for name in ("whole", "split"))
    assert np.array_equal(whole.grouped_counts, split.grouped_counts)
    assert split.provenance.weights == whole.provenance.weights
    command += ["--out", tmp_path / "none"]
    assert "device_map='auto'" in refused(capsys, *command, "--max-memory", "cpu=1GB", bars=True)
    for wrong in ("40GiB", "gpu=40GiB", "0=much"):
        line = refused(capsys, *command, "--device-map", "auto", "--max-memory", wrong)
        assert "such as 0=40GiB,cpu=200GiB" in line


BAD: list[tuple[list[str], str]] = [
    (["identify", "{broken}"], "is damaged or no safetensors file"),
    (["identify", "{nowhere}"], "nowhere does not exist"),
    (["identify", "{nowhere}", "--published"], "nowhere is not a folder"),
    (["identify", "{empty}"], "statistics.safetensors does not exist"),
    (["identify", "{empty}", "--published"], "holds no activation.LANGUAGE.MODEL.pt files"),
    (["identify", "{published}", "--top-rate", "2"], "top_rate=2.0 is not a share between 0 and 1"),
    (["identify", "{published}", "--percentile", "95"], "percentile=95.0 is not a share"),
    (["identify", "{published}", "--tau", "1.5"], "tau=1.5 is not an activation probability"),
    (["identify", "{published}", "--lambda", "-1"], "lambda_=-1.0 must be zero or a positive"),
    (["identify", "{published}", "--lambda", "much"], "'much' is neither a number nor 'auto'"),
    (["identify", "{published}", "--score", "lap"], "invalid choice: 'lap'"),
    (["identify", "{published}", "--score", "lape", "--lambda", "0.1"], "LAPE has no lambda"),
    (["identify", "{published}", "--method", "lap"], "invalid choice: 'lap'"),
    (
        ["identify", "{published}", "--method", "script_lape"],
        "--method script_lape needs --romanised RUN, counts of the same texts in Latin letters",
    ),
    (
        ["identify", "{published}", "--method", "average_precision"],
        "needs --items FILE, the activations of single texts: collect --items FILE writes them",
    ),
    (["identify", "{published}", "--method", "difference"], "needs sums and squares"),
    (["identify", "{published}", "--method", "lape", "--score", "paper"], "give one of the two"),
    (
        ["identify", "{run}", "--method", "lape", "--romanised", "{run}"],
        "romanised= needs method='script_lape', not 'lape'",
    ),
    (
        ["identify", "{run}", "--method", "paired_difference", "--items", "{neurons}"],
        "but activations of items is wanted",
    ),
    (
        ["collect", "m", *DEMO, "--out", "{empty}/r", "--items", "i", "--site", "q"],
        "--items takes texts that are read whole (no --stream), and neurons",
    ),
    (
        ["collect", "m", *DEMO, "--out", "{empty}/r", "--stream", "--romanised"],
        "--stream reads texts as they are",
    ),
    (["identify", "{published}", "--languages", "zh"], "at least two languages"),
    (["identify", "{published}", "--languages", "zh,xx"], "language='xx' is not known"),
    (["identify", "{published}", "--languages", ","], "',' names nothing"),
    (["identify"], "the following arguments are required: FOLDER"),
    (["identfy", "x"], "'identfy' is no command, did you mean identify?; there are demo, study"),
    (
        ["identify", "x", "--top-rat=2", "--percentil", "3", "--jsn"],
        "'--jsn' is no option, did you",
    ),
    (["collect", "m", "--corpsu", "demo"], "'--corpsu' is no option, did you mean --corpus?"),
    (
        ["demo", "--languages", "en", "--out", "{empty}/p.html"],
        "only ['en']: neurons of a language",
    ),
    (["parts", "{published}", "--draws", "0"], "'0' is not a positive whole number"),
    (["parts", "{nowhere}"], "nowhere does not exist"),
    (["collect", "{empty}", "--corpus", "{nowhere}", "--out", "{empty}/run"], "nowhere"),
    (["collect", "{empty}", *DEMO, "--out", "{empty}/run"], "holds no config.json"),
    (["collect", "m"], "the following arguments are required: --corpus, --out"),
    (["collect", "{empty}", "--corpus", "demo", "--out", "{file}/a/b"], "file is a file: nothing"),
    (["identify", "{published}", "--out", "{file}"], "file is a file: nothing can be written into"),
    (["demo", "--out", "{file}/page.html"], "file is a file: nothing can be written into"),
    (["ablate", "m"], "the following arguments are required: RUN, --corpus, --out"),
    (["describe", "m", "r"], "the following arguments are required: NEURON, --corpus"),
    (["report", "{run}", "{empty}"], "is no run folder, no folder of ablate or describe, and no"),
    (["report", "{run}", "{file}"], "is no value that lensneurons saved"),
    (["report", "{run}", "{neurons}"], "holds language neurons; a page shows activation statist"),
    (["collect", "m", *DEMO, "--out", "{empty}/run", "--groups", "1000000000"], "GiB or more, and"),
    (["collect", "m", *DEMO, "--out", "{empty}/run", "--groups", "9" * 5000], "is larger than any"),
    (["collect", "m", *DEMO, "--out", "a\0b"], "holds a NUL character, which no name has"),
    (["collect", "m", "--corpus", "a\0b", "--out", "{empty}/run"], "holds a NUL character"),
    (["collect", "m", *DEMO, "--out", "{empty}/" + "x" * 300], "name too long"),
    (["collect", "m", *DEMO, "--out", "r", "--limit", "9" * 20], "is larger than any number"),
    (["demo", "--items", "9" * 18, "--out", "{empty}/p.html"], "has no more than 10,000 problems"),
    (["demo", "--out", "{empty}"], "empty is a folder: give the name of a file in it"),
    (["identify", "{published}", "--tau", "nan"], "tau=nan is not a finite number; give one"),
    (["identify", "{published}", "--lambda", "inf"], "lambda_=inf is not a finite number"),
    (["report", "{run}", "--out", "{empty}"], "empty is a folder: give the name of a file in it"),
    (["report", "{run}", "{accuracy}", "{accuracy}"], "holds a second accuracy: a page shows one"),
]


@pytest.fixture(scope="module")
def saved(published, run_folder, tmp_path_factory) -> dict[str, Path]:
    """What stands in braces above and is there before the test."""
    folder = tmp_path_factory.mktemp("saved")
    whole = (run_folder / "statistics.safetensors").read_bytes()
    (folder / "statistics.safetensors").write_bytes(whole[:1000])
    values = {"neurons": pages.neurons(), "accuracy": pages.accuracy()}
    paths = {name: value.save(folder / name) for name, value in values.items()}
    return {"published": published, "run": run_folder, "broken": folder, **paths}


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments, text, saved, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = saved | {name: tmp_path / name for name in ("nowhere", "empty", "file")}
    assert text in refused(capsys, *(a.format(**places) for a in arguments))
    assert (tmp_path / "file").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_odd_command_lines_are_one_line(saved, tmp_path, monkeypatch) -> None:
    """The same as tests/simulations/fuzzed_inputs.py, which draws 200."""
    monkeypatch.chdir(tmp_path)
    random, places = Random(3), [str(saved["run"]), str(tmp_path / "nowhere"), "/dev/null"]
    lines = [fuzzing.command_line(random, places) for _ in range(40)]
    found = [(line, *fuzzing.try_command(line)) for line in lines]
    assert [one for one in found if one[1] not in ("read", "refused")] == []


def test_a_closed_standard_output_ends_the_program_quietly(published, monkeypatch) -> None:
    command = f"'{sys.executable}' -m lensneurons identify '{published}' --json"
    line = f"set -o pipefail; {command} | true"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, timeout=120
    )
    told = [one for one in done.stderr.splitlines() if "hardly any neurons" not in one]
    assert (done.returncode, told) == (141, [])
    monkeypatch.setattr(sys, "stdout", None)  # what Python makes of `>&-`
    assert main(["identify", str(published), "--json"]) == 0


def test_the_revision_of_an_adapter_reaches_the_loader(tmp_path, monkeypatch, capsys) -> None:
    loaded = Mock(side_effect=LensNeuronsError("seen"))
    monkeypatch.setattr("lensneurons.cli.inputs.load_model", loaded)
    given = ["--adapter", "a", "--adapter-revision", "v2"]
    assert "seen" in refused(capsys, "collect", "m", *DEMO, "--out", tmp_path / "r", *given)
    assert loaded.call_args.kwargs["adapter_revision"] == "v2"


def test_json_has_no_infinity_and_no_nan(capsys) -> None:
    inf, nan = float("inf"), float("nan")
    cli_commands.say_json({"a": [nan, (1.5, -inf)], "b": {"c": inf, "d": 2}})
    assert capsys.readouterr().out == '{"a": [null, [1.5, null]], "b": {"c": null, "d": 2}}\n'


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (PermissionError(13, "Permission denied", "/found"), 2, "/found: Permission denied"),
        (OSError(28, "No space left on device"), 2, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_stops_a_command_is_one_line(error, code, told, monkeypatch, published, capsys):
    monkeypatch.setattr("lensneurons.cli.commands.identify", Mock(side_effect=error))
    assert main(["identify", str(published)]) == code
    assert capsys.readouterr().err == f"lensneurons identify: {told}\n"


def test_a_bug_is_not_bad_input(monkeypatch, published) -> None:
    """Only errors of the package become one line; anything else keeps its traceback."""
    bug = Mock(side_effect=ValueError("a bug"))
    monkeypatch.setattr("lensneurons.cli.commands.identify", bug)
    with pytest.raises(ValueError, match="a bug"):
        main(["identify", str(published)])


def test_a_folder_that_is_read_only_is_refused_before_any_work(
    monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    line = refused(capsys, "identify", "/nowhere", "--out", tmp_path / "a" / "b")
    assert f"{tmp_path} is read-only: nothing can be written into {tmp_path}/a/b" in line


# Commands that run a model on the neurons of a run folder

SHARE = ["--top-rate", "0.2"]
SMALL = [*SHARE, "--classes", "specific,related", "--controls", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def llama(model_folder, tmp_path_factory) -> tuple[str, Path, Path]:
    """Folder of a tiny Llama, its run over a corpus of three languages, and the corpus."""
    folder = tmp_path_factory.mktemp("llama")
    corpus = tiny.tiny_corpus().head(4)
    corpus.save(folder / "corpus.jsonl")
    model = load_model(model_folder("Llama"), device="cpu")
    collect(model, corpus, run_dir=folder / "run", groups=2, progress=False)
    return str(model_folder("Llama")), folder / "run", folder / "corpus.jsonl"


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Loading a model is an error."""
    loaded = Mock(side_effect=AssertionError("a model was loaded"))
    monkeypatch.setattr("lensneurons.cli.inputs.load_model", loaded)


@pytest.fixture
def ablate(llama, tmp_path) -> list[Any]:
    """A small ablation in ``tmp_path / "out"``, without its languages."""
    model, folder, texts = llama
    return ["ablate", model, folder, "--corpus", texts, "--out", tmp_path / "out", *SMALL]


@pytest.fixture
def no_plotly(monkeypatch) -> None:
    """Reports without 4 MB of plotly.js each."""
    monkeypatch.setattr("lensneurons.reports.report_page.get_plotlyjs", lambda: "")


def found_by_hand(llama) -> tuple[Any, Any, LanguageNeurons]:
    """Model, corpus and neurons, as the commands should have them."""
    model, folder, corpus = llama
    neurons = identify(ActivationStatistics.load(folder), top_rate=0.2)
    return load_model(model, device="cpu"), load_corpus(str(corpus)), neurons


def test_ablate_is_ablation_matrix(llama, ablate, tmp_path, capsys) -> None:
    options = ["--languages", "zh,en", "--seed", "5", "--json"]
    found = json.loads(printed(capsys, *ablate, *options, bars=True))
    bridge, corpus, neurons = found_by_hand(llama)
    matrix = ablation_matrix(
        bridge, corpus, neurons, classes=("specific", "related"), languages=("zh", "en"),
        controls=3, seed=5, progress=False,
    )  # fmt: skip
    assert set(found) == {
        "removed", "evaluated", "neurons", "controls", "matches", "method", "summary"
    }  # fmt: skip
    assert (found["removed"], found["evaluated"]) == (["zh", "en"], ["en", "zh", "th"])
    assert found["controls"] == matrix.draws >= 3
    assert (found["matches"], found["method"]) == (["own", "activity", "layer"], "zero")
    assert found["neurons"]["specific"]["zh"] == len(neurons.specific["zh"])
    assert found["neurons"]["specific + related"]["en"] == len(neurons["en"]) > 0
    assert list(found["summary"]) == ["nll"]
    summary = pd.DataFrame(found["summary"]["nll"]).astype(dict.fromkeys(("low", "high"), float))
    pd.testing.assert_frame_equal(summary, matrix.summary())
    written = pd.read_csv(tmp_path / "out" / "nll.csv")
    pd.testing.assert_frame_equal(written, matrix.to_pandas(), check_exact=False)
    assert len(written) == 2 * 2 * 3


def test_what_has_no_number_is_a_dash_and_says_why(tmp_path) -> None:
    """A row that removes nothing: no ratio, no p, no matched layer, and no NaN anywhere."""
    matrix = make_matrix((1.0, 0.0, 0.02), languages=("en", "sw"))
    effect, control = matrix.effect.copy(), matrix.control.copy()
    effect[:, 1] = control[:, :, 1] = 0
    rates = matrix.rates.copy()
    rates[:, :, 1] = np.nan
    counts = np.array([[[4], [0]]])
    half = replace(matrix, neurons_by_layer=counts, effect=effect, control=control, rates=rates)
    nothing = replace(half, neurons_by_layer=0 * counts, effect=0 * effect, control=0 * control)
    told = summaries.describe_matrix(half, tmp_path / "nll.csv")
    assert re.search(r"sw +own +0 +– +– +– +– +– +–\n", told)
    assert re.search(r"en +own +4 +0\.\d+ ", told)
    assert told.endswith(f"{summaries.NO_NUMBER}\n")
    assert not re.search(r"nan|NaN|None", told)
    told = summaries.describe_matrix(nothing, tmp_path / "nll.csv")
    assert "\nNothing was removed: these languages have no specific neurons.\n" in told
    assert re.search(r"\n *specific +diagonal / off-diagonal +– +– +–\n", told)
    assert "marked" not in told
    assert np.isnan(nothing.figures()["diagonal / off-diagonal"].estimate)
    assert np.isnan(nothing.selectivity_ratio().estimate).all()
    assert "nan" not in nothing._repr_html_().lower()


def test_the_packages_warnings_are_one_line_each(published, monkeypatch) -> None:
    def format_both(options: Any) -> None:
        for kind in (EmptySetWarning, UserWarning):
            told.append(warnings.formatwarning("few", kind, "some.py", 3, "line()"))

    told: list[str] = []
    plain, where = warnings.formatwarning, "some.py:3: UserWarning: few\n  line()\n"
    monkeypatch.setattr(cli_commands, "do_parts", format_both)
    assert main(["parts", str(published)]) == 0
    assert told == ["lensneurons: few\n", where]
    assert warnings.formatwarning is plain


def test_ablate_goes_on_where_it_stopped(ablate, capsys, monkeypatch) -> None:
    command = [*ablate, "--languages", "en", "--evaluate", "th,en"]
    first = printed(capsys, *command, bars=True)
    assert re.match(r"change of NLL, nats a token; \d+ random sets a control, method zero;", first)
    assert "specific + related beyond control (own): selectivity" in " ".join(first.split())
    ran = Mock(side_effect=AssertionError("a cell ran again"))
    monkeypatch.setattr("lensneurons.experiments.ablation.run_cells", ran)
    assert printed(capsys, *command, bars=True) == first
    line = refused(capsys, *command, "--seed", "1", bars=True)
    assert line.startswith("lensneurons ablate: ")
    assert "out/nll was begun with another plan (" in line
    assert "seed: 0, now 1)" in line


def test_ablate_with_accuracy(ablate, tmp_path, capsys) -> None:
    """A random model answers nothing: ratios to 0 are null, which JSON can say."""
    words = {"en": "apples", "zh": "苹果", "th": "แมว"}
    rows = {
        k: [(f"{word} {n}\n", f"{word} {n}") for n in (2, 31, 4, 17, 60)]
        for k, word in words.items()
    }
    texts = load_corpus(rows).save(tmp_path / "numbers.jsonl")
    command = [*ablate, "--corpus", texts, "--languages", "zh", "--metric", "nll,accuracy"]
    command += ["--max-new-tokens", "3"]
    found = json.loads(printed(capsys, *command, "--json", bars=True))
    assert list(found["summary"]) == ["nll", "accuracy"]
    name = "diagonal / off-diagonal"
    ratio = next(row for row in found["summary"]["accuracy"] if row["figure"] == name)
    nothing = dict.fromkeys(("estimate", "low", "high"))
    assert ratio == {"removed": "specific", "figure": name, **nothing}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"nll", "nll.csv", "accuracy", "accuracy.csv"}
    shots = load_corpus({k: [("3\n", "3"), ("4\n", "4")] for k in words}).save(tmp_path / "s.jsonl")
    given = ["--shots", shots, "--n-shots", "1"]
    line = refused(capsys, *command, "--json", *given, bars=True)
    assert "out/accuracy was begun with another plan (shots: None, now '" in line
    # The limit is of answers alone: the NLL is not run again for another one.
    line = refused(capsys, *command[:-1], "4", "--json", bars=True)
    assert "out/accuracy was begun with another plan (max_new_tokens: 3, now 4)" in line


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--languages", "en,fr"], "language='fr' is not known; choose one of ['en', 'zh', 'th']"),
        (["--classes", "specific,relatd"], "class='relatd' is not known"),
        (["--classes", "specific,specific"], "is empty or names one twice"),
        (["--metric", "nll,acuracy"], "metric='acuracy' is not known; choose one of ['nll', 'acc"),
        (["--metric", "nll,nll"], "metric: ['nll', 'nll'] names one twice"),
        (["--evaluate", "en,sw"], "has no language 'sw'"),
        (["--evaluate", "en"], "evaluate these and at least one other language"),
        (["--languages", "zh", "--evaluate", "en,th"], "the neurons of ['zh'] are removed and"),
        (["--limit", "1"], "one item a language shows nothing: raise the limit"),
        (["--top-rate", "2"], "top_rate=2.0 is not a share between 0 and 1"),
        (["--out", "{texts}"], "is a file: nothing can be written into"),
        (["--shots", "{texts}"], "example 'item-3' (en) has no prompt or no response"),
        (["--shots", "{texts}", "--n-shots", "1"], "'item-0' (en) is one of the problems that"),
        (["--shots", "{texts}", "--n-shots", "0"], "'0' is not a positive whole number"),
        (["--n-shots", "2"], "--n-shots takes examples from a file: give --shots too"),
        (["--shots", "/nowhere"], "/nowhere"),
        (["--seed", "-1"], "'-1' is not a whole number"),
        (["L9N0"], "L9N0 is outside a model of 3 layers x 52 neurons"),
        (["L1N7", "--languages", "sw"], "has no language 'sw'"),
        (["L1N7", "--out", "{texts}/card.html"], "is a file: nothing can be written into"),
    ],
)
def test_ablate_and_describe_refuse_before_the_model_is_loaded(
    options, text, llama, no_model, tmp_path, capsys
) -> None:
    model, folder, texts = llama
    command = "describe" if options[0].startswith("L") else "ablate"
    given = [option.format(texts=texts) for option in options]
    usual = ["--corpus", texts, "--out", tmp_path / "out"]
    neurons = [given.pop(0)] if command == "describe" else []
    assert text in refused(capsys, command, model, folder, *neurons, *usual, *given)
    assert not (tmp_path / "out").exists()


def test_ablate_refuses_languages_that_cannot_be_told_apart(ablate, no_model, tmp_path, capsys):
    rows = {k: [("1\n", "1"), ("2\n", "2")] for k in ("en", "zh", "th", "hsb")}
    texts = load_corpus(rows).save(tmp_path / "texts.jsonl")
    options = ["--corpus", texts, "--evaluate", "en,zh,th,hsb", "--metric", "accuracy"]
    line = refused(capsys, *ablate, *options)
    assert "'hsb' cannot be told from other languages of its script" in line


def test_ablate_looks_at_the_answers_before_anything_runs(ablate, tmp_path, capsys) -> None:
    line = refused(capsys, *ablate, "--metric", "nll,accuracy", bars=True)
    assert "has no number in its response: accuracy needs problems" in line
    assert not (tmp_path / "out").exists()


def test_neurons_of_another_model_are_refused(llama, model_folder, tmp_path, capsys) -> None:
    model, folder, texts = llama
    other = model_folder("Llama", 99)
    rest = [folder, "--corpus", texts, "--out", tmp_path / "out", *SMALL]
    for command in ([other, *rest], [model, *rest, "--dtype", "bfloat16"]):
        line = refused(capsys, "ablate", *command, bars=True)
        assert "does not have the weights that" in line
        assert f"collected from ({model} in float32): give that model and --dtype, or" in line
    assert not (tmp_path / "out").exists()
    options = ["--evaluate", "en,th", "--languages", "en", "--other-weights"]
    assert "mean diagonal" in printed(capsys, "ablate", other, *rest, *options, bars=True)


def test_export_is_a_folder_without_the_neurons(
    model_and_corpus, run_folder, tmp_path, capsys
) -> None:
    given = (model_and_corpus[0], run_folder, "--languages", "de", *PLANTED)
    out = printed(capsys, "export", *given, "--out", tmp_path / "out", bars=True)
    assert f"model: {tmp_path / 'out'}" in out
    again = load_model(tmp_path / "out", device="cpu")
    rate, top = float(planted.PERCENTILE), float(planted.TOP_RATE)
    neurons = identify(ActivationStatistics.load(run_folder), percentile=rate, top_rate=top)
    rows = [again.blocks[n].mlp.W_out[own] for n, own in neurons["de"].by_layer().items()]
    assert len(neurons["de"]) > 0
    assert not any(bool(row.any()) for row in rows)
    refusal = refused(capsys, "export", *given, "--out", tmp_path / "out", bars=True)
    assert "is there already: give a new folder" in refusal


def test_describe_is_the_cards_their_page_and_their_files(llama, tmp_path, capsys, no_plotly):
    model, folder, texts = llama
    names = ["L2N3", "L1N7"]
    command = ["describe", model, folder, *names, names[0], "--corpus", texts, *SHARE]
    command += ["--device", "cpu"]
    out = ["--save", tmp_path / "cards", "--out", tmp_path / "new" / "cards.html"]
    shown = printed(capsys, *command, *out, bars=True)
    bridge, corpus, neurons = found_by_hand(llama)
    statistics = ActivationStatistics.load(folder)
    cards = [describe(bridge, neurons, n, corpus=corpus, statistics=statistics) for n in names]
    told = "\n".join(describe_card(card) for card in cards)
    assert shown == f"{told}\npage: {tmp_path / 'new' / 'cards.html'}\n"
    page = page_of(tmp_path / "new", "cards.html")
    assert page.startswith("<!doctype html>")
    assert "<title>L2N3 L1N7</title>" in page
    assert all(card._repr_html_() in page for card in cards)
    files = [NeuronCard.load(tmp_path / "cards" / f"{name}.jsonl") for name in names]
    assert [card.to_dict() for card in files] == [card.to_dict() for card in cards]
    fewer = ["--json", "--languages", "th,en", "--limit", "2"]
    lines = printed(capsys, *command, *fewer, bars=True).splitlines()
    for line, card in zip(lines, cards, strict=True):
        told = json.loads(line)
        assert told["record"] == json.loads(json.dumps(card.to_dict()["record"]))
        assert list(told["effect"]) == ["th", "en"]
        assert {context["item"] for context in told["contexts"]} <= set(corpus.ids[:2])

    given = [tmp_path / "cards", "--out", tmp_path / "page.html", *SHARE]
    printed(capsys, "report", folder, *given)
    assert all(f'id="card-{name}"' in page_of(tmp_path) for name in names)
    refusal = refused(capsys, "report", folder, *given, "--tau", "0.4")
    assert "is of other neurons than the page" in refusal


def page_of(folder: Path, name: str = "page.html") -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_report_is_the_page_of_a_run(run_folder, tmp_path, capsys, no_plotly) -> None:
    out = printed(capsys, "report", run_folder, "--out", tmp_path / "page.html", *PLANTED)
    assert out == f"page: {tmp_path / 'page.html'}\n"
    page = page_of(tmp_path)
    assert "The layers show the four parts of the paper: 0–2, 3–6, 7–10 and 11." in page
    assert f"{len(planted.PROFILE) * planted.D_MLP} neurons" in page
    assert 'id="change"' not in page
    again = ["report", run_folder, "--out", tmp_path / "new" / "page.html", "--json", *PLANTED]
    found = json.loads(printed(capsys, *again, "--title", "A <b>"))
    assert found == {"page": str(tmp_path / "new" / "page.html")}
    assert '<h1 dir="auto">A &lt;b&gt;</h1>' in page_of(tmp_path / "new")


def test_report_takes_what_the_other_commands_left(llama, tmp_path, capsys, no_plotly) -> None:
    """A later run makes a comparison, two make a series; a file's kind says what it holds."""
    _, run_folder, _ = llama
    neurons = identify(ActivationStatistics.load(run_folder), top_rate=0.2)
    own = of_neurons(neurons, ("specific", "related"), 4)
    found = replace(pages.matrix(neurons.languages), **own)
    matrix = found.save(tmp_path / "out" / "nll" / "ablation.safetensors")
    foreign = pages.matrix().save(tmp_path / "foreign" / "ablation.safetensors")
    out = ["--out", tmp_path / "page.html", *SHARE]
    line = refused(capsys, "report", run_folder, foreign, *out)
    assert "report: effects are of neurons of" in line
    accuracy = pages.accuracy().save(tmp_path / "accuracy.safetensors")
    later = [shutil.copytree(run_folder, tmp_path / name) for name in ("b", "c")]
    command = ["report", run_folder, tmp_path / "out", accuracy, *later, "--trained", "zh"]
    printed(capsys, *command, *out)
    page = page_of(tmp_path)
    assert {
        "What removing them does", "Right answers, in the right language",
        "The claims of the paper, tested", "From where to where", "Along the training",
    } <= set(re.findall("<h3>(.*?)</h3>", page))  # fmt: skip
    assert "0 neurons changed" in page or "no neurons changed" in page
    printed(capsys, "report", run_folder, matrix, later[0], *out)
    headings = re.findall("<h3>(.*?)</h3>", page_of(tmp_path))
    assert "From where to where" in headings
    assert "Along the training" not in headings


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    """In half a second; then the help of every command, in the same process."""
    code = (
        "import sys, time\nstart = time.perf_counter()\nfrom lensneurons.cli import main\n"
        "for command in ([], *([name] for name in sys.argv[1:])):\n"
        "    try:\n        main([*command, '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0\n"
        "    if not command:\n        seconds = time.perf_counter() - start\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'transformer_lens', 'plotly'}\n"
        "print(seconds, *sorted(heavy & set(sys.modules)))\n"
    )
    names = [name for name in vars(cli_commands) if name.startswith("do_")]
    commands = [name.removeprefix("do_").replace("_", "-") for name in names]
    assert len(commands) == 14
    times = []
    while not times or (min(times) >= 0.5 and len(times) < 3):
        python = [sys.executable, "-c", code, *commands]
        done = subprocess.run(python, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        for command in commands:
            assert f"usage: lensneurons {command}" in done.stdout
        assert "default: None" not in done.stdout
        seconds, *heavy = done.stdout.splitlines()[-1].split()
        assert heavy == []
        times.append(float(seconds))
    assert min(times) < 0.5


def test_the_module_is_the_command(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == "lensneurons 0.1.0\n"
    done = run("identify", "/nowhere/at/all")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("lensneurons identify: /nowhere/at/all does not exist")


# Chats


def test_a_chat_needs_a_template_and_a_system_prompt_a_chat(capsys, tmp_path) -> None:
    given = ["collect", "demo", *DEMO, "--out", tmp_path / "run"]
    line = refused(capsys, *given, "--system", "Be brief.")
    assert "system= needs template='chat'" in line
    assert "has no chat template" in refused(capsys, *given, "--chat", bars=True)


def test_collect_counts_in_the_chat_template_of_the_model(tmp_path, capsys) -> None:
    tokenizer = deepcopy(tiny.byte_tokenizer(bos=True))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
    )
    tiny.save_model("Llama", tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    rows = {"en": [("2 + 3?", "five")], "zh": [("2 + 3?", "五个苹果")]}
    texts = load_corpus(rows).save(tmp_path / "texts.jsonl")
    options = ["--corpus", texts, "--chat", "--system", "Be brief.", "--out", tmp_path / "run"]
    printed(capsys, "collect", tmp_path / "chat", *options, bars=True)
    statistics = ActivationStatistics.load(tmp_path / "run")
    model = load_model(tmp_path / "chat", device="cpu")
    chat = chat_corpus(model, load_corpus(texts), system="Be brief.")
    assert chat.items[0].prompt.startswith("system: Be brief.\nuser: ")
    assert statistics.provenance.template == chat.template
    ours = collect(model, chat, progress=False)
    assert np.array_equal(ours.counts, statistics.counts)
