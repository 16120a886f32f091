"""The command line: what it prints, its exit codes, one line for every error, and quick help."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import torch

from lensneurons.activations import collect
from lensneurons.cli import main
from lensneurons.corpora import load_corpus
from lensneurons.identification import identify
from lensneurons.models import load_model
from lensneurons.neurons import LanguageNeurons
from lensneurons.statistics import ActivationStatistics

KEYS = {
    "lambda", "lambda_origin", "tau", "selected", "histogram", "histogram_all", "per_language",
    "layers", "parts",
}  # fmt: skip
LANGUAGES = ("en", "sw", "zh")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def model_and_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folder of the planted model, and its corpus as JSON lines."""
    folder = tmp_path_factory.mktemp("planted")
    planted.save_model(folder / "model")
    load_corpus(planted.texts()).save(folder / "corpus.jsonl")
    return str(folder / "model"), str(folder / "corpus.jsonl")


@pytest.fixture(scope="module")
def run_folder(model_and_corpus: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the planted model."""
    model, corpus = model_and_corpus
    folder = tmp_path_factory.mktemp("run") / "base"
    collect(
        load_model(model, device="cpu"),
        load_corpus(corpus),
        run_dir=folder,
        groups=5,
        progress=False,
    )
    return folder


def printed(capture: Capture, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 0
    captured = capture.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capture: Capture, *arguments: object) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as end:  # argparse's own way
        code = end.code  # type: ignore[assignment]
    captured = capture.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    return captured.err


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lensneurons", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def expected(folder: Path, **options: Any) -> dict[str, Any]:
    """The object, put together here from the functions of the package."""
    from lensneurons.published import read_published_counts

    neurons = identify(read_published_counts(folder), **options)
    everything = neurons.with_population("all")
    return {
        "lambda": neurons.lambda_,
        "lambda_origin": neurons.lambda_origin,
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


def test_identify_prints_one_object(published: Path, capsys: Capture) -> None:
    out = printed(capsys, "identify", published, "--published", "--json", "--top-rate", "0.2")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert set(found) == KEYS
    assert found == expected(published, top_rate=0.2)
    assert found["selected"] == 48 == sum(found["histogram"])
    assert sum(found["histogram_all"]) == 240
    assert len(found["histogram"]) == len(found["histogram_all"]) == 4
    assert len(found["layers"]) == 6
    assert list(found["per_language"]) == ["en", "sw", "zh"]
    assert printed(capsys, "identify", published, "--json", "--top-rate", "0.2") == out


def test_identify_takes_every_option(published: Path, capsys: Capture) -> None:
    out = printed(
        capsys, "identify", published, "--json", "--lambda", "0.1", "--percentile", "0.8",
        "--top-rate", "0.1",
    )  # fmt: skip
    assert json.loads(out) == expected(published, lambda_=0.1, percentile=0.8, top_rate=0.1)
    lape = json.loads(printed(capsys, "identify", published, "--json", "--score", "lape"))
    assert (lape["lambda"], lape["lambda_origin"]) == (None, "none")
    bar = json.loads(printed(capsys, "identify", published, "--json", "--tau", "0.5"))
    assert bar["tau"] == 0.5
    two = json.loads(printed(capsys, "identify", published, "--json", "--languages", "zh, en"))
    assert list(two["per_language"]) == ["zh", "en"]


def test_identify_as_text(published: Path, capsys: Capture) -> None:
    out = printed(capsys, "identify", published, "--top-rate", "0.2")
    for word in (
        "48 selected neurons",
        "tau",
        "specific",
        "related",
        "N=3",
        "LayerParts(not found",
    ):
        assert word in out


def test_identify_a_run_folder(run_folder: Path, capsys: Capture) -> None:
    out = printed(
        capsys, "identify", run_folder, "--json", "--percentile", planted.PERCENTILE,
        "--top-rate", planted.TOP_RATE,
    )  # fmt: skip
    found = json.loads(out)
    assert set(found) == KEYS
    assert found["layers"] == [list(row) for row in planted.PROFILE]
    assert found["parts"] == [list(span) for span in planted.BOUNDARIES]
    assert found["tau"] == float(planted.tau())
    assert found["lambda"] == pytest.approx(planted.lambda_and_number()[0])


def test_out_writes_neurons_and_table(published: Path, tmp_path: Path, capsys: Capture) -> None:
    out = printed(capsys, "identify", published, "--out", tmp_path / "found", "--json")
    neurons = LanguageNeurons.load(tmp_path / "found" / "neurons.safetensors")
    assert json.loads(out)["lambda"] == neurons.lambda_
    rows = (tmp_path / "found" / "neurons.csv").read_text().splitlines()
    assert rows[0].startswith("name,layer,neuron,class,languages,n_above,score,p_max,p_en")
    assert len(rows) == 1 + len(neurons.to_pandas())
    assert "<html" in (tmp_path / "found" / "neurons.html").read_text()


def test_phases(run_folder: Path, capsys: Capture) -> None:
    options = ["--percentile", planted.PERCENTILE, "--top-rate", planted.TOP_RATE, "--draws", 5]
    found = json.loads(printed(capsys, "phases", run_folder, "--json", *options))
    assert set(found) == {
        "parts", "best_division", "criteria", "explained", "shuffle_p", "intervals",
    }  # fmt: skip
    assert found["parts"] == found["best_division"] == [list(s) for s in planted.BOUNDARIES]
    assert found["intervals"] == {"2": [3, 3], "3": [7, 7], "4": [11, 11]}
    assert all(c["holds"] for c in found["criteria"])
    text = printed(capsys, "phases", run_folder, *options)
    assert "LayerParts(found: 0-2 / 3-6 / 7-10 / 11)" in text
    assert "part 2 begins in layers 3 to 3 (95 % of 5 draws)" in text


def test_phases_of_published_counts_have_no_intervals(published: Path, capsys: Capture) -> None:
    found = json.loads(printed(capsys, "phases", published, "--json"))
    assert found["parts"] is None
    assert found["intervals"] == {}


def test_collect_and_resume(model_and_corpus: tuple[str, str], tmp_path: Path) -> None:
    """In processes of their own: the second finds the run finished, and changes nothing."""
    model, corpus = model_and_corpus
    arguments = ["collect", model, "--corpus", corpus, "--out", tmp_path / "run", "--device", "cpu"]
    first = run(*arguments, "--groups", "3")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(
        "ActivationStatistics(12 layers x 60 neurons, response tokens: en"
    )
    assert first.stdout.count("\n") == 1
    file = tmp_path / "run" / "statistics.safetensors"
    written = file.read_bytes(), file.stat().st_mtime_ns
    assert ActivationStatistics.load(tmp_path / "run").n_groups == 3
    again = run(*arguments, "--groups", "3")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == written
    other = run(*arguments, "--groups", "4")
    assert other.returncode == 2
    assert "another plan (groups: 3, now 4)" in other.stderr.splitlines()[-1]
    assert other.stdout == ""


BAD: list[tuple[list[str], str]] = [
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
    (["identify", "{published}", "--languages", "zh"], "at least two languages"),
    (["identify", "{published}", "--languages", "zh,xx"], "language='xx' is not known"),
    (["identify", "{published}", "--languages", ","], "names no language"),
    (["identify"], "the following arguments are required: FOLDER"),
    (["identfy", "x"], "invalid choice: 'identfy'"),
    ([], "the following arguments are required: COMMAND"),
    (["phases", "{published}", "--draws", "0"], "'0' is not a positive whole number"),
    (["phases", "{nowhere}"], "nowhere does not exist"),
    (["collect", "{empty}", "--corpus", "{nowhere}", "--out", "{empty}/run"], "nowhere"),
    (["collect", "m"], "the following arguments are required: --corpus, --out"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], text: str, published: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"nowhere": tmp_path / "nowhere", "empty": tmp_path / "empty", "published": published}
    assert text in refused(capsys, *(a.format(**places) for a in arguments))


def test_a_folder_that_is_no_model(
    model_and_corpus: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    arguments = ["--corpus", model_and_corpus[1], "--out", tmp_path / "run"]
    assert "holds no config.json" in refused(capsys, "collect", tmp_path, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_broken_run_is_one_line(run_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    content = (run_folder / "statistics.safetensors").read_bytes()
    (tmp_path / "statistics.safetensors").write_bytes(content[:1000])
    assert "is damaged or no safetensors file" in refused(capsys, "identify", tmp_path)


def test_a_bug_is_not_bad_input(monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    """Only errors of the package become one line; anything else keeps its traceback."""

    def broken(*_: object, **__: object) -> Callable[..., None]:
        raise ValueError("a bug")

    monkeypatch.setattr("lensneurons.identification.identify", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["identify", str(published)])


def test_an_interruption_is_one_line(
    monkeypatch: pytest.MonkeyPatch, published: Path, capsys: Capture
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lensneurons.identification.identify", interrupted)
    assert main(["identify", str(published)]) == 130
    assert capsys.readouterr().err == "lensneurons identify: interrupted\n"


@pytest.mark.parametrize("command", [[], ["demo"], ["collect"], ["identify"], ["phases"]])
def test_help_answers_at_once_and_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom lensneurons.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'transformer_lens', 'plotly'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\nsys.exit(code)\n"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        times.append(time.perf_counter() - start)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: lensneurons" in done.stdout
        if times[-1] < 0.5:
            break
    assert min(times) < 0.5


def test_the_module_is_the_command() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, "lensneurons 0.1.0\n")
    done = run("identify", "/nowhere/at/all")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("lensneurons identify: /nowhere/at/all does not exist")
