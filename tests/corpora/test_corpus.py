"""Corpora: what is checked, what is kept, what a fingerprint means."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from corpus_data import ROWS, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real_data

from lensneurons.corpora import Item, ParallelCorpus, build_corpus, load_corpus
from lensneurons.corpora.checks import CorpusWarning
from lensneurons.errors import CorpusError

TEN = {"bn", "de", "en", "es", "fr", "ja", "ru", "sw", "th", "zh"}


def corpus():
    return build_corpus(ROWS, name="small")


def refusal(rows):
    with pytest.raises(CorpusError) as caught:
        build_corpus(rows)
    return str(caught.value)


def test_a_corpus_tells_what_it_holds():
    small = corpus()
    assert small.languages == ("en", "zh", "th")
    assert small.ids == ("1", "2")
    assert len(small) == len(list(small)) == 6
    assert small.is_parallel
    assert small.problems == ()
    assert small.items[0] == Item("1", "en", "Tom has 3 apples.\n", "The answer is 42")
    assert small.items[0].text == "Tom has 3 apples.\nThe answer is 42"
    assert repr(small) == "ParallelCorpus('small': 6 items, 2 ids, 3 languages en zh th)"
    table = small.to_pandas()
    assert list(table.columns) == ["id", "language", "prompt", "response"]
    assert len(table) == 6
    html = build_corpus(ROWS, name="<script>")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<td>zh</td><td>Chinese</td><td>2</td><td>13</td><td>7</td>" in html


def test_items_stand_language_by_language_whatever_the_order_of_the_rows():
    by_item = build_corpus(sorted(ROWS, key=lambda row: row["id"]))
    assert by_item.items == corpus().items
    assert by_item.fingerprint == corpus().fingerprint


def test_select_and_head():
    small = corpus()
    assert small.select(languages=["TH", "en"]).languages == ("th", "en")
    assert small.select(languages="zh").languages == ("zh",)
    assert small.select(ids={"2"}).ids == ("2",)
    assert len(small.head(1)) == 3
    assert small.head(99).items == small.items
    assert small.select(languages=small.languages).fingerprint == small.fingerprint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.select(languages=["sw"]), r"no language 'sw'; it has \['en', 'zh', 'th'\]"),
        (lambda c: c.select(languages=[]), r"languages=\[\] leaves nothing"),
        (lambda c: c.select(ids=["7"]), r"no id '7'; it has 2: '1', '2'"),
        (lambda c: c.select(ids=[]), r"nothing of corpus 'small' is left"),
        (lambda c: c.head(0), r"first 0 items .* give 1 or more"),
        (lambda c: c.save("x.txt"), r"cannot write .* ends in \.jsonl"),
    ],
)
def test_what_cannot_be_selected_is_refused(call, message):
    with pytest.raises(CorpusError, match=message):
        call(corpus())  # type: ignore[operator]


def test_all_errors_are_raised_together_with_their_places():
    rows: list[dict[str, object]] = [
        {"id": "1", "language": "en", "prompt": "q", "response": "a"},
        {"id": "1", "language": "eng", "prompt": "q", "response": "b"},
        {"id": "2", "language": "en", "prompt": " ", "response": ""},
        {"id": "3", "language": "en", "prompt": "q"},
        {"id": "4", "language": "Chinese", "response": "a"},
        {"id": "5", "language": "zh", "response": "a", "answer": "b"},
        {"language": "zh", "response": "a"},
        {"id": 1.5, "language": "zh", "response": "a"},
        {"id": "8", "language": "zh", "response": 18},
        {"id": "9", "language": "zh", "response": "a\0"},
        {"id": "10", "language": "zh", "response": "\ud800"},
        {"id": "11", "language": "zh"},
    ]
    message = refusal(rows)
    assert message.startswith("11 problems in the corpus:\n")
    for told in (
        "record 2: id '1' in 'en' was already given at record 1",
        "record 3: id '2' in 'en' has neither prompt nor response",
        "record 5: 'Chinese' is not a language code; did you mean 'zh'",
        "record 6: column 'answer' is not understood; the columns are 'id'",
        "record 7: column 'id' is missing",
        "record 8: id 1.5 is neither text nor a whole number",
        "record 9: response is int, not text: 18",
        "record 10: response holds a NUL character",
        "record 11: response holds the lone surrogate U+D800",
    ):
        assert told in message
    assert message.endswith("... and 1 more")
    fewer = refusal([rows[0], rows[1], rows[1], rows[3]])
    assert "record 4: id '3' in 'en' has no response" in fewer


def test_an_error_that_repeats_is_said_once():
    message = refusal([{"id": n, "language": "en", "question": "?"} for n in range(50)])
    assert message.startswith("2 problems in the corpus:")
    assert "record 1 (and 49 more): column 'question' is not understood" in message
    assert "columns={'prompt': 'question'}" in message
    assert "no items" in refusal([])


def test_unequal_items_are_kept_and_announced_once():
    texts = {"en": ["One.", "Two.", "Three."], "de": ["Eins."], "sw": ["Moja.", "Mbili."]}
    with pytest.warns(CorpusWarning) as caught:
        uneven = load_corpus(texts, name="uneven")
    assert [str(warning.message) for warning in caught] == [
        "corpus 'uneven': de: lacks 2 of 3 ids, e.g. '2', '3'; sw: lacks 1 of 3 ids, e.g. '3'."
        " See .problems of the corpus."
    ]
    if not hasattr(load_corpus, "__wrapped__"):  # else the shape checker's frame is blamed
        assert caught[0].filename == __file__
    assert {problem.what for problem in uneven.problems} == {"unequal items"}
    assert [problem.where for problem in uneven.problems] == ["de", "sw"]
    assert not uneven.is_parallel
    assert uneven.head(1).is_parallel
    assert uneven.head(1).problems == ()


def test_a_foreign_script_is_noticed_but_foreign_names_are_not():
    with pytest.warns(CorpusWarning, match="th: 1 of 2 texts are in another script, ids '2'"):
        load_corpus({"th": ["ทอม met Sally Two", "Il faut bien le faire."]})
    with pytest.warns(CorpusWarning, match="fr: 1 of 1 texts are in another script"):
        load_corpus({"fr": ["Нужно быть в Paris"]})


def test_limit_and_languages_apply_before_anything_is_announced():
    texts = {"en": ["One.", "Two."], "de": ["Eins."], "sw": ["Moja.", "Mbili."]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_corpus(texts, languages=["sw", "en"]).languages == ("sw", "en")
        assert load_corpus(texts, limit=1).ids == ("1",)
    with pytest.raises(CorpusError, match="limit=0 leaves nothing"):
        load_corpus(texts, limit=0)


def test_the_same_content_has_the_same_fingerprint_from_every_source(tmp_path):
    import datasets

    small = corpus()
    small.to_pandas().to_parquet(tmp_path / "table.parquet")
    rows = datasets.Dataset.from_list(ROWS)
    sources = [
        small.save(tmp_path / "a.jsonl"),
        tmp_path / "table.parquet",
        TEXTS,
        rows,
        rows.to_iterable_dataset(),
        datasets.DatasetDict({"test": rows}),
    ]
    prints = {load_corpus(source, name=str(n)).fingerprint for n, source in enumerate(sources)}
    assert prints == {small.fingerprint}
    # Pinned: results on disk name corpora by this value, so it may not drift between versions.
    assert small.fingerprint == "6ae9923765d90750f203c0647511c3377a4992c650671b3b550b2cfc1e520475"


def test_saving_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.jsonl"
    small = corpus()
    assert small.save(path) == path
    before = path.read_bytes()
    broken = ParallelCorpus("broken", (*small.items, Item("3", "en", "", "\ud800")))
    with pytest.raises(UnicodeEncodeError):
        broken.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(before.splitlines()[0]) == ROWS[0]


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
pairs = st.lists(
    st.tuples(text, text.filter(lambda response: bool(response.strip()))), min_size=1, max_size=4
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["qaa", "qab", "qac"]), pairs, min_size=1))
def test_a_round_trip_keeps_every_character(texts):
    import tempfile

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", CorpusWarning)
        first = load_corpus(texts)
        again = load_corpus(first.save(Path(folder) / "corpus.jsonl"))
    assert (again.items, again.fingerprint) == (first.items, first.fingerprint)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_changed_character_changes_the_fingerprint(data):
    rows = [dict(row) for row in ROWS]
    row = data.draw(st.sampled_from(rows))
    column = data.draw(st.sampled_from(["id", "prompt", "response"]))
    place = data.draw(st.integers(0, len(row[column])))
    row[column] = row[column][:place] + "x" + row[column][place:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        assert build_corpus(rows).fingerprint != corpus().fingerprint


def test_another_order_or_a_character_moved_across_the_seam_changes_the_fingerprint():
    assert build_corpus(ROWS[::-1]).fingerprint != corpus().fingerprint
    whole = [build_corpus([{"id": 1, "language": "en", "prompt": p, "response": r}])
             for p, r in (("ab", "c"), ("a", "bc"))]  # fmt: skip
    assert whole[0].items[0].text == whole[1].items[0].text
    assert whole[0].fingerprint != whole[1].fingerprint


def test_the_demo_is_a_corpus_of_ten_languages():
    demo = load_corpus("demo", limit=7, languages=["sw", "en"])
    assert (demo.languages, len(demo.ids), demo.is_parallel) == (("sw", "en"), 7, True)
    assert load_corpus("demo", limit=3).ids == demo.ids[:3]
    assert set(load_corpus("demo", limit=1).languages) == TEN
    assert not set(load_corpus("demo", split="train", limit=7).ids) & set(demo.ids)
    with pytest.raises(ValueError, match="split='dev' is not known; choose one of"):
        load_corpus("demo", split="dev")


@pytest.mark.parametrize(
    ("name", "ids", "first"),
    [("mgsm", 250, "1"), ("msvamp", 1000, "1"), ("flores_sib200", 1004, "548")],
)
def test_real_corpora_are_parallel_and_without_problems(name, ids, first):
    real = load_corpus(real_data(name))
    assert (real.name, len(real.ids), len(real)) == (name, ids, ids * 10)
    assert (set(real.languages), real.ids[0], real.is_parallel) == (TEN, first, True)
    assert real.problems == ()


def test_the_untranslated_sentences_of_ntrex_are_found():
    with pytest.warns(CorpusWarning) as caught:
        real = load_corpus(real_data("ntrex"))
    assert len(caught) == 1
    assert len(real.ids) == 1997
    assert real.is_parallel
    assert [(p.what, p.where, p.message[-5:]) for p in real.problems] == [
        ("foreign script", "ru", "'681'"),
        ("foreign script", "th", "'681'"),
        ("foreign script", "zh", "'321'"),
    ]
    sentence = {i.language: i.text for i in real.select(ids=["681"])}
    assert sentence["th"] == sentence["ru"] == "Il faut bien le faire."


def test_the_answers_of_mgsm_are_the_same_in_all_languages():
    real = load_corpus(real_data("mgsm"), languages=["en", "zh"], separator=" ")
    answers = {tag: [i.response for i in real.select(languages=[tag])] for tag in real.languages}
    assert answers["en"] == answers["zh"]
    assert answers["en"][:3] == ["18", "3", "70000"]
    assert real.items[1].prompt.endswith("How many bolts in total does it take? ")
