"""Batches: one language each, every text once, and padding that changes nothing."""

from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
from corpus_data import words
from hypothesis import given, settings
from hypothesis import strategies as st

from lensneurons.corpora.corpus import load_corpus
from lensneurons.tokens.batches import item_groups, make_batch, plan_batches
from lensneurons.tokens.encoding import encode

LENGTHS = {"en": [3, 9, 1, 9, 4], "sw": [2, 2, 30, 5, 7]}
PAIRS = {tag: [("Tom " * n, "has " * (n + 1)) for n in sizes] for tag, sizes in LENGTHS.items()}
VARIED = encode(load_corpus(PAIRS), words())


def test_the_plan_is_one_language_longest_first_and_within_its_budget():
    # Lengths are 2n + 3: 9 21 5 21 11 in English, 7 7 63 13 17 in Swahili.
    plan = [batch.tolist() for batch in plan_batches(VARIED, batch_tokens=42)]
    assert plan == [[1, 3], [4, 0, 2], [7], [9, 8], [5, 6]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300))
def test_every_plan_covers_every_text_once(batch_tokens):
    plan = plan_batches(VARIED, batch_tokens=batch_tokens)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(VARIED)))
    for rows in plan:
        lengths = VARIED.lengths[rows]
        assert len(set(VARIED.language[rows].tolist())) == 1
        assert (np.diff(lengths) <= 0).all()
        assert len(rows) == 1 or len(rows) * lengths[0] <= batch_tokens


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_neither_tokens_nor_counts(side):
    for rows in plan_batches(VARIED, batch_tokens=60):
        batch = make_batch(VARIED, rows, padding_side=side)
        assert batch.tokens.shape == batch.attention_mask.shape == batch.counted.shape
        assert batch.rows.tolist() == rows.tolist()
        assert batch.language == VARIED.languages[VARIED.language[rows[0]]]
        for place, row in enumerate(rows):
            text = VARIED.ids[VARIED.offsets[row] : VARIED.offsets[row + 1]].tolist()
            assert batch.tokens[place][batch.attention_mask[place].bool()].tolist() == text
            run = text[VARIED.start[row] : VARIED.stop[row]]
            assert batch.tokens[place][batch.counted[place]].tolist() == run
        assert batch.n_counted == int(batch.counted.sum())
        assert not (batch.counted & (batch.attention_mask == 0)).any()


def test_padding_stands_on_its_side():
    right, left = (make_batch(VARIED, [0, 2], padding_side=s) for s in ("right", "left"))
    assert right.attention_mask.tolist() == [[1] * 9, [1] * 5 + [0] * 4]
    assert left.attention_mask.tolist() == [[1] * 9, [0] * 4 + [1] * 5]
    assert (right.start.tolist(), right.stop.tolist()) == ([4, 2], [8, 4])
    assert (left.start.tolist(), left.stop.tolist()) == ([4, 6], [8, 8])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: make_batch(e, [0, 9]), r"mix the languages \['en', 'sw'\]; a batch holds one"),
        (lambda e: make_batch(e, []), r"rows \[\] are not texts 0 to 9"),
        (lambda e: make_batch(e, [10]), r"rows \[10\] are not texts 0 to 9"),
        # without the suite's type checks
        (lambda e: unwrap(make_batch)(e, [0], padding_side="top"), "padding_side='top' is not kno"),
        (lambda e: plan_batches(e, batch_tokens=0), "batch_tokens=0 holds nothing"),
        (lambda e: item_groups(e.item_ids, 0), "n_groups=0 leaves no group"),
    ],
)
def test_what_is_no_batch_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(VARIED)


def test_groups_depend_on_the_id_alone():
    # From Python's hashlib at a prompt; pinned because results on disk hold these groups.
    assert item_groups(["1", "2", "3", "小"], 100).tolist() == [10, 0, 61, 49]
    names = [str(number) for number in range(2000)]
    groups = item_groups(names, 20)
    assert item_groups(names[::-1], 20).tolist() == groups.tolist()[::-1]
    sizes = np.bincount(groups, minlength=20)
    assert sizes.min() > 60
    assert sizes.max() < 140
