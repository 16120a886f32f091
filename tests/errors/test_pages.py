"""The pages about errors tell the truth: each message that one quotes is raised here.

The shortest code that raises it runs in an empty working folder. In a quoted message ``…`` stands
for anything; all else is exact.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from inspect import unwrap
from os.path import dirname
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import few_neurons
import numpy as np
import pages
import pytest
import tiny
import torch
from corpus_data import llama_like
from edited import draw_set, draw_statistics
from safetensors.numpy import load_file, save_file

from lensneurons import errors
from lensneurons.activations.collection import LanguageTotals, RunFolder, collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.alignment.checkpoints import MARK, last_whole
from lensneurons.comparison.before_after import compare
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import ParallelCorpus, build_corpus, load_corpus
from lensneurons.corpora.streams import stream_corpus
from lensneurons.evaluation.generation import encode_prompts
from lensneurons.evaluation.likelihood import CorpusNLL
from lensneurons.experiments.ablation import ablation_sets, warn_of_empty_rows
from lensneurons.experiments.controls import warn_of_mismatch
from lensneurons.interventions.editing import ablate
from lensneurons.models.adapters import DEMO_ADAPTERS
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.models.running import reserved
from lensneurons.models.sites import neuron_site, verify_neuron_hooks
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import divide_layers
from lensneurons.neurons.published import read_published_counts
from lensneurons.neurons.sets import NeuronSet
from lensneurons.studies import model_claims
from lensneurons.tokens.encoding import encode
from lensneurons.tokens.pieces import Pieces
from lensneurons.uncertainty.groups import bootstrap
from lensneurons.values import files as storage
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

PAGES = Path(errors.__file__).parent
KINDS = [
    *(name for name in vars(errors) if name.endswith("Error")),
    "ControlWarning",
    "CorpusWarning",
    "EmptySetWarning",
    "MemoryWarning",
    "StorageWarning",
]
WARNINGS = {
    "ControlWarning": errors.ControlWarning,
    "CorpusWarning": CorpusWarning,
    "EmptySetWarning": errors.EmptySetWarning,
    "MemoryWarning": errors.MemoryWarning,
    "StorageWarning": errors.StorageWarning,
}
Case = Callable[[Any], object]
ROW = '{"id": 1, "language": "en", "prompt": "2+2=", "response": "4"}\n'
PLAIN = {"weights": "a1b2", "dtype": "float32", "corpora": ("4f0c9a7d21ee",)}


def write(path: str, text: str | bytes = "") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def statistics(
    groups: int = 1, languages: tuple[str, ...] = ("en", "zh"), active: int = 1, **entries: Any
) -> Any:
    counts = np.full((groups, 3, tiny.D_MLP, len(languages)), active, np.int64)
    tokens = np.full((groups, len(languages)), 9)
    provenance = Provenance(**(PLAIN | entries))
    return ActivationStatistics(languages, counts, tokens, provenance=provenance)


def some_set(model_layers: int = 3, size: int = 9, name: str = "zh") -> NeuronSet:
    return NeuronSet(np.arange(size), model_layers, tiny.D_MLP, name)


def run_folder_while_hooks_are_on_the_model(given: Any) -> None:
    model = given.bridge("Llama")
    with ablate(model, draw_set()):
        collect(model, tiny.tiny_corpus(), run_dir="runs/ablated", progress=False)


def empty(folder: str) -> str:
    Path(folder).mkdir()
    return folder


def texts_that_do_not_fit(most: int) -> Case:
    """Eight texts of 29 tokens, where memory is enough for so many."""

    def measure(part: slice) -> None:
        if part.stop - part.start > most:
            raise MemoryError

    return lambda given: list(Pieces().run(np.full(8, 29), measure))


def a_file_that_grows(given: Any) -> None:
    stream = stream_corpus(Path(write("texts/a.jsonl", ROW)).parent)
    write("texts/a.jsonl", 2 * ROW)
    list(stream)


def a_file_that_grew_since(given: Any) -> None:
    for rows in (ROW, ROW + ROW.replace("1", "2", 1)):
        stream = stream_corpus(Path(write("texts/a.jsonl", rows)).parent)
        collect(given.bridge("Llama"), stream, run_dir="runs/base", progress=False)


def hooks_that_do_not_hold_what_they_name(given: Any) -> None:
    model = given.bridge("Llama")
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda tensor, hook: tensor + 1)]):
        verify_neuron_hooks(model)


def copied(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, name))


def weights_that_are_missing(given: Any) -> None:
    file = copied(given.folder("Llama"), "my-model") / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if name != "lm_head.weight"}
    save_file(weights, file, metadata={"format": "pt"})
    load_model("my-model")


def numbers_that_are_not_finite(given: Any) -> None:
    model = load_model(given.folder("Llama"), dtype="float16", device="cpu")
    with torch.no_grad():
        model.original_model.model.layers[1].mlp.gate_proj.weight *= 1e5
    collect(model, tiny.tiny_corpus(), progress=False)


def a_model_that_another_thread_uses(given: Any) -> None:
    model = given.bridge("Llama")
    with ThreadPoolExecutor() as threads, reserved(model):
        threads.submit(collect, model, tiny.tiny_corpus(), progress=False).result()


def an_adapter_of_another(given: Any) -> None:
    copied(given.folder("GPT2"), "my-model")
    load_model("my-model", adapter=demo_folder("my-adapter"))


def demo_folder(name: str) -> Path:
    """An adapter of the demo model, under another name."""
    return copied(DEMO_ADAPTERS / "zh-de", name)


def corpus_of(*cells: tuple[str, int], response: str = "9") -> ParallelCorpus:
    rows = [{"id": n, "language": k, "response": response} for k, n in cells]
    return build_corpus(rows, name="answers")


def rows_that_are_wrong(given: Any) -> None:
    rows = [ROW, ROW, ROW.replace('"en"', '"cn"').replace("1", "2"), ROW.replace("response", "out")]
    load_corpus(write("answers.jsonl", "".join(rows)))


def texts_without_a_counted_token(given: Any) -> None:
    rows = [{"id": n, "language": k, "prompt": "2+2="} for n in (1, 2) for k in ("en", "zh")]
    encode(build_corpus(rows), tiny.byte_tokenizer(bos=True))


def tokenizer_of_another_model(given: Any) -> None:
    tokenizer = tiny.byte_tokenizer(bos=True)
    larger = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")
    larger.add_tokens([f"小明{n}" for n in range(30)])
    corpus = corpus_of(("zh", 1), response="小明29")
    collect(given.bridge("Llama"), corpus, tokenizer=larger, progress=False)


def work_in(folder: str, weights: str = "a1b2", **plan: int) -> None:
    with open_folder(folder, Provenance(weights=weights), plan):
        pass


def run_folder_in_use(given: Any) -> None:
    with open_folder("runs/base", Provenance(), {}), open_folder("runs/base", Provenance(), {}):
        pass


def where_the_disk_says(number: int, call: str, code: Callable[[], object]) -> Case:
    """Code that is run where a call of the system fails; tests may run as root, who may all."""

    def run(given: Any) -> None:
        def fails(*arguments: Any, **options: Any) -> None:
            raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage.os, call, fails)
            code()

    return run


def folder_that_was_removed(given: Any) -> None:
    with open_folder("runs/base", Provenance(), {}):
        Path("runs/base").rename("runs/other")


def damaged_checkpoint(given: Any) -> None:
    with open_folder("runs/base", Provenance(), {}) as run:
        assert run is not None
        write(f"runs/base/checkpoint-6/{MARK}", "{")
        last_whole(run.path, run)


def control_without_equals(given: Any) -> None:
    rates = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]).transpose(0, 2, 1)
    warn_of_mismatch({("specific", "en"): rates}, ("en", "zh"), ("own",))


def few(**options: Any) -> Case:
    asked = {"tau": few_neurons.TAU} | options
    return lambda given: identify(few_neurons.statistics(), **asked)


def intervention_on_no_neurons(given: Any) -> None:
    model = given.bridge("Llama")
    with ablate(model, some_set(size=0)):
        pass


def rows_that_remove_nothing(given: Any) -> None:
    found = identify(few_neurons.statistics(), score="lape", tau=few_neurons.TAU, top_rate=0.1)
    neurons = replace(found, selected=np.zeros_like(found.selected))
    warn_of_empty_rows(ablation_sets(neurons, ["specific"], ["en", "zh"]))


def file_of_another_run(given: Any) -> None:
    with open_folder(".", Provenance(), {}) as run:
        assert run is not None
        folder = RunFolder(run, 1.0)
        folder.save(LanguageTotals.zeros("en", 1, 2, 3))
        Path("languages/en.safetensors").rename("languages/zh.safetensors")
        folder.load("zh")


def losses_of_different_texts(given: Any) -> None:
    one, other = (
        CorpusNLL(("en",), np.ones(2), np.full(2, 9), np.zeros(2, np.int64), ids)
        for ids in (("1", "2"), ("1", "3"))
    )
    one.difference(other)


def safetensors_file_of_another_program(given: Any) -> None:
    save_file({"weight": np.zeros(2)}, "model.safetensors")
    ActivationStatistics.load("model.safetensors")


def file_of_a_later_version(given: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "FORMAT_VERSION", storage.FORMAT_VERSION + 1)
        statistics().save("statistics.safetensors")
    ActivationStatistics.load("statistics.safetensors")


def published(**counts: tuple[int, int]) -> Case:
    """Files of counts, read: the active tokens of every neuron, and all tokens."""

    def read(given: Any) -> None:
        Path("mgsm").mkdir()
        for name, (count, tokens) in counts.items():
            over_zero = torch.full((2, 4), count, dtype=torch.int32)
            content = {"over_zero": over_zero, "total_tokens": tokens}
            torch.save(content, f"mgsm/{MGSM[name]}.pt")
        read_published_counts("mgsm")

    return read


MGSM = {
    "en": "activation.en.Mistral-7B",
    "zh": "activation.zh.Mistral-7B",
    "other": "activation.zh.Llama-3-8B",
    "prompts": "prefix.activation.en.Mistral-7B",
}

# Error, heading of its page, and the code that runs into the situation.
CASES: dict[str, dict[str, Case]] = {
    "LensNeuronsError": {
        "A text that does not fit into memory": texts_that_do_not_fit(0),
        "A language, method or option that does not exist": lambda given: unwrap(identify)(
            statistics(), score="lap"
        ),  # without the test's own type checks
        "A name that is not the name of a neuron": lambda given: NeuronSet.from_names(
            ["12:345"], n_layers=32, d_mlp=14336
        ),
        "A neuron outside the model": lambda given: tiny.drawn_neurons().class_of("L12N345"),
        "Neurons of another model": lambda given: some_set() & some_set(4, name="ja"),
        "Results that do not belong together": lambda given: model_claims(
            replace(pages.neurons(), tau=0.6), effects=pages.matrix()
        ),
        "Too few neurons for a matched control": lambda given: some_set(size=40).random_control(
            np.zeros((3, tiny.D_MLP))
        ),
        "Intervals without groups": lambda given: bootstrap(
            statistics(groups=1), lambda one: one.probability.mean()
        ),
        "Too few layers for four parts": lambda given: divide_layers(tiny.drawn_neurons()),
        "A run folder while hooks are on the model": run_folder_while_hooks_are_on_the_model,
    },
    "ModelError": {
        "A folder that holds no model": lambda given: load_model(empty("my-model")),
        "A path that does not exist": lambda given: load_model("./my-modle"),
        "A model that cannot be loaded": lambda given: load_model(
            "my-org/my-model", local_files_only=True
        ),
        "A Hugging Face model instead of a TransformerLens model": lambda given: neuron_site(
            tiny.random_model("Llama")
        ),
        "An architecture without dense MLP neurons": lambda given: neuron_site(
            load_model(given.folder("Mixtral"), device="cpu")
        ),
        "Hooks that do not hold what they name": hooks_that_do_not_hold_what_they_name,
        "A model without its tokenizer": lambda given: original_tokenizer(
            SimpleNamespace(tokenizer=None)
        ),
        "Weights that are missing, or have no place": weights_that_are_missing,
        "Numbers that are not finite": numbers_that_are_not_finite,
        "A model that another thread uses": a_model_that_another_thread_uses,
        "An adapter that does not fit, or cannot be added to the weights": an_adapter_of_another,
        "A folder that is no adapter": lambda given: load_model(
            given.folder("Llama"), adapter=empty("my-adapter")
        ),
    },
    "CorpusError": {
        "A file that changed while it was read": a_file_that_grows,
        "Rows that are wrong": rows_that_are_wrong,
        "A line that is not JSON": lambda given: load_corpus(
            write("answers.jsonl", ROW + "{'id': 2}\n")
        ),
        "A file or folder that is not there, or not understood": lambda given: load_corpus(
            "answer.jsonl"
        ),
        "A language that the corpus does not have": lambda given: corpus_of(
            ("en", 1), ("zh", 1)
        ).select(["en", "de"]),
        "Texts without a counted token": texts_without_a_counted_token,
        "Texts that are too long": lambda given: encode(
            tiny.tiny_corpus(), tiny.byte_tokenizer(bos=True), max_length=100
        ),
        "A tokenizer of another model": tokenizer_of_another_model,
    },
    "CorpusWarning": {
        "Languages with unequal items": lambda given: corpus_of(("en", 1), ("en", 2), ("zh", 1)),
        "Files that are left out": lambda given: load_corpus(
            dirname([write("corpus/en.txt", "One.\n"), write("corpus/fr.csv", "Un.\n")][0])
        ),
        "Texts in another script": lambda given: corpus_of(
            ("zh", 1), response="She has nine apples."
        ),
        "Texts that begin with BOS": lambda given: encode_prompts(["<s>Tom has"], llama_like()),
    },
    "ProvenanceError": {
        "A stream whose files are not as they were": a_file_that_grew_since,
        "Merging counts of two models, or in two number formats": lambda given: statistics().merge(
            statistics(dtype="bfloat16", corpora=("77b0",))
        ),
        "Merging the same corpus twice": lambda given: statistics().merge(statistics()),
        "A run folder that was begun with other options": lambda given: (
            [work_in("runs/base", groups=groups) for groups in (10, 20)]
        ),
        "A run folder that was begun with another model or corpus": lambda given: (
            [work_in("runs/base", weights) for weights in ("a1b2", "c3d4")]
        ),
        "Comparing runs over different languages": lambda given: compare(
            statistics(), statistics(languages=("en", "th"), weights="c3d4")
        ),
        "Comparing losses of different texts": losses_of_different_texts,
    },
    "StorageError": {
        "No such file": lambda given: LanguageNeurons.load("runs/neurons.safetensors"),
        "A damaged file": lambda given: LanguageNeurons.load(
            write("neurons.safetensors", b"\0" * 20)
        ),
        "A file of another run": file_of_another_run,
        "A file of another kind": lambda given: LanguageNeurons.load(
            statistics().save("statistics.safetensors")
        ),
        "A safetensors file of another program": safetensors_file_of_another_program,
        "A file of a later version": file_of_a_later_version,
        "A run folder that holds something else": lambda given: work_in(
            dirname(write("runs/notes.txt"))
        ),
        "A run folder that is in use": run_folder_in_use,
        "A full disk": where_the_disk_says(
            errno.ENOSPC, "replace", lambda: statistics().save("neurons.safetensors")
        ),
        "A place where you may not write": where_the_disk_says(
            errno.EACCES, "mkdir", lambda: storage.save_json("/data/neurons.json", {})
        ),
        "A file that you may not read": where_the_disk_says(
            errno.EACCES, "stat", lambda: LanguageNeurons.load("/data/neurons.safetensors")
        ),
        "A run folder that was removed": folder_that_was_removed,
    },
    "StorageWarning": {"A damaged checkpoint": damaged_checkpoint},
    "MemoryWarning": {"A batch that did not fit": texts_that_do_not_fit(4)},
    "ControlWarning": {"No other neurons are as active": control_without_equals},
    "EmptySetWarning": {
        "Selected neurons that exceed tau in no language": few(lambda_=0.0, top_rate=0.02),
        "A selection that is too small": few(score="lape", top_rate=0.04),
        "A bar that hardly any neuron exceeds": few(tau=0.95, lambda_=0.0, top_rate=0.05),
        "An intervention on no neurons": intervention_on_no_neurons,
        "Rows of a matrix that remove nothing": rows_that_remove_nothing,
    },
    "PublishedCountsError": {
        "A folder without counts": published(),
        "Counts of several models in one folder": published(en=(5, 9), other=(5, 9)),
        "A counter that overflowed": published(en=(-1294967296, 3_000_000_000)),
        "More active tokens than tokens": published(en=(12, 9)),
        "Prompts of another run": published(en=(5, 900), prompts=(400, 500)),
        "Prompts for some languages only": published(en=(5, 9), zh=(5, 9), prompts=(1, 3)),
    },
    "IdentificationError": {
        "One language": lambda given: identify(statistics(languages=("en",))),
        "A rate that is not a share": lambda given: identify(statistics(), top_rate=1.0),
        "A bar that is not a probability": lambda given: identify(statistics(), tau=95.0),
        "LAPE with a lambda": lambda given: identify(statistics(), score="lape", lambda_=0.1),
        "Nothing to identify": lambda given: identify(statistics(active=0)),
        "No lambda without language-agnostic neurons": lambda given: identify(
            draw_statistics(), tau=0.0, top_rate=0.1
        ),
    },
}


def page_of(kind: str) -> str:
    return (PAGES / f"{kind}.md").read_text(encoding="utf-8")


def situations(kind: str) -> dict[str, str]:
    """The headings of a page, and the message that is quoted under each."""
    parts = re.split(r"^## ", page_of(kind), flags=re.MULTILINE)[1:]
    quoted = re.compile(r"\n```text\n(.*?)\n```\n", re.DOTALL)
    found = {part.splitlines()[0]: quoted.search(part) for part in parts}
    return {heading: match[1] for heading, match in found.items() if match is not None}


QUOTED = [(kind, heading) for kind in KINDS for heading in situations(kind)]


def test_every_error_has_its_page_and_every_quoted_message_its_code() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(KINDS)
    assert {kind: set(cases) for kind, cases in CASES.items()} == {
        kind: set(situations(kind)) for kind in KINDS
    }
    assert all(3 <= len(situations(kind)) <= 12 for kind in KINDS if kind not in WARNINGS)


@pytest.mark.parametrize(("kind", "heading"), QUOTED, ids=map(": ".join, QUOTED))
def test_the_quoted_message_is_raised(
    kind: str,
    heading: str,
    model_folder: Any,
    bridge: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By this very class, which knows its page."""
    monkeypatch.chdir(tmp_path)
    code, given = CASES[kind][heading], SimpleNamespace(folder=model_folder, bridge=bridge)
    if kind in WARNINGS:
        with pytest.warns(WARNINGS[kind]) as warned:
            code(given)
        told: Any = warned[0].message
    else:
        with pytest.raises(getattr(errors, kind)) as raised:
            code(given)
        told = raised.value
    assert type(told).__name__ == kind
    assert told.page == PAGES / f"{kind}.md"
    quoted = map(re.escape, situations(kind)[heading].split("…"))
    assert re.fullmatch(".+".join(quoted), str(told), re.DOTALL)


@pytest.mark.parametrize("kind", KINDS)
def test_every_situation_says_cause_and_fix(kind: str) -> None:
    for part in re.split(r"^## ", page_of(kind), flags=re.MULTILINE)[1:]:
        assert "\n**Cause.** " in part, part.splitlines()[0]
        assert "\n**Fix.** " in part, part.splitlines()[0]


def test_the_remedy_for_unequal_items_works() -> None:
    texts = (("en", 1), ("en", 2), ("zh", 1), ("zh", 3))
    rows = [{"id": n, "language": k, "response": "九" if k == "zh" else "nine"} for k, n in texts]
    with pytest.warns(CorpusWarning):
        given = {"corpus": build_corpus(rows)}
    exec(page_of("CorpusWarning").split("```python\n")[1].split("```")[0], given)
    assert given["corpus"].ids == ("1",)
    assert given["corpus"].is_parallel
