"""Stop strings: a text ends before the first of them, whatever the batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensneurons.alignment.responses import SampledResponses, respond
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.evaluation.answers import Accuracy, accuracy, answer_scorer
from lensneurons.evaluation.generation import Decoding, generate, write_responses
from lensneurons.models.identity import original_tokenizer

PROMPTS = ["the cat", "a dog and a", "the"]
ROWS = [
    {"id": str(n), "language": language, "prompt": prompt, "response": "It is 7"}
    for language in ("en", "sw")
    for n, prompt in enumerate(PROMPTS)
]


@pytest.fixture
def written(bridge):
    """A model and what it writes without a stop string."""
    model = bridge("Llama")
    return model, generate(model, PROMPTS, max_new_tokens=24, progress=False)


@pytest.mark.parametrize("batch_tokens", [1, 16384])
def test_texts_are_cut_before_the_first_stop_string(written, batch_tokens):
    model, whole = written
    stop = [whole[0][4:6], whole[1][8:11], "never written"]
    cut = generate(
        model, PROMPTS, max_new_tokens=24, stop=stop, batch_tokens=batch_tokens, progress=False
    )
    expected = [min((text.split(one)[0] for one in stop), key=len) for text in whole]
    assert cut == expected
    assert len(cut[0]) <= 4 < len(whole[0])


def test_a_text_that_was_cut_is_finished_and_the_model_stops(written):
    model, whole = written
    stop = (whole[0][1:3],)
    tokenizer, passes = original_tokenizer(model), []
    site = "blocks.0.mlp.hook_pre"
    with model.hooks(fwd_hooks=[(site, lambda tensor, hook: passes.append(1))]):
        (one,) = write_responses(
            model, PROMPTS[:1], Decoding(24, stop=stop), tokenizer=tokenizer, progress=False
        )
    assert (one.text, one.finished) == (whole[0].split(stop[0])[0], True)
    assert len(passes) == one.tokens < 24


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_cutting_leaves_no_stop_string(text, stop):
    cut = Decoding(stop=stop).cut(text)
    if cut is None:
        assert not any(one in text for one in stop)
    else:
        assert text.startswith(cut)
        assert not any(one in cut for one in stop)
        assert any(text[len(cut) :].startswith(one) for one in stop)


def test_one_string_is_one_stop_and_an_empty_one_is_refused():
    assert Decoding(stop="\n\n").stop == ("\n\n",)
    for wrong in ("", [""], ["a", ""]):
        with pytest.raises(LensNeuronsError, match="give strings of at least one character"):
            Decoding(stop=wrong)


def test_plans_of_old_folders_stay_as_they_were():
    assert Decoding().plan() == {"max_new_tokens": None, "temperature": 0.0, "seed": 0}
    assert Decoding(stop=["x"]).plan()["stop"] == ("x",)


def test_answers_are_cut_and_saved(written, tmp_path):
    model, _ = written
    corpus, options = build_corpus(ROWS), {"max_new_tokens": 12, "progress": False}
    whole = accuracy(model, corpus, **options)
    stop = [whole.answers[0].text[2:4]]
    cut = accuracy(model, corpus, stop=stop, **options)
    assert [one.text for one in cut] == [one.text.split(stop[0])[0] for one in whole]
    cut.save(tmp_path / "cut.npz")
    assert Accuracy.load(tmp_path / "cut.npz").decoding == cut.decoding == Decoding(12, stop=stop)
    right = answer_scorer(model, corpus, max_new_tokens=12, stop=stop)(range(len(corpus)))
    assert right == [one.both for one in cut]


def test_sampled_responses_are_cut(written, tmp_path):
    model, _ = written
    corpus = build_corpus(ROWS).select(["en"])
    options = {"samples": 2, "max_new_tokens": 12, "progress": False}
    whole = respond(model, corpus, **options)
    stop = [whole.rows[0].text[2:4]]
    cut = respond(model, corpus, stop=stop, run_dir=tmp_path / "run", **options)
    assert [row.text for row in cut.rows] == [row.text.split(stop[0])[0] for row in whole.rows]
    assert [*respond(model, corpus, stop=stop, run_dir=tmp_path / "run", **options)] == [*cut]
    with pytest.raises(ProvenanceError, match="stop: .*, now None"):
        respond(model, corpus, run_dir=tmp_path / "run", **options)
    again = SampledResponses.load(tmp_path / "run" / SampledResponses.RUN_FILE)
    assert again.decoding == cut.decoding
