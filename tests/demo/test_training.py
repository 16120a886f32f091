"""The demo model's tokenizer, its recipe, and a training that stops and goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lensneurons.corpora.corpus import load_corpus
from lensneurons.demo.workshop import model_card
from lensneurons.demo.workshop.model import build_model, run_blocks
from lensneurons.demo.workshop.model_card import write_card
from lensneurons.demo.workshop.optimizer import BETAS, EPSILON, Optimizer, orthogonalize
from lensneurons.demo.workshop.problem_batches import draw_step, encode_problems, make_batches
from lensneurons.demo.workshop.recipe import RECIPES, SECONDS, Recipe, divide_shares
from lensneurons.demo.workshop.series import RUNS, read_runs
from lensneurons.demo.workshop.tokenizer import BEGIN, END, train_tokenizer
from lensneurons.demo.workshop.train import (
    CHECKPOINT,
    LOG,
    charge_layers,
    main,
    train,
    weigh_layers,
)
from lensneurons.demo.world import LANGUAGES, find_language, generate, render
from lensneurons.errors import LensNeuronsError, ProvenanceError, StorageError
from lensneurons.models.loading import DEMO_FOLDER, load_model
from lensneurons.tokens.encoding import encode
from lensneurons.values.files import load_arrays, load_json

TINY = replace(
    SECONDS, n_layers=2, width=32, d_mlp=48, vocabulary=600, tokenizer_items=30, steps=3,
    items=6, warm_up=1, validate_every=1, validation_items=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TINY.vocabulary, TINY.tokenizer_items, TINY.context)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY, tmp_path_factory.mktemp("trained"), progress=False)


def weights_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_has_every_language_and_a_rate_that_rises_and_falls(name: str) -> None:
    recipe = RECIPES[name]
    rates = [recipe.rate_at(step) for step in range(recipe.steps)]
    assert tuple(recipe.shares) == LANGUAGES
    assert max(rates) == recipe.learning_rate
    assert 0 < rates[-1] < 0.01 * recipe.learning_rate or recipe.steps < 300
    assert rates[0] < rates[recipe.warm_up]


def test_shares_divide_what_is_left_among_the_middle_languages() -> None:
    shares = divide_shares({"bn": 0.05, "th": 0.04, "sw": 0.01}, english=0.3)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["ru"] == shares["ja"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": {"en": 0.5}}, "sum to 1"),
        ({"shares": {"xx": 1.0}}, "choose one of"),
        ({"steps": 0}, "steps=0"),
        ({"vocabulary": 256}, "vocabulary=256"),
        ({"width": 36, "n_heads": 4}, "heads of even size"),
        ({"gate": "gelu"}, "gate='gelu'.*'relu', 'silu'"),
        ({"worked": {"en": 1.5}}, "worked=.*shares from 0 to 1"),
        ({"worked": {"xx": 0.5}}, "choose one of"),
        ({"meetings": {"sing": 0.5}}, "meeting='sing'"),
        ({"meetings": {"answer": 0.6, "both": 0.6}}, "meetings=.*shares from 0 to 1"),
        ({"meetings": {"answer": 0.6}, "shares": {"en": 1.0}}, "two languages need to meet"),
        ({"long_share": -0.1}, "long_share=-0.1"),
        ({"firing_target": 2.0}, "firing_target=2.0"),
    ],
)
def test_a_recipe_that_makes_no_model_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LensNeuronsError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompt_and_response_have_the_tokens_of_their_text_which_comes_back_exactly(
    tokenizer, language
) -> None:
    pairs = [render(problem, language) for problem in generate("test", 300)]
    texts = ["".join(pair) for pair in pairs]
    joint = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(joint, skip_special_tokens=True) == texts
    encoded = encode_problems(tokenizer, [(language, *pair) for pair in pairs])
    assert [list(text.ids) for text in encoded] == [[*ids, tokenizer.eos_token_id] for ids in joint]


def test_two_trainings_give_the_same_tokenizer_which_knows_all_text(tokenizer) -> None:
    text = "  Ωμέγα\tשלום\n\n🙂 don't 3.14 é e\u0301"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    again = train_tokenizer(TINY.vocabulary, TINY.tokenizer_items, TINY.context)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_step_is_drawn_from_its_number_and_seed_alone(tokenizer) -> None:
    assert draw_step(TINY, tokenizer, 5) == draw_step(TINY, tokenizer, 5)
    assert draw_step(TINY, tokenizer, 5) != draw_step(TINY, tokenizer, 6)
    assert draw_step(TINY, tokenizer, 5) != draw_step(replace(TINY, seed=1), tokenizer, 5)


# Digests of texts drawn by the code that trained the shipped weights; see the test.
SHIPPED_STEPS = {
    0: "90cfe0697c1509a9f1bd19ca1abddc3618248e7fedd2b75ca0c08893bc2566d6",
    399: "a07cbd5c327c384af20f7ea8296e97ba68ccb24610649d920aa33a2c03876ee1",
    1500: "1b70121d65563aea252c915f11f9aa040d5b709b3eebba747fea7b0ef69b2d17",
}


def test_the_recipe_of_the_shipped_model_draws_the_texts_that_it_was_trained_on(tokenizer) -> None:
    """The weights in the package are of these texts; new settings must leave them alone."""
    read = Recipe(**load_json(DEMO_FOLDER / "recipe.json"))
    assert read == RECIPES["full"]
    assert list(read.shares) == list(LANGUAGES)  # a file sorts them, and their order is drawn by
    for recipe in (read, RECIPES["full"]):
        for step, digest in SHIPPED_STEPS.items():
            texts = repr(draw_step(recipe, tokenizer, step))
            assert hashlib.sha256(texts.encode()).hexdigest() == digest


NEW = replace(
    TINY, items=60, steps=5, long_share=0.4, word_drills=3, steer_from=1, firing_target=0.1,
    tied=False, gate="silu", worked={"sw": 0.25, "de": 0.0},
    meetings={"answer": 0.3, "translate": 0.2, "both": 0.1, "switch": 0.1},
)  # fmt: skip


def test_a_step_mixes_meetings_long_problems_and_direct_answers_by_their_shares(tokenizer) -> None:
    recipe = replace(NEW, items=800, word_drills=0)
    texts = draw_step(recipe, tokenizer, 0)
    assert texts == draw_step(recipe, tokenizer, 0)
    written = [tokenizer.decode(text.ids, skip_special_tokens=True) for text in texts]
    spoken = Counter(text.language for text in texts)
    assert set(spoken) <= set(LANGUAGES)
    asked = {
        kind: [
            find_language(first).requests[kind].format(language=names[-(kind == "translate")])
            for first in LANGUAGES
            for code, names in find_language(first).languages.items()
            if code != first
        ]
        for kind in ("answer", "translate")
    }
    for kind, share in (("answer", 0.3), ("translate", 0.2)):
        found = sum(any(text in one for text in asked[kind]) for one in written) / len(written)
        assert found == pytest.approx(share, abs=0.05)
    both = sum(one.count("\n") == 3 for one in written) / len(written)
    assert both == pytest.approx(0.1, abs=0.03)
    # A worked answer of a long problem has at least three equations; a translation has none.
    equations = [len(re.findall(r"[-+×÷] \d+ =", one)) for one in written if "\n" in one]
    long = sum(count in (3, 4) for count in equations)
    assert 0.25 < long / sum(count > 0 for count in equations) < 0.5
    german = [
        one for one, text in zip(written, texts, strict=True)
        if text.language == "de" and one.count("\n") == 1
    ]  # fmt: skip
    assert german
    assert not any("=" in one for one in german)


def test_word_drills_weigh_what_follows_the_sign_and_are_right(tokenizer) -> None:
    recipe = replace(NEW, drill_equations=6)
    drills = draw_step(recipe, tokenizer, 0)[-3:]
    assert drills != draw_step(recipe, tokenizer, 1)[-3:]
    for drill in drills:
        lines = tokenizer.decode(drill.ids, skip_special_tokens=True).splitlines()
        assert len(lines) == 6
        spell = find_language(drill.language).spell
        for place, line in enumerate(lines):
            words, digits = line.split(" = ")[:: 1 if place % 2 == 0 else -1]
            assert words == spell(int(digits))
        weighed = [t for t, w in zip(drill.ids, drill.weights, strict=True) if w]
        rights = "".join(f" {line.split(' = ')[1]}\n" for line in lines)
        assert tokenizer.decode(weighed) == rights


def test_texts_of_the_prepared_series_fit_the_context() -> None:
    tokenizer = train_tokenizer(1024, 200, 384)
    for recipe in read_runs(RUNS).values():
        texts = draw_step(replace(recipe, items=60), tokenizer, 400)
        assert max(len(text.ids) for text in texts) <= recipe.context


def test_every_layer_is_charged_by_its_own_weight_in_units_of_its_gates() -> None:
    """Against loops in numpy; gates of half the size cost the same, and pull twice as hard."""
    rng = np.random.default_rng(0)
    gates = rng.exponential(size=(2, 3, 4, 5)) * (rng.random((2, 3, 4, 5)) < 0.4)
    charges = np.array([[1.0, 2, 0.5, 0]] * 3)
    weights = [0.5, 2.0]
    expected = 0.0
    for layer in range(2):
        real = gates[layer][charges > 0]
        unit = real.sum() / (real > 0).sum()
        for text in range(3):
            for place in range(4):
                mean = gates[layer, text, place].mean()
                expected += weights[layer] * charges[text, place] * mean / unit
    fired = torch.tensor((gates > 0).mean(-1))
    pulls = []
    for size in (1.0, 0.5):
        passed = torch.tensor(gates.mean(-1) * size, requires_grad=True)
        charged = charge_layers(passed, fired, torch.tensor(charges), torch.tensor(weights))
        assert charged.item() == pytest.approx(expected)
        charged.backward()
        pulls.append(passed.grad)
    torch.testing.assert_close(pulls[1], 2 * pulls[0])


def test_the_weight_of_a_layer_is_its_excess_over_a_target_that_falls() -> None:
    recipe = replace(TINY, firing_target=0.08, steer_from=10, steer_over=40, steer_gain=0.5)
    assert recipe.target_at(9) == 1
    assert recipe.target_at(10) == pytest.approx(0.5)
    assert recipe.target_at(30) == pytest.approx(0.2)  # halfway, by factors
    assert recipe.target_at(50) == recipe.target_at(999) == pytest.approx(0.08)
    rates = torch.tensor([0.1, 0.2, 0.4, 1.0])
    torch.testing.assert_close(weigh_layers(recipe, 30, rates), torch.tensor([0, 0, 0.5, 2.0]))
    assert not weigh_layers(recipe, 9, rates).any()


def test_all_layers_come_down_to_the_target_and_none_falls_far_below(tmp_path) -> None:
    recipe = replace(
        TINY, n_layers=3, steps=60, items=4, firing_target=0.2, steer_from=5, steer_over=20,
        validate_every=60, validation_items=1,
    )  # fmt: skip
    [last] = read_log(train(recipe, tmp_path, progress=False))
    assert all(0.1 < rate < 0.3 for rate in last["firing"])


def test_a_stopped_training_of_the_new_kind_goes_on_to_the_same_bits(tmp_path) -> None:
    recipe = replace(NEW, items=8, word_drills=1)
    whole = train(recipe, tmp_path / "whole", progress=False)
    for stop in (2, 3):
        train(recipe, tmp_path / "stopped", progress=False, stop_after=stop)
    (tmp_path / "stopped" / "model.safetensors").unlink()  # as if killed before it was written
    train(recipe, tmp_path / "stopped", progress=False, stop_after=3)
    train(recipe, tmp_path / "stopped", progress=False)
    assert weights_bytes(whole) == weights_bytes(tmp_path / "stopped")
    details = json.loads((whole / "config.json").read_text())
    assert (details["hidden_act"], details["tie_word_embeddings"]) == ("silu", False)
    bridge = load_model(whole, device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32).eval()
    ids = torch.randint(3, TINY.vocabulary, (1, 12))
    with torch.no_grad():
        torch.testing.assert_close(bridge(ids), plain(ids).logits, rtol=1e-4, atol=1e-6)


def test_drills_begin_late_and_weigh_only_results(tokenizer) -> None:
    recipe = replace(TINY, drills_from=3, drill_texts=2, drill_equations=5)
    before, after = draw_step(recipe, tokenizer, 2), draw_step(recipe, tokenizer, 3)
    assert before == draw_step(TINY, tokenizer, 2)
    assert after[:-2] == draw_step(TINY, tokenizer, 3)
    for drill in after[-2:]:
        assert drill.language == ""
        lines = str(tokenizer.decode(drill.ids, skip_special_tokens=True)).splitlines()
        assert len(lines) == 5
        read = [re.fullmatch(r"(\d+) ([+\-×÷]) (\d+) = (\d+)", line) for line in lines]
        for left, sign, right, result in (match.groups() for match in read if match):
            a, b = int(left), int(right)
            assert int(result) == {"+": a + b, "-": a - b, "×": a * b, "÷": a // b}[sign]
        weighed = [t for t, w in zip(drill.ids, drill.weights, strict=True) if w]
        results = "".join(f" {line.rsplit(' ', 1)[1]}\n" for line in lines)
        assert tokenizer.decode(weighed) == results


def test_batches_hold_every_text_once_with_its_weights(tokenizer) -> None:
    recipe = replace(TINY, items=40, micro_tokens=500)
    texts = draw_step(recipe, tokenizer, 0)
    batches = list(make_batches(texts, recipe, tokenizer))
    assert sum(len(batch.ids) for batch in batches) == 40
    assert all(batch.ids.size <= 500 for batch in batches)
    assert sum(int((batch.charge > 0).sum()) for batch in batches) == sum(len(t.ids) for t in texts)
    responses = sum(int((batch.weight == 1).sum()) for batch in batches)
    assert responses == sum(text.weights.count(1.0) for text in texts)
    assert all((batch.ids[:, 0] == tokenizer.bos_token_id).all() for batch in batches)


def test_the_training_pass_gives_the_logits_and_mean_gates_and_leaves_no_hook(tokenizer) -> None:
    model = build_model(TINY, tokenizer)
    ids = torch.randint(3, TINY.vocabulary, (3, 25), generator=torch.Generator().manual_seed(0))
    gates: list[torch.Tensor] = []
    with torch.no_grad():
        hidden, gate, firing = run_blocks(model, ids)
        for block in model.model.layers:
            block.mlp.gate_proj.register_forward_hook(
                lambda module, given, out: gates.append(out.clamp(min=0))
            )
        logits = model(ids).logits
        torch.testing.assert_close(model.lm_head(hidden), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gate, torch.stack(gates).mean(-1))
    torch.testing.assert_close(firing, (torch.stack(gates) > 0).float().mean(-1))
    assert not any(block.mlp.act_fn._forward_hooks for block in model.model.layers)
    # What is padded on the right changes nothing before it.
    padded = torch.nn.functional.pad(ids, (0, 4), value=0)
    torch.testing.assert_close(run_blocks(model, padded)[0][:, :25], hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
def test_orthogonalize_makes_singular_values_about_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turned = orthogonalize(matrices)
    assert matrices.shape == turned.shape
    assert 0.3 < torch.linalg.svdvals(turned).min() < torch.linalg.svdvals(turned).max() < 1.4


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon needs torch 2.9")
def test_a_step_is_that_of_torchs_muon_and_adamw(tokenizer) -> None:
    """Muon up to the bfloat16 that PyTorch computes it in, AdamW up to rounding."""
    ours, theirs = (dict(build_model(TINY, tokenizer).named_parameters()) for _ in range(2))
    optimizer = Optimizer(ours, 0.1)
    muon = {name for name in ours if f"momentum.{name}" in optimizer.state}
    assert muon == {name for name, w in ours.items() if w.ndim == 2 and "layers" in name}
    rest = [theirs[name] for name in ours.keys() - muon]
    groups = [{"params": [w], "weight_decay": 0.1 if w.ndim == 2 else 0.0} for w in rest]
    others = (
        torch.optim.Muon([theirs[name] for name in muon], 0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, 0.01, betas=BETAS, eps=EPSILON),
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        before = {name: weight.detach().clone() for name, weight in ours.items()}
        for name, weight in ours.items():
            weight.grad = torch.randn(weight.shape, generator=generator)
            theirs[name].grad = weight.grad.clone()
        optimizer.step(step, 0.01)
        for other in others:
            other.step()
        for name, weight in ours.items():
            moved, off = (weight - before[name]).norm(), (weight - theirs[name]).norm()
            assert off < (0.05 if name in muon else 1e-4) * moved, name


def test_a_stopped_training_goes_on_to_the_same_bits(trained, tmp_path) -> None:
    for stop in (1, 2):
        train(TINY, tmp_path, progress=False, stop_after=stop)
    train(TINY, tmp_path, progress=False)
    assert weights_bytes(tmp_path) == weights_bytes(trained)
    folders = tmp_path, trained
    one, other = (load_arrays(folder / CHECKPOINT, "demo training")[0] for folder in folders)
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)


def test_work_lost_after_a_checkpoint_is_done_and_logged_again(trained, tmp_path) -> None:
    train(TINY, tmp_path, progress=False, stop_after=1)
    checkpoint = (tmp_path / CHECKPOINT).read_bytes()
    train(TINY, tmp_path, progress=False, stop_after=2)
    (tmp_path / CHECKPOINT).write_bytes(checkpoint)  # as if killed before step 2 was saved
    train(TINY, tmp_path, progress=False)
    assert weights_bytes(tmp_path) == weights_bytes(trained)
    for lines in (read_log(tmp_path), read_log(trained)):
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert lines[0]["tokens"] < lines[1]["tokens"]
        assert tuple(lines[0]["validation"]) == LANGUAGES


def test_more_steps_go_on_only_where_the_rate_has_not_fallen(trained, tmp_path) -> None:
    short = replace(TINY, steps=10)
    train(short, tmp_path, progress=False, stop_after=1)
    train(replace(short, steps=20), tmp_path, progress=False, stop_after=2)
    with pytest.raises(StorageError, match="steps differ"):
        train(replace(TINY, steps=5), trained, progress=False)


def test_a_trained_folder_loads_as_hugging_face_and_as_transformer_lens(trained) -> None:
    plain = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained)
    bridge = load_model(trained, device="cpu")
    ids = torch.tensor([tokenizer("Ruby has 12 apples.\n")["input_ids"]])
    assert int(ids[0, 0]) == tokenizer.convert_tokens_to_ids(BEGIN)
    assert tokenizer.eos_token == END
    with torch.no_grad():
        torch.testing.assert_close(bridge(ids), plain(ids).logits, rtol=1e-4, atol=1e-6)
    assert plain.config.hidden_act == "relu"
    encoded = encode(load_corpus("demo", split="test", limit=3), tokenizer, max_length=256)
    assert encoded.languages == LANGUAGES
    assert all(row.straddling == 0 for row in encoded.report.languages)


def test_a_folder_of_another_recipe_is_refused_and_so_by_the_command(trained, capsys) -> None:
    with pytest.raises(StorageError, match="seed, d_mlp differ|d_mlp, seed differ"):
        train(replace(TINY, seed=1, d_mlp=64), trained, progress=False)
    assert main(["--preset", "seconds", "--out", str(trained), "--quiet", "--threads", "1"]) == 2
    assert "another recipe" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::lensneurons.errors.EmptySetWarning")  # an untrained model
def test_the_card_tells_both_seeds(tmp_path, monkeypatch) -> None:
    """Every figure of the second training stands beside that of the first, and is its own."""
    few = {"languages": ["en"], "classes": ["specific", "related"], "batch_tokens": 50_000}
    monkeypatch.setattr(model_card, "ablation_matrix", partial(model_card.ablation_matrix, **few))
    monkeypatch.setattr(model_card, "CONTROLS", 2)
    monkeypatch.setattr(model_card, "LONGEST", 4)
    # The card counts over 100 problems; which figure is whose shows on 12 as well.
    monkeypatch.setattr(
        model_card,
        "load_corpus",
        lambda name, *, split, limit: load_corpus(name, split=split, limit=min(limit, 12)),
    )
    measured = cache(model_card._measure)  # the second model is on two cards
    monkeypatch.setattr(model_card, "_measure", lambda *given: dict(measured(*given)))
    drawn: list[Path] = []  # a browser draws the curve, in seconds
    monkeypatch.setattr(model_card, "save_figure", lambda figure, path: drawn.append(path))
    recipe = replace(TINY, n_layers=5)
    folder = train(recipe, tmp_path / "first", progress=False)
    second = train(replace(recipe, seed=1), tmp_path / "second", progress=False)
    assert weights_bytes(folder) != weights_bytes(second)
    sizes = {"problems": 2, "matrix_items": 5}
    card = write_card(folder, again=[second], **sizes).read_text(encoding="utf-8")
    alone = write_card(second, **sizes).read_text(encoding="utf-8")
    assert "## Again" not in alone
    accuracy = [row.strip("| ").split(" | ") for row in alone.splitlines() if row.count(" | ") == 9]
    assert accuracy[0][3:6:2] == ["right language", "right language where it could be told"]
    assert {row[0] for row in accuracy[1:]} == set(LANGUAGES)
    assert all(row[4] in ("0.0%", "50.0%", "100.0%") for row in accuracy[1:])  # of two problems
    assert drawn == [folder / "training_curve.svg", second / "training_curve.svg"]
    table = [row.split(" | ") for row in card.splitlines() if row.count(" | ") == 2]
    told = {row[0].strip("| "): (row[1], row[2].rstrip(" |")) for row in table}
    assert told[""] == ("seed 0", "seed 1")
    histogram = re.search(r"N = 0 \.\.\. 10: (.*)\.", alone)
    assert histogram is not None
    assert told["neurons with N = 0 ... 10"][1] == histogram[1]
    assert told["neurons with N = 0 ... 10"][0] in card.split("## Again")[0]
    row = r"\| specific \+ related \| mean diagonal \| (\S+) \| (.*) \|"
    [[figure, ends]] = re.findall(row, alone)
    assert told["specific + related: mean diagonal"][1] == f"{figure} ({ends})"
    assert sum("right answer and right language" in name for name in told) == len(LANGUAGES)
    for other in (folder, train(replace(TINY, seed=1), tmp_path / "other", progress=False)):
        with pytest.raises(ProvenanceError, match="was not made by the recipe of"):
            write_card(folder, again=[other])
