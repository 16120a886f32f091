"""The pages about errors tell the truth: each message that one quotes is raised here.

The shortest code that raises it runs in an empty working folder. In a quoted message ``…`` stands
for anything; all else is exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from edited import draw_set, draw_statistics

from lensneurons import errors
from lensneurons.activations.collection import collect
from lensneurons.activations.statistics import ActivationStatistics
from lensneurons.comparison.before_after import compare
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.corpora.corpus import build_corpus, load_corpus
from lensneurons.evaluation.likelihood import CorpusNLL
from lensneurons.interventions.editing import ablate
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.models.sites import neuron_site, verify_neuron_hooks
from lensneurons.neurons.identification import identify
from lensneurons.neurons.language_neurons import LanguageNeurons
from lensneurons.neurons.parts import divide_layers
from lensneurons.neurons.published import read_published_counts
from lensneurons.neurons.sets import NeuronSet
from lensneurons.tokens.encoding import encode
from lensneurons.uncertainty.groups import bootstrap
from lensneurons.values import files as storage
from lensneurons.values.provenance import Provenance
from lensneurons.values.run_folders import open_folder

PAGES = Path(errors.__file__).parent
KINDS = [name for name, kind in vars(errors).items() if name.endswith("Error")]
Case = Callable[[Any], object]
CASES: dict[tuple[str, str], Case] = {}


def case(kind: str, heading: str) -> Callable[[Case], Case]:
    """Register code that runs into the situation under a heading of a page."""

    def register(code: Case) -> Case:
        CASES[kind, heading] = code
        return code

    return register


def write(path: str, text: str | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())


ROW = '{"id": 1, "language": "en", "prompt": "2+2=", "response": "4"}\n'
PLAIN = {"weights": "a1b2", "dtype": "float32", "corpora": ("4f0c9a7d21ee",)}


def statistics(groups: int = 1, languages: tuple[str, ...] = ("en", "zh"), **entries: Any) -> Any:
    counts = np.ones((groups, 3, tiny.D_MLP, len(languages)), np.int64)
    tokens = np.full((groups, len(languages)), 9)
    provenance = Provenance(**(PLAIN | entries))
    return ActivationStatistics(languages, counts, tokens, provenance=provenance)


# LensNeuronsError


@case("LensNeuronsError", "A language, method or option that does not exist")
def _(given: Any) -> None:
    unwrap(identify)(statistics(), score="lap")  # without the test's own type checks


@case("LensNeuronsError", "A name that is not the name of a neuron")
def _(given: Any) -> None:
    NeuronSet.from_names(["12:345"], n_layers=32, d_mlp=14336)


@case("LensNeuronsError", "A neuron outside the model")
def _(given: Any) -> None:
    tiny.drawn_neurons().class_of("L12N345")


@case("LensNeuronsError", "Neurons of another model")
def _(given: Any) -> None:
    NeuronSet(np.arange(9), 3, 52, "zh") & NeuronSet(np.arange(9), 4, 52, "ja")


@case("LensNeuronsError", "Too few neurons for a matched control")
def _(given: Any) -> None:
    most = NeuronSet(np.arange(40), 3, 52, "zh")
    most.random_control(np.zeros((3, 52)))


@case("LensNeuronsError", "Intervals without groups")
def _(given: Any) -> None:
    bootstrap(statistics(groups=1), lambda one: one.probability.mean())


@case("LensNeuronsError", "Too few layers for four parts")
def _(given: Any) -> None:
    divide_layers(tiny.drawn_neurons())


@case("LensNeuronsError", "A run folder while hooks are on the model")
def _(given: Any) -> None:
    model = given.bridge("Llama")
    with ablate(model, draw_set()):
        collect(model, tiny.tiny_corpus(), run_dir="runs/ablated", progress=False)


# ModelError


@case("ModelError", "A folder that holds no model")
def _(given: Any) -> None:
    Path("my-model").mkdir()
    load_model("my-model")


@case("ModelError", "A path that does not exist")
def _(given: Any) -> None:
    load_model("./my-modle")


@case("ModelError", "A model that cannot be loaded")
def _(given: Any) -> None:
    load_model("my-org/my-model", local_files_only=True)


@case("ModelError", "A Hugging Face model instead of a TransformerLens model")
def _(given: Any) -> None:
    neuron_site(tiny.random_model("Llama"))


@case("ModelError", "An architecture without dense MLP neurons")
def _(given: Any) -> None:
    load_model(given.folder("Mixtral"), device="cpu")


@case("ModelError", "Hooks that do not hold what they name")
def _(given: Any) -> None:
    model = given.bridge("Llama")
    with model.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda tensor, hook: tensor + 1)]):
        verify_neuron_hooks(model)


@case("ModelError", "A model without its tokenizer")
def _(given: Any) -> None:
    original_tokenizer(SimpleNamespace(tokenizer=None))


@case("ModelError", "A folder that is no adapter")
def _(given: Any) -> None:
    Path("my-adapter").mkdir()
    load_model(given.folder("Llama"), adapter="my-adapter")


# CorpusError


@case("CorpusError", "Rows that are wrong")
def _(given: Any) -> None:
    rows = [ROW, ROW, ROW.replace('"en"', '"cn"').replace("1", "2"), ROW.replace("response", "out")]
    write("answers.jsonl", "".join(rows))
    load_corpus("answers.jsonl")


@case("CorpusError", "A line that is not JSON")
def _(given: Any) -> None:
    write("answers.jsonl", ROW + "{'id': 2}\n")
    load_corpus("answers.jsonl")


@case("CorpusError", "A file or folder that is not there, or not understood")
def _(given: Any) -> None:
    load_corpus("answer.jsonl")


@case("CorpusError", "A language that the corpus does not have")
def _(given: Any) -> None:
    rows = [{"id": 1, "language": k, "response": "9"} for k in ("en", "zh")]
    build_corpus(rows, name="answers").select(["en", "de"])


@case("CorpusError", "Texts without a counted token")
def _(given: Any) -> None:
    rows = [{"id": n, "language": k, "prompt": "2+2="} for n in (1, 2) for k in ("en", "zh")]
    encode(build_corpus(rows), tiny.byte_tokenizer(bos=True))


@case("CorpusError", "Texts that are too long")
def _(given: Any) -> None:
    encode(tiny.tiny_corpus(), tiny.byte_tokenizer(bos=True), max_length=100)


@case("CorpusError", "A tokenizer of another model")
def _(given: Any) -> None:
    tokenizer = tiny.byte_tokenizer(bos=True)
    larger = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>")
    larger.add_tokens([f"小明{n}" for n in range(30)])
    rows = [{"id": 1, "language": "zh", "response": "小明29"}]
    collect(given.bridge("Llama"), build_corpus(rows), tokenizer=larger, progress=False)


# CorpusWarning


@case("CorpusWarning", "Languages with unequal items")
def _(given: Any) -> None:
    texts = (("en", 1), ("en", 2), ("zh", 1))
    build_corpus([{"id": n, "language": k, "response": "9"} for k, n in texts], name="answers")


@case("CorpusWarning", "Texts in another script")
def _(given: Any) -> None:
    build_corpus([{"id": 1, "language": "zh", "response": "She has nine apples."}], name="answers")


# ProvenanceError


@case("ProvenanceError", "Merging counts of two models, or in two number formats")
def _(given: Any) -> None:
    statistics().merge(statistics(dtype="bfloat16", corpora=("77b0",)))


@case("ProvenanceError", "Merging the same corpus twice")
def _(given: Any) -> None:
    statistics().merge(statistics())


@case("ProvenanceError", "A run folder that was begun with other options")
def _(given: Any) -> None:
    for groups in (10, 20):
        with open_folder("runs/base", Provenance(), {"groups": groups}):
            pass


@case("ProvenanceError", "A run folder that was begun with another model or corpus")
def _(given: Any) -> None:
    for weights in ("a1b2", "c3d4"):
        with open_folder("runs/base", Provenance(weights=weights), {}):
            pass


@case("ProvenanceError", "Comparing runs over different languages")
def _(given: Any) -> None:
    compare(statistics(), statistics(languages=("en", "th"), weights="c3d4"))


@case("ProvenanceError", "Comparing losses of different texts")
def _(given: Any) -> None:
    one, other = (
        CorpusNLL(("en",), np.ones(2), np.full(2, 9), np.zeros(2, np.int64), ids)
        for ids in (("1", "2"), ("1", "3"))
    )
    one.difference(other)


# StorageError


@case("StorageError", "No such file")
def _(given: Any) -> None:
    LanguageNeurons.load("runs/neurons.safetensors")


@case("StorageError", "A damaged file")
def _(given: Any) -> None:
    write("neurons.safetensors", b"\0" * 20)
    LanguageNeurons.load("neurons.safetensors")


@case("StorageError", "A file of another kind")
def _(given: Any) -> None:
    statistics().save("statistics.safetensors")
    LanguageNeurons.load("statistics.safetensors")


@case("StorageError", "A safetensors file of another program")
def _(given: Any) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(2)}, "model.safetensors")
    ActivationStatistics.load("model.safetensors")


@case("StorageError", "A file of a later version")
def _(given: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "FORMAT_VERSION", storage.FORMAT_VERSION + 1)
        statistics().save("statistics.safetensors")
    ActivationStatistics.load("statistics.safetensors")


@case("StorageError", "A run folder that holds something else")
def _(given: Any) -> None:
    write("runs/notes.txt", "")
    with open_folder("runs", Provenance(), {}):
        pass


@case("StorageError", "A run folder that is in use")
def _(given: Any) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(open_folder("runs/base", Provenance(), {}))


# PublishedCountsError


def publish(name: str, count: int = 5, tokens: int = 9, dtype: Any = torch.int32) -> None:
    Path("mgsm").mkdir(exist_ok=True)
    content = {"over_zero": torch.full((2, 4), count, dtype=dtype), "total_tokens": tokens}
    torch.save(content, f"mgsm/{name}.pt")


@case("PublishedCountsError", "A folder without counts")
def _(given: Any) -> None:
    Path("mgsm").mkdir()
    read_published_counts("mgsm")


@case("PublishedCountsError", "Counts of several models in one folder")
def _(given: Any) -> None:
    publish("activation.en.Mistral-7B")
    publish("activation.zh.Llama-3-8B")
    read_published_counts("mgsm")


@case("PublishedCountsError", "A counter that overflowed")
def _(given: Any) -> None:
    publish("activation.en.Mistral-7B", count=-1294967296, tokens=3_000_000_000)
    read_published_counts("mgsm")


@case("PublishedCountsError", "More active tokens than tokens")
def _(given: Any) -> None:
    publish("activation.en.Mistral-7B", count=12)
    read_published_counts("mgsm")


@case("PublishedCountsError", "Prompts of another run")
def _(given: Any) -> None:
    publish("activation.en.Mistral-7B", count=5, tokens=900)
    publish("prefix.activation.en.Mistral-7B", count=400, tokens=500)
    read_published_counts("mgsm")


@case("PublishedCountsError", "Prompts for some languages only")
def _(given: Any) -> None:
    publish("activation.en.Mistral-7B")
    publish("activation.zh.Mistral-7B")
    publish("prefix.activation.en.Mistral-7B", count=1, tokens=3)
    read_published_counts("mgsm")


# IdentificationError


@case("IdentificationError", "One language")
def _(given: Any) -> None:
    identify(statistics(languages=("en",)))


@case("IdentificationError", "A rate that is not a share")
def _(given: Any) -> None:
    identify(statistics(), top_rate=1.0)


@case("IdentificationError", "A bar that is not a probability")
def _(given: Any) -> None:
    identify(statistics(), tau=95.0)


@case("IdentificationError", "LAPE with a lambda")
def _(given: Any) -> None:
    identify(statistics(), score="lape", lambda_=0.1)


@case("IdentificationError", "No lambda without language-agnostic neurons")
def _(given: Any) -> None:
    identify(draw_statistics(), tau=0.0, top_rate=0.1)


def page_of(kind: str) -> str:
    return (PAGES / f"{kind}.md").read_text(encoding="utf-8")


def situations(kind: str) -> dict[str, str]:
    """The headings of a page, and the message that is quoted under each."""
    parts = re.split(r"^## ", page_of(kind), flags=re.MULTILINE)[1:]
    quoted = re.compile(r"\n```text\n(.*?)\n```\n", re.DOTALL)
    found = {part.splitlines()[0]: quoted.search(part) for part in parts}
    return {heading: match[1] for heading, match in found.items() if match is not None}


QUOTED = [
    (kind, heading, message)
    for kind in (*KINDS, "CorpusWarning")
    for heading, message in situations(kind).items()
]


def test_every_error_has_its_page_and_every_quoted_message_its_code() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted([*KINDS, "CorpusWarning"])
    assert {(kind, heading) for kind, heading, _ in QUOTED} == set(CASES)
    assert all(3 <= len(situations(kind)) <= 8 for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "heading", "message"), QUOTED, ids=[f"{kind}: {title}" for kind, title, _ in QUOTED]
)
def test_the_quoted_message_is_raised(
    kind: str,
    heading: str,
    message: str,
    model_folder: Any,
    bridge: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = SimpleNamespace(folder=model_folder, bridge=bridge)
    assert re.fullmatch(pattern_of(message), told(kind, CASES[kind, heading], given), re.DOTALL)


def told(kind: str, code: Case, given: Any) -> str:
    """What an error or a warning of this very class says; an error knows its page."""
    if kind == "CorpusWarning":
        with pytest.warns(CorpusWarning) as caught:
            code(given)
        return str(caught[0].message)
    with pytest.raises(getattr(errors, kind)) as caught_error:
        code(given)
    assert type(caught_error.value) is getattr(errors, kind)
    assert caught_error.value.page == PAGES / f"{kind}.md"
    return str(caught_error.value)


def pattern_of(message: str) -> str:
    return ".+".join(re.escape(part) for part in message.split("…"))


@pytest.mark.parametrize("kind", [*KINDS, "CorpusWarning"])
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
