"""The notebooks: every cell runs, offline; every exercise tells a right answer from wrong ones.

Each notebook is executed once, in a kernel of its own, the first of them in one that starts with
nothing imported: all begin with the same cell. After the cell of an exercise, as a reader
who has not answered sees it, come wrong answers, the folded solution, and the cell once more; so
solutions are tried in their place, and what follows does not lean on them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import before_after
import nbformat
import notebook_tools as tools
import numpy as np
import pages
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from figure_values import make_edges, make_reading
from IPython.core.interactiveshell import InteractiveShell
from nbclient.exceptions import CellExecutionError
from notebook_tools import Page
from tiny import tiny_corpus

import lensneurons as ln
from lensneurons.activations import SignDifferences
from lensneurons.alignment.pairs import preference_pairs
from lensneurons.alignment.responses import (
    SampledResponse,
    SampledResponses,
    ScoredResponse,
    ScoredResponses,
)
from lensneurons.alignment.training import Alignment, DPOSettings
from lensneurons.comparison import ScriptControl
from lensneurons.corpora import build_corpus, stream_corpus
from lensneurons.evaluation.generation import Decoding
from lensneurons.models.identity import original_tokenizer
from lensneurons.studies.plan import LEAST, Plan, PlannedStep
from lensneurons.studies.study import Study
from lensneurons.tokens.encoding import encode
from lensneurons.values.provenance import ROUTER, Provenance

NAMES = [path.stem for path in tools.PATHS]
# Exercise -> (what stands in the place of the answer, words of the reply to it).
WRONG = {
    "1-1": [
        ('    return "specific" if n == 1 else "related"', "class_of(0, 2)"),
        ('    return {0: "unclassified", 1: "specific"}.get(n, "related")', "class_of(2, 2)"),
    ],
    "1-2": [
        ("probability = statistics.counts[layer, neuron, place]", "Out of how many tokens"),
        ("probability = statistics.counts[layer, neuron].sum() / statistics.tokens.sum()", "one"),
        ("probability = 2.0", "Divide the active"),
        ('probability = "often"', "Replace"),
    ],
    "1-3": [
        ('shared = len(neurons["de"] & neurons["fr"])', "not its size"),
        ('shared = neurons["de"] | neurons["fr"]', "`&` is the intersection"),
        ('shared = neurons["de"] & neurons["fr"]', "of English as well"),
        ('shared = neurons["de"] - neurons["de"]', "some are missing"),
    ],
    "2-1": [
        ("counts = (pre > 0).sum(1)", "counted the prompt as well"),
        ("counts = (pre[:, response] >= -1).sum(1)", "Active is above 0"),
        ("counts = (pre[:, response] > 0).sum(0)", "The shape is"),
    ],
    "2-2": [
        ("bar = 0.9", "at another bar more"),
        ("bar = (0.5,)", "Replace"),
    ],
    "2-3": [
        ("    return -(p * np.log(p + 1e-12)).sum() / np.log(len(p))", "Divide p by its sum"),
        (
            "    share = p[p > 0] / p.sum()\n    return -(share * np.log(share)).sum()",
            "Divide by ln K",
        ),
        ("    return p.max()", "but is 1.0000"),
    ],
    "2-4": [
        ("largest = 0.0", "a larger value has none either"),
        ("largest = 2.0", "agnostic neurons are selected"),
    ],
    "3-2": [
        ("    return int(profile[:, 0].argmax()) + 1", "late half"),
        ("    return len(profile) // 2 + int(profile[len(profile) // 2 :, 0].argmax())", "itself"),
    ],
    "3-3": [
        ("split = max(range(1, len(features)), key=cost)", "a better split"),
        ("split = min(range(1, len(features)), key=cost) - 1", "last layer of the first"),
        ("split = 0", "would be empty"),
    ],
    "3-4": [
        ("changed[0, 0] += 1", "column 2"),
        ("changed[31, 2] += 1", "still found"),
        ("changed[0, 2] = 1", "Something else fails"),
        ("changed = 3", "a changed copy"),
    ],
    "3-1": [
        ('verdicts = dict.fromkeys((1, 2, 3, 4), "there")', "look at its interval"),
        ('verdicts = {1: "undecided", 2: "missing", 3: "there", 4: "undecided"}', "part 2 again"),
        ('verdicts = {1: "there"}', "one of the three words"),
    ],
    "4-1": [
        ("control = chosen.random_control(neurons.probability[:, :, 0], draws=1)", "one set"),
        ("control = chosen", "shares neurons"),
        ('control = neurons["en"]', "every layer"),
        (
            "control = chosen.random_control(neurons.probability.mean(axis=-1), draws=1)[0]",
            "match it",
        ),
    ],
    "4-2": [
        ("selectivity = cells.diagonal() - cells.mean(1)", "leave it out"),
        ("selectivity = -effects.selectivity().estimate", "other way round"),
        ("selectivity = cells.diagonal()", "within each row"),
        ("selectivity = cells", "one number a row"),
    ],
    "4-3": [("layer = -1", "The layers are"), ("layer = 0", "the share is"), ("layer = 0.5", "")],
    "4-4": [
        ("head = (0, 99)", "There are layers"),
        ("head = 3", "two whole numbers"),
    ],
    "4-5": [
        ("switched = 3", "two numbers"),
        ("switched = (0, 0)", "Count the texts"),
        ("switched = (len(qwen.steered), 5)", "The first is right"),
    ],
    "5-1": [
        ("shares = (np.mean(after.probability > change.tau), 0.5)", "The first is right"),
        ("shares = (0.3, 0.3)", "Take the mean"),
        ("shares = 0.05", "two numbers"),
    ],
    "5-2": [
        ("moved = (np.triu(change.transitions).sum(), 0)", "leave it out"),
        ("moved = (-1, 0)", "right of the diagonal"),
        (
            "moved = (np.tril(change.transitions, -1).sum(), np.triu(change.transitions, 1).sum())",
            "Rows are N before",
        ),
    ],
    "5-3": [
        ("held = (-1, 0)", '`"holds"`'),
        ('held = ([c.verdict for c in tested].count("holds"), -1)', "not `"),
    ],
    "6-1": [
        ("share = ((post > 0) == (pre > 0)).mean()", "over all entries"),
        ("share = (post > 0).mean()", "number of active entries"),
        ("share = 2", "which share"),
    ],
    "6-2": [
        ("    return groups * layers * width * languages", "takes 8 bytes"),
        ("    return 8 * layers * width * languages", "group of items"),
        ("    return 0", "these statistics, not"),
    ],
    "6-3": [
        ('mine = {"en": ["One."]}', "Make a corpus"),
        ('mine = ln.load_corpus({"en": [("a?", "One."), ("b?", "Two."), ("c?", "3.")]})', "two or"),
        ('mine = ln.load_corpus({"en": [("a?", "One.")], "de": [("b?", "Eins.")]})', "give three"),
        (
            'mine = ln.load_corpus({"en": ["One.", "Two.", "Six."], "de": ["1.", "Zwei.", "S."]})',
            "(prompt, response) pairs",
        ),
    ],
    "7-1": [
        ("    return own[np.argsort(values)].mean()", "Of 4 texts, 2 of them own"),
        (
            "    ranked = own[np.argsort(values)]\n"
            "    return (ranked.cumsum() / np.arange(1, len(ranked) + 1))[ranked].mean()",
            "Begin with the largest",
        ),
        (
            "    ranked = own[np.argsort(-values)]\n"
            "    return (ranked.cumsum() / np.arange(1, len(ranked) + 1)).mean()",
            "over the own texts alone",
        ),
    ],
    "7-2": [
        ('best = ("chance", True)', "the name of one of"),
        ('best = ("LAPE", None)', "The second is True or False"),
        (
            'rows = table[table["figure"] == "selectivity beyond control"]\n'
            'best = (rows.set_index("method")["estimate"].idxmin(), True)',
            "Another method has a larger estimate",
        ),
    ],
    "7-3": [
        (
            'k = agreement.languages.index("zh")\n'
            "rho = np.corrcoef(np.abs(value[:, k]), np.abs(agreement.effect[:, k]))[0, 1]",
            "take their ranks",
        ),
        (
            'k = agreement.languages.index("zh")\n'
            "ranks = [pd.Series(x[:, k]).rank() for x in (value, agreement.effect)]\n"
            "rho = np.corrcoef(*ranks)[0, 1]",
            "with signs",
        ),
        ("rho = 2.0", "about zh alone"),
    ],
}


@pytest.fixture(params=tools.PATHS, ids=NAMES)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_seven() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06", "07"]


def test_a_notebook_is_stripped_and_valid(path: Path) -> None:
    notebook = tools.read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_a_notebook_is_built_like_the_others(path: Path) -> None:
    notebook = tools.read(path)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert texts[0].startswith(f"# {int(path.stem[:2])}. ")
    assert "you will" in texts[0]
    assert any("## What this does not show" in text for text in texts)
    assert "## Open questions" in "".join(texts)
    asked = "".join(texts).split("## Open questions")[1].split("## What this")[0]
    assert len(re.findall(r"^\* ", asked, re.MULTILINE)) >= 2
    assert any("**Predict first.**" in text for text in texts)
    setup = next(cell for cell in notebook.cells if cell.id == "setup")
    first = next(cell for cell in tools.read(tools.PATHS[0]).cells if cell.id == "setup")
    assert setup.source == first.source
    found = list(tools.exercises(notebook))
    assert 2 <= len(found) <= 5
    for exercise in found:
        assert len(tools.HOLE.findall(exercise.cell.source)) == 1
        assert len(WRONG[exercise.number]) >= 2
        assert exercise.cell.source.splitlines()[-1] == exercise.solution.splitlines()[-1]
        number = exercise.number.replace("-", ".")
        asked = rf"\*\*Exercise {number}\*\* \((easy|medium|hard), \d+ minutes\)\."
        assert re.search(asked, "".join(texts)), number
        below = notebook.cells[notebook.cells.index(exercise.cell) + 1].source
        assert below.startswith("<details><summary>Hint</summary>"), number


def test_links_between_notebooks_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    linked = [part.split(")")[0] for part in text.split("](")[1:] if ".ipynb" in part.split(")")[0]]
    assert all((path.parent / name).is_file() for name in linked)


def with_answers(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without a network, and with answers behind every exercise."""
    trial = nbformat.from_dict(notebook)
    answers = {exercise.number: exercise for exercise in tools.exercises(notebook)}
    trial.cells = [nbformat.v4.new_code_cell(tools.NO_NETWORK)]
    for cell in notebook.cells:
        trial.cells.append(cell)
        if exercise := answers.get(cell.id.removeprefix("exercise-")):
            wrong = [exercise.answered(code) for code, _ in WRONG[exercise.number]]
            again = [*wrong, exercise.solution, cell.source]
            trial.cells += [
                nbformat.v4.new_code_cell(code, id=f"answer-{exercise.number}-{i}")
                for i, code in enumerate(again)
            ]
    return trial


def reply(cell: Any) -> str:
    """What a check said."""
    return cell.outputs[-1].data["text/markdown"]


def test_a_notebook_runs_and_its_checks_answer(path: Path) -> None:
    first = path == tools.PATHS[0]
    run = tools.execute(with_answers(tools.read(path)), path.parent, anew=first)
    assert tools.outputs(run, "stream") == []
    cells = {cell.id: cell for cell in run.cells}
    for exercise in tools.exercises(tools.read(path)):
        number = exercise.number
        wrong = len(WRONG[number])
        for place, (_, words) in enumerate(WRONG[number]):
            said = reply(cells[f"answer-{number}-{place}"])
            assert said.startswith("✗ **Not yet.**"), (number, place)
            assert words in said, (number, place, said)
        assert reply(cells[f"answer-{number}-{wrong}"]).startswith("✓ **Right.**"), number
        for unanswered in (f"exercise-{number}", f"answer-{number}-{wrong + 1}"):
            assert reply(cells[unanswered]).startswith("✗ **Not yet.**")
    page = Page(tools.to_html(run))
    figures = [out for out in tools.outputs(run, "display_data") if is_figure(out)]
    assert page.requests == []
    assert page.figures == len(figures)


def is_figure(output: Any) -> bool:
    return "plotly-graph-div" in output.data.get("text/html", "")


# --- every value shows itself, offline ---


def values(bridge: Any, folder: Path) -> list[Any]:
    """One value of every type that has a table or a view of its own."""
    model, corpus = bridge("Llama"), tiny_corpus()
    before, _ = before_after.runs(before_after.plan())
    everything = pages.everything()
    found = everything["neurons"]
    site = ln.models.neuron_site(model)
    one = ln.NeuronSet.from_names(["L0N3"], n_layers=site.n_layers, d_mlp=site.d_mlp)
    vocabulary = ln.cards.promoted_tokens(model, "L0N3", k=3)
    rows = [("a", 0, 1.0), ("a", 1, 0.0), ("b", 0, 1.0), ("b", 1, 0.5)]
    sampled = [SampledResponse(i, "de", n, "?", f"{s}", True) for i, n, s in rows]
    scored = [ScoredResponse(i, "de", n, "?", f"{s}", True, s, s == 1, True) for i, n, s in rows]
    origin = Provenance(model="hand")
    scores = ScoredResponses(tuple(scored), "en", "hand", origin)
    sample = ln.load_sample("gemma-3-270m")
    plan = Plan((PlannedStep("counts", 60, 2000, 12.0, 1.5, 30.0),), LEAST, ("items: 20 of 60",))
    chosen = {"lape": found, "paper": found}
    judged = {"change": everything["claims"]}
    effects = everything["effects"][0]
    removed = {name: dict.fromkeys(effects.rows, one) for name in effects.classes}
    activations = np.random.default_rng(0).normal(size=(2, 20, 2, 5)).astype(np.float32)
    names = tuple(f"item {n}" for n in range(20))
    items = ln.activations.ItemActivations(("de", "en"), names, activations)
    ones, ends = np.ones((1, 1), np.int64), np.full((2, 1, 3), 0.5)
    texts = [(k, n) for k in ("de", "en") for n in range(20)]
    parallel = build_corpus(
        {"id": f"{n}", "language": k, "prompt": "", "response": f"{n} cats"} for k, n in texts
    )
    codes, distance = list("abcdef"), np.abs(np.subtract.outer(np.arange(6) ** 2, np.arange(6)))
    overlap = pd.DataFrame(distance + distance.T, codes, codes)
    log = {"step": 1, "pairs": "trained", "loss": 0.5, "margin": 0.1, "accuracy": 1.0}
    return [
        *(everything[name] for name in ("parts", "comparison", "claims", "series", "accuracy")),
        *(everything[name] for name in ("steering", "carry_over", "lens")),
        found,
        ln.cards.neuron_facts(found, "L0N1"),
        everything["cards"][0],
        effects,
        before,
        ln.comparison.compare_halves(before),
        one,
        corpus,
        encode(corpus, original_tokenizer(model)).report,
        ln.nll(model, corpus),
        ln.cards.importance(model, corpus, method="plnd", progress=False),
        ln.cards.importance_agreement(
            model,
            corpus.head(1),
            [f"L0N{n}" for n in range(10)],
            methods=["plnd"],
            progress=False,
        ),  # fmt: skip
        ln.cards.top_contexts(model, corpus, one, k=1),
        vocabulary,
        ln.views.tokens(model, "nine cats", "L0N3"),
        ln.views.attention(model, "nine cats", 0),
        SampledResponses(tuple(sampled), Decoding(9, 1.0), origin),
        scores,
        preference_pairs(scores),
        Alignment(folder, DPOSettings(), 3, (log,), origin),
        *(sample, sample.about),
        ln.samples.published_profile("mistral-7b"),
        ln.try_without(model, "nine cats", "L0N3", max_new_tokens=2),
        ln.patch_grid(model, "nine cats", "nine dogs"),
        ln.explore(found),
        ln.comparison.routing_divergence(
            replace(before, provenance=replace(before.provenance, hook=ROUTER))
        ),
        items,
        ln.neurons.rank_neurons(items),
        ln.comparison.coupling(items, draws=1),
        ln.comparison.layer_coupling(items, draws=1),
        ln.comparison.coupling_change(items, items),
        ln.comparison.item_sharing(model, parallel, draws=1, progress=False),
        ln.comparison.specificity(before, draws=2),
        ln.comparison.regress_pairs(overlap, pd.DataFrame({"x": range(6)}, codes), draws=1),
        make_edges(),
        make_reading(),
        ln.experiments.MethodComparison(removed, effects),
        ln.experiments.attention_shares(model, corpus.head(2)),
        SignDifferences(("de",), np.array([[3]]), np.array([[1]]), np.array([5]), 8),
        ScriptControl(("de",), ones, ones, np.ones((1, 1)), ends, ends, 20, 0.95),
        stream_corpus(corpus.save(folder / "corpus.jsonl")),
        plan,
        Study(folder, plan, before, chosen, "lape", claims=judged),
    ]


def types_that_show_themselves() -> set[str]:
    """Every class of the package with a table or a view of its own, by name."""
    package = tools.FOLDER.parent / "lensneurons"
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in package.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    shows = ("_overview", "_repr_html_")
    return {
        node.name
        for node in classes
        if any(isinstance(part, ast.FunctionDef) and part.name in shows for part in node.body)
    } - {"Shown", "Value", "Table", "View"}  # their bases


def test_every_value_appears_in_a_converted_notebook(bridge: Any, tmp_path: Path) -> None:
    shown = values(bridge, tmp_path)
    assert {type(value).__name__ for value in shown} == types_that_show_themselves()
    formatter = InteractiveShell.instance().display_formatter
    cells, told = [], {}
    for value in shown:
        data, metadata = formatter.format(value)
        told[type(value).__name__] = data["text/html"]
        output = nbformat.v4.new_output("execute_result", data, metadata=metadata)
        output["execution_count"] = None
        cells.append(nbformat.v4.new_code_cell(type(value).__name__, outputs=[output]))
    html = tools.to_html(nbformat.v4.new_notebook(cells=cells))
    page = Page(html)
    assert page.requests == []
    for name, view in told.items():
        assert len(view) > 60, name
        assert str(BeautifulSoup(view, "html.parser")) in html, name  # as nbconvert writes it


def test_the_page_reader_sees_what_a_page_would_load() -> None:
    loads = """<script src="https://a.example/x.js"></script><link href="//b.example/y.css">
    <style>@import url("https://c.example/z.css");</style><div style="background:url(http://d.e/i)">
    <script>import "https://f.example/m.js"</script><img src="data:image/png;base64,AA=="></div>
    <a href="https://linked.example">not loaded</a>"""
    hosts = [address.split("/")[2] for address in Page(loads).requests]
    assert hosts == ["a.example", "b.example", "c.example", "d.e", "f.example"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("from urllib.request import *\n\nurlopen('http://127.0.0.1:9')", "SocketBlockedError"),
    ],
)
def test_an_exception_and_a_request_in_a_cell_are_errors(
    code: str, error: str, tmp_path: Path
) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (tools.NO_NETWORK, code)]
    with pytest.raises(CellExecutionError, match=error):
        tools.execute(nbformat.v4.new_notebook(cells=cells), tmp_path)
