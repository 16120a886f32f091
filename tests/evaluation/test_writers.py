"""Texts of somebody's own writer: as many as prompts, cut at the stop strings, and named."""

from __future__ import annotations

import re

import pytest

from lensneurons.alignment.responses import SampledResponses, respond
from lensneurons.corpora.corpus import build_corpus
from lensneurons.errors import LensNeuronsError, ProvenanceError
from lensneurons.evaluation.answers import Accuracy, accuracy

ROWS = [
    ("a", "en", "Anna has 3 and buys 4.\n", "She has 3 + 4 = 7 apples. The answer is (7)."),
    ("b", "en", "Ben has 9 and sells 5.\n", "He has 9 - 5 = 4 pears left. The answer is (4)."),
    ("a", "de", "Anna hat 3 und kauft 4.\n", "Sie hat 3 + 4 = 7 Äpfel. Die Antwort ist (7)."),
    ("b", "de", "Ben hat 9 und verkauft 5.\n", "Er hat noch 9 - 5 = 4 Birnen. Also (4)."),
]
CORPUS = build_corpus(
    [dict(zip(("id", "language", "prompt", "response"), row, strict=True)) for row in ROWS]
)
TEXTS = {prompt: response for _, _, prompt, response in ROWS}
QUIET = {"progress": False}


def by_heart(prompts):
    """The right response to every prompt, and what a base model invents behind it."""
    return [f"{TEXTS[prompt]}\n\nNext problem: 99" for prompt in prompts]


def test_its_texts_are_judged_and_named(llama, tmp_path):
    found = accuracy(llama, CORPUS, writer=by_heart, stop=["\n\n"], run_dir=tmp_path, **QUIET)
    assert [answer.text for answer in found] == [row[3] for row in ROWS]
    assert all(answer.right_answer and answer.finished for answer in found)
    assert found.provenance.interventions == "texts by the writer by_heart"
    assert found.decoding.writer == "by_heart"
    assert Accuracy.load(tmp_path).decoding == found.decoding
    without = accuracy(llama, CORPUS, writer=by_heart, **QUIET)
    assert all(answer.text.endswith("99") for answer in without)  # nothing else cuts them

    def another(prompts):
        return by_heart(prompts)

    with pytest.raises(ProvenanceError, match="texts by the writer"):
        accuracy(llama, CORPUS, writer=another, stop=["\n\n"], run_dir=tmp_path, **QUIET)


def test_it_gets_every_prompt_as_often_as_asked(llama):
    asked = []

    class Server:
        """An object that can be called."""

        def __call__(self, prompts):
            asked.extend(prompts)
            return tuple(f"answer {n}" for n in range(len(prompts)))

    found = respond(llama, CORPUS, samples=3, writer=Server(), **QUIET)
    assert asked == [row[2] for row in ROWS for _ in range(3)]
    assert [row.text for row in found] == [f"answer {n}" for n in range(12)]
    assert re.search(r"written by .*Server", repr(found))
    assert isinstance(found, SampledResponses)
    assert found.decoding.writer.endswith("Server")


@pytest.mark.parametrize(
    ("writer", "told"),
    [
        (lambda prompts: "one text", "gave one str for 4 prompts"),
        (lambda prompts: ["a"], "gave 1 texts for 4 prompts: return a list with one text a prompt"),
        (lambda prompts: ["a", "b", None, "d"], "gave None for prompt 2: return texts alone"),
    ],
)
def test_what_is_no_writer_is_refused(writer, told, llama):
    with pytest.raises(LensNeuronsError, match=told):
        accuracy(llama, CORPUS, writer=writer, **QUIET)


@pytest.mark.parametrize("option", [{"seed": 3}, {"temperature": 0.5}, {"max_new_tokens": 9}])
def test_what_is_its_own_matter_is_refused(option, llama):
    with pytest.raises(LensNeuronsError, match="the writer decides that itself"):
        accuracy(llama, CORPUS, writer=by_heart, **option, **QUIET)
    with pytest.raises(LensNeuronsError, match="the writer decides that itself"):
        respond(llama, CORPUS, writer=by_heart, **option, **QUIET)


def test_hooks_do_not_act_on_it(llama):
    with (
        llama.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda x, hook: x * 0)]),
        pytest.raises(LensNeuronsError, match="do not act on what a writer writes"),
    ):
        accuracy(llama, CORPUS, writer=by_heart, **QUIET)
