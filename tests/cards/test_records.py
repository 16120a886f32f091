"""Records for tools of automated interpretation, and links to public pages."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pages
import pytest
import tiny
from oracle import encode_by_hand, pre_of
from torch.nn import functional
from transformers import AutoTokenizer

from lensneurons.cards.public_pages import PAGES, public_page
from lensneurons.cards.records import write_records
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError, StorageError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.sets import NeuronSet
from lensneurons.reports import report
from lensneurons.values.provenance import Provenance

CORPUS = tiny.tiny_corpus()
NAMES = ("L0N3", "L2N51")


# The fields of the published classes, in whose constructors a tool puts what it reads.


@dataclass
class ActivationRecord:
    tokens: list[str]
    activations: list[float]


@dataclass
class NeuronId:
    layer_index: int
    neuron_index: int


@dataclass
class NeuronRecord:
    neuron_id: NeuronId
    random_sample: list = field(default_factory=list)
    random_sample_by_quantile: list | None = None
    quantile_boundaries: list | None = None
    mean: float | None = None
    variance: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    most_positive_activation_records: list = field(default_factory=list)


CLASSES = {one.__name__: one for one in (ActivationRecord, NeuronId, NeuronRecord)}


def read(path):
    """As the published reader does: an object becomes the class that it names, and no other."""

    def build(found):
        return CLASSES[found.pop("dataclass_name")](**found)

    return json.loads(path.read_text("utf-8"), object_hook=build)


@pytest.fixture(scope="module")
def written(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "out"
    assert write_records(llama, CORPUS, NAMES, folder, top=5, random=4, batch_tokens=200) == folder
    return folder


def test_records_are_the_activations_of_a_plain_forward(written, model_folder):
    plain = tiny.load_plain(model_folder("Llama"))
    tokenizer = AutoTokenizer.from_pretrained(model_folder("Llama"))
    texts = []
    for item in CORPUS:
        ids, where = encode_by_hand(tokenizer, item, "response")
        values = functional.silu(pre_of(plain, "Llama", ids))[:, where].double().numpy()
        texts.append((values, tokenizer.convert_ids_to_tokens([ids[place] for place in where])))
    for name in NAMES:
        layer, neuron = (int(part) for part in name[1:].split("N"))
        found = read(written / str(layer) / f"{neuron}.json")
        assert found.neuron_id == NeuronId(layer, neuron)
        own = [values[layer, :, neuron] for values, _ in texts]
        every = np.concatenate(own)
        np.testing.assert_allclose([found.mean, found.variance], [every.mean(), every.var()], 1e-4)
        best = sorted((text for text in own if text.max() > 0), key=lambda text: -text.max())[:5]
        for record, wanted in zip(found.most_positive_activation_records, best, strict=True):
            np.testing.assert_allclose(record.activations, wanted, rtol=1e-4, atol=1e-5)
            assert len(record.tokens) == len(wanted)
        assert len(found.random_sample) == 4
        for record in found.random_sample:
            near = [len(one) == len(record.activations) for one in own]
            assert any(
                np.allclose(one, record.activations, atol=1e-5)
                for one, same in zip(own, near, strict=True)
                if same
            )


def test_tokens_are_those_of_the_text(llama, tmp_path):
    rows = [
        {"id": str(n), "language": "en", "prompt": "a\n", "response": text}
        for n, text in enumerate(("the cat sat on a mat", "nine small apples"))
    ]
    write_records(llama, build_corpus(rows, name="two"), "L0N3", tmp_path / "out")
    found = read(tmp_path / "out" / "0" / "3.json")
    assert sorted("".join(one.tokens).strip() for one in found.random_sample) == [
        "nine small apples",
        "the cat sat on a mat",
    ]
    about = json.loads((tmp_path / "out" / "lensneurons.json").read_text("utf-8"))
    assert about["neurons"] == ["L0N3"]
    assert sorted(about["items"]) == ["0", "1"]


def test_the_same_seed_gives_the_same_files(llama, written, tmp_path):
    for seed in (0, 1):
        out = tmp_path / str(seed)
        write_records(llama, CORPUS, NAMES, out, top=5, random=4, batch_tokens=200, seed=seed)
        same = (out / "0" / "3.json").read_bytes() == (written / "0" / "3.json").read_bytes()
        assert same == (seed == 0)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(llama, written, tmp_path):
    with pytest.raises(StorageError, match="is there already"):
        write_records(llama, CORPUS, NAMES, written)
    for options in ({"top": 0}, {"random": 0}):
        with pytest.raises(LensNeuronsError, match="1 text or more"):
            write_records(llama, CORPUS, NAMES, tmp_path / "no", **options)
    empty = NeuronSet(np.zeros(0, np.int64), tiny.LAYERS, tiny.D_MLP)
    with pytest.raises(LensNeuronsError, match="holds no neurons"):
        write_records(llama, CORPUS, empty, tmp_path / "no")
    assert not (tmp_path / "no").exists()


# Public pages


def neurons_of(model, shape, **more):
    from lensneurons.activations.statistics import ActivationStatistics

    random = np.random.default_rng(0)
    counts = random.integers(0, 90, (1, *shape, 2))
    found = ActivationStatistics(
        ("en", "th"), counts, np.array([[100, 100]]), provenance=Provenance(model=model, **more)
    )
    return identify(found, score="lape", tau=0.5)


def test_a_page_is_linked_where_one_is_documented():
    small = neurons_of("gpt2", (12, 3072))
    assert public_page(small, "L6N200") == "https://www.neuronpedia.org/gpt2-small/6/200"
    assert PAGES["gpt2-xl"][1].endswith("neuron-viewer/index.html#/layers/{layer}/neurons/{neuron}")


@pytest.mark.parametrize(
    ("model", "shape", "more"),
    [
        ("gpt2", (2, 40), {}),  # another model in a folder of that name
        ("gpt2 + adapter", (12, 3072), {}),
        ("Qwen/Qwen3-0.6B-Base", (12, 3072), {}),
        ("gpt2", (12, 3072), {"interventions": "hooks"}),
    ],
)
def test_no_other_page_is_linked(model, shape, more):
    assert public_page(neurons_of(model, shape, **more), "L1N20") is None


def test_a_card_and_the_page_hold_the_link_as_text(tmp_path):
    neurons = pages.neurons()
    card = pages.card(neurons, pages.best(neurons, 1)[0], pages.TEXTS)
    assert "public page" not in card._repr_html_()
    address = "https://www.neuronpedia.org/gpt2-small/6/200"
    linked = replace(card, page=address)
    told = f'<a href="{address}" rel="noreferrer">public page of this neuron</a>'
    assert told in linked._repr_html_()
    assert type(card).load(linked.save(tmp_path / "card.jsonl")).page == address
    page = report(tmp_path / "page.html", neurons, cards=linked).read_text("utf-8")
    assert told in page
    with pytest.raises(LensNeuronsError, match="begins with https"):
        replace(card, page="javascript:alert(1)")
