"""The authors' files: every exact value of METHOD.md section 3, and files that lie."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from real_data import real_data

from lensneurons.errors import LensNeuronsError, PublishedCountsError
from lensneurons.neurons.identification import identify
from lensneurons.neurons.parts import divide_layers
from lensneurons.neurons.published import (
    holds_published_counts,
    read_published_counts,
    read_published_mask,
)

AUTHORS = ("en", "ru", "es", "fr", "de", "zh", "ja", "bn", "th", "sw")
SHUFFLED = ("th", "de", "sw", "ja", "en", "bn", "zh", "ru", "fr", "es")
TOKENS = [319931, 372039, 343440, 330590, 335753, 382388, 429589, 701467, 631430, 408472]
ALL = [397496, 23235, 9802, 5617, 3693, 2680, 2126, 1982, 2002, 2322, 7797]
SELECTED = [1369, 1866, 617, 310, 153, 127, 59, 40, 27, 20, 0]
MASK = [142, 556, 523, 821, 941, 412, 676, 948, 622, 666]
SPECIFIC = [12, 176, 119, 334, 460, 48, 118, 360, 60, 179]
RELATED = [130, 380, 404, 487, 481, 364, 558, 588, 562, 487]
AT_ZERO = [4024, 473, 58, 19, 7, 7, 0, 0, 0, 0, 0]
AT_015 = [679, 1563, 551, 316, 177, 163, 82, 65, 60, 103, 829]
LAPE = [0, 3406, 820, 225, 74, 50, 10, 2, 1, 0, 0]
LAPE_BY_LANGUAGE = [52, 519, 530, 782, 996, 338, 678, 1137, 543, 774]
PROFILE = [
    (1922, 3743, 181), (1370, 1891, 106), (1885, 2277, 103), (1133, 1169, 114),
    (827, 974, 192), (385, 675, 194), (308, 564, 253), (241, 519, 253),
    (229, 495, 270), (228, 595, 307), (236, 556, 334), (246, 616, 431),
    (215, 536, 417), (232, 571, 443), (239, 691, 555), (254, 553, 445),
    (194, 487, 348), (228, 493, 423), (376, 592, 316), (415, 555, 261),
    (370, 382, 151), (340, 218, 92), (341, 222, 66), (346, 185, 48),
    (350, 169, 50), (398, 193, 51), (746, 376, 54), (1213, 611, 66),
    (1690, 941, 108), (2014, 1639, 136), (2180, 2346, 284), (2084, 4390, 745),
]  # fmt: skip
MODELS = {
    "BLOOM-7B": ("en zh fr es vi id", 30, 16384, 4915),
    "LLaMA-2-13B": ("en zh fr es vi id ja", 40, 13824, 5530),
    "LLaMA-2-70B": ("en zh fr es vi id", 80, 28672, 22938),
    "LLaMA-2-7B": ("en zh fr es vi id ja", 32, 11008, 3523),
    "Mistral-7B": ("en zh fr es vi id", 32, 14336, 4588),
    "OPT-6.7B": ("en zh fr es vi id", 32, 16384, 5243),
    "Phi-2-2.7B": ("en zh fr es vi id", 32, 10240, 3277),
}


@cache
def mistral():
    """The response counts of Mistral-7B on MGSM, in the authors' order."""
    return read_published_counts(real_data("mistral_mgsm"), languages=AUTHORS)


@cache
def found(order=AUTHORS, **options):
    return identify(mistral().select(order), **options)


@pytest.fixture(params=[AUTHORS, SHUFFLED], ids=["authors' order", "shuffled"])
def order(request):
    """The languages in two orders: nothing may depend on it."""
    real_data("mistral_mgsm")
    return request.param


def in_order(order, values):
    """Values given in the authors' order, by language."""
    return dict(zip(AUTHORS, values, strict=True))


def sizes(sets):
    return {language: len(members) for language, members in sets.items()}


def test_tokens_and_shape():
    statistics = mistral()
    assert statistics.tokens.tolist() == TOKENS
    assert statistics.counts.shape == (32, 14336, 10)
    assert statistics.provenance.scope == "response"
    assert statistics.provenance.model.startswith("Mistral-")
    shuffled = read_published_counts(real_data("mistral_mgsm"), languages=SHUFFLED[:3])
    wanted = statistics.select(SHUFFLED[:3])
    assert shuffled.counts.tobytes() == wanted.counts.tobytes()
    assert shuffled.tokens.tolist() == wanted.tokens.tolist()


def test_tau_and_n(order):
    result = found(order, lambda_=0.109375)
    assert np.float32(result.tau) == np.float32(0.5644363164901733)
    assert result.histogram("all").tolist() == ALL
    assert result.histogram("selected").tolist() == SELECTED
    assert result.selected.sum() == 4588


def test_the_published_selection_by_language(order):
    result = found(order, lambda_=0.109375)
    assert sizes(result.specific) == in_order(order, SPECIFIC)
    assert sizes(result.related) == in_order(order, RELATED)
    assert {k: len(result[k]) for k in order} == in_order(order, MASK)
    table = result.per_language()
    assert table.index.tolist() == list(order)
    assert table["neurons"].to_dict() == in_order(order, MASK)


def test_the_published_mask_bit_for_bit(order):
    (path,) = real_data("mistral_mgsm").glob("mask.*")
    published = read_published_mask(path, languages=AUTHORS, d_mlp=14336)
    result = found(order, lambda_=0.109375)
    different = [int((result[k].mask() != published[k].mask()).sum()) for k in AUTHORS]
    assert different == [0] * 10
    assert sum(published[k].mask().size for k in AUTHORS) == 4_587_520


@pytest.mark.parametrize(("weight", "row"), [(0.0, AT_ZERO), (0.15, AT_015)])
def test_other_lambdas(weight, row):
    assert found(lambda_=weight).histogram("selected").tolist() == row


def test_the_exact_lambda(order):
    result = found(order)
    assert result.lambda_ == pytest.approx(0.10948189, abs=1e-7)
    assert result.lambda_origin == "exact"
    assert result.histogram("selected")[-1] == 0
    assert result.lambda_ == found(AUTHORS).lambda_
    above = found(order, lambda_=float(np.nextafter(result.lambda_, 1) * (1 + 1e-12)))
    assert above.histogram("selected")[-1] == 1


def test_the_lambda_to_quote_serves_float32_code_too(order):
    """In PyTorch's float32, as the published code computes the score."""
    result, statistics = found(order), mistral().select(order)
    assert result.lambda_floor == 0.109481
    p = torch.tensor(statistics.counts).float() / torch.tensor(statistics.tokens).float()
    shares = (p / p.sum(-1, keepdim=True)).nan_to_num(0.1).clamp(min=1e-12)
    entropy = -(shares * shares.log()).sum(-1) / np.log(10)
    maximum = p.max(-1).values / (sum(1 / i for i in range(1, 11)) / 10)
    agnostic = torch.tensor(result.n_above == 10).ravel()
    score = (entropy - result.lambda_floor * maximum).ravel()
    assert score.dtype == torch.float32
    lowest = score.topk(int(result.selected.sum()), largest=False).indices
    assert int(agnostic[lowest].sum()) == 0


def test_lape(order):
    lape = found(order, score="lape")
    assert lape.histogram("selected").tolist() == LAPE
    assert {k: len(lape[k]) for k in order} == in_order(order, LAPE_BY_LANGUAGE)
    shared = lape.selected & found(AUTHORS, lambda_=0.109375).selected
    assert shared.sum() == 2408


def test_the_layer_profile_and_its_four_parts(order):
    result = found(order, lambda_=0.109375)
    assert [tuple(row) for row in result.layer_profile("all").tolist()] == PROFILE
    parts = divide_layers(result)
    assert parts.found
    assert parts.boundaries == [(0, 4), (5, 19), (20, 30), (31, 31)]
    assert repr(parts) == "LayerParts(found: 0-4 / 5-19 / 20-30 / 31)"


@pytest.mark.parametrize("model", MODELS)
def test_lape_masks_of_seven_models(model):
    """Every mask reads; together its languages hold 1 % of the model."""
    languages, layers, width, number = MODELS[model]
    path = real_data("lape_masks") / f"{model}.neuron.pth"
    masks = read_published_mask(path, languages=languages.split(), d_mlp=width)
    assert list(masks) == languages.split()
    union = np.zeros((layers, width), bool)
    for language, members in masks.items():
        assert (members.n_layers, members.d_mlp, members.label) == (layers, width, language)
        assert len(members) > 0
        union |= members.mask()
    assert union.sum() == number == round(0.01 * layers * width)


# Files made here


def write(folder, language, counts, tokens, *, prefix="", model="toy"):
    path = folder / f"{prefix}activation.{language}.{model}.pt"
    torch.save({"total_tokens": tokens, "over_zero": torch.tensor(counts)}, path)
    return path


def write_pair(folder, language, counts, tokens, prompt=None):
    """Whole text and prompt; 1000 prompt tokens, of which the counts are 0 unless given."""
    write(folder, language, counts, tokens)
    zeros = np.zeros_like(counts).tolist()
    write(folder, language, zeros if prompt is None else prompt, 1000, prefix="prefix.")


def refusal(folder, **options):
    with pytest.raises(PublishedCountsError) as caught:
        read_published_counts(folder, **options)
    return str(caught.value)


def test_whole_text_minus_prompt(tmp_path):
    write_pair(tmp_path, "zh", [[900, 1500], [3000, 0]], 3000, [[100, 500], [1000, 0]])
    write_pair(tmp_path, "en", [[10, 20], [30, 40]], 1100)
    statistics = read_published_counts(tmp_path)
    assert statistics.languages == ("en", "zh")
    assert statistics.tokens.tolist() == [100, 2000]
    assert statistics.counts[..., 1].tolist() == [[800, 1000], [2000, 0]]
    assert statistics.counts.dtype == np.int64
    assert statistics.provenance.model == "toy"
    assert statistics.provenance.scope == "response"
    assert statistics.provenance.hook == "hook_pre"
    assert statistics.sums is None
    assert holds_published_counts(tmp_path)
    assert not holds_published_counts(tmp_path / "nothing")


def test_without_prompt_files_the_whole_text_is_read(tmp_path):
    write(tmp_path, "zh", [[7, 10]], 10)
    write(tmp_path, "en", [[2, 3]], torch.tensor(20))
    statistics = read_published_counts(tmp_path, languages=["zh", "en"])
    assert statistics.provenance.scope == "all"
    assert statistics.probability[0].tolist() == [[0.7, 0.1], [1.0, 0.15]]


def test_the_seam_is_clamped(tmp_path):
    """-5 and 1001 of 1000 are what a seam explains; -5 becomes 0, p stays 1.001 as published."""
    write_pair(tmp_path, "zh", [[95, 1001, 40]], 2000, [[100, 0, 0]])
    statistics = read_published_counts(tmp_path)
    assert statistics.counts[0, :, 0].tolist() == [0, 1001, 40]
    assert statistics.probability[0, 1, 0] == 1.001


@pytest.mark.parametrize(
    ("counts", "tokens", "prompt", "text"),
    [
        ([[90, 5]], 2000, [[96, 0]], "a count lies 6 outside 0..1000, more than the 0.5%"),
        ([[1006, 5]], 2000, None, "a count lies 6 outside 0..1000, more than the 0.5%"),
        ([[4, 5]], 1000, None, "activation.zh.toy.pt has 0 response tokens"),
        (
            [[4, 5]],
            2000,
            [[4]],
            "prefix.activation.zh.toy.pt and activation.zh.toy.pt differ in shape",
        ),
    ],
)
def test_a_prompt_that_does_not_belong_to_the_whole_is_refused(
    tmp_path, counts, tokens, prompt, text
):
    write_pair(tmp_path, "zh", counts, tokens, prompt)
    assert text in refusal(tmp_path)


def content(counts, tokens, dtype=torch.int64):
    return {"over_zero": torch.tensor(counts, dtype=dtype), "total_tokens": tokens}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "is not a dict of over_zero and total_tokens"),
        ({"over_zero": torch.zeros(1, 2)}, "is not a dict of over_zero and total_tokens"),
        (content([[0, 0]], 5, torch.float32), "not integers [layer, neuron]"),
        (content([0] * 4, 5), "over_zero is int64 (4,), not integers [layer, neuron]"),
        ({"over_zero": [[1, 2]], "total_tokens": 5}, "over_zero is a list, not a tensor"),
        (content([[0, 0]], "5x"), "total_tokens is '5x', not a whole number"),
        (
            content([[-2_000_000_000, 5]], 10, torch.int32),
            "smallest count -2000000000: a int32 counter overflowed",
        ),
        (content([[4, 5]], -7), "total_tokens -7"),
        (content([[4, 5]], 0), "total_tokens 0"),
        (content([[1001, 5]], 1000), "1001 active tokens of 1000"),  # one file has no seam
    ],
)
def test_other_contents_are_refused(tmp_path, content, text):
    torch.save(content, tmp_path / "activation.zh.toy.pt")
    assert text in refusal(tmp_path)


def counts_of(tensor, tokens=5):
    return {"over_zero": tensor, "total_tokens": tokens}


ONES = torch.ones(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (counts_of(ONES.bfloat16()), "over_zero is bfloat16 (2, 3), not integers [layer, neuron]"),
        (counts_of(ONES.bool()), "over_zero is bool (2, 3), not integers"),
        (counts_of(ONES.to(torch.complex64)), "over_zero is complex64 (2, 3), not integers"),
        (counts_of(ONES.float().requires_grad_()), "over_zero is float32 (2, 3), not integers"),
        (counts_of(ONES.to_sparse()), "over_zero is sparse_coo, int64 (2, 3): save a dense"),
        (counts_of(ONES.to("meta")), "over_zero is meta (without numbers), int64 (2, 3)"),
        (
            counts_of(torch.ones(1, dtype=torch.int64).expand(20_000, 20_000)),
            "the file holds only 8 bytes of it: it was expanded; save a copy, .contiguous()",
        ),
        (counts_of(ONES[:, :0]), "over_zero is empty"),
        *(
            (counts_of(ONES, tokens), "not a whole number")
            for tokens in (1.5, np.inf, float("nan"), True, torch.tensor(1.5), torch.ones(2), 2**63)
        ),
    ],
)
def test_tensors_without_counts_are_refused(tmp_path, content, text):
    torch.save(content, tmp_path / "activation.zh.toy.pt")
    assert (tmp_path / "activation.zh.toy.pt").stat().st_size < 4000
    assert text in refusal(tmp_path)


@pytest.mark.parametrize("tokens", [5, 5.0, torch.tensor(5), torch.tensor([5.0])])
def test_whole_numbers_of_any_kind_are_read(tmp_path, tokens):
    torch.save(counts_of(ONES, tokens), tmp_path / "activation.zh.toy.pt")
    assert read_published_counts(tmp_path).tokens.tolist() == [5]


def test_no_flipped_bit_goes_unseen(tmp_path):
    """PyTorch does not look at the checksums in its own files."""
    random, path = np.random.default_rng(0), tmp_path / "activation.zh.toy.pt"
    torch.save(counts_of(torch.arange(6).reshape(2, 3)), path)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        content = bytearray(whole)
        content[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(bytes(content))
        try:
            statistics = read_published_counts(tmp_path)
        except PublishedCountsError:
            refused += 1
        else:  # padding between the parts of the file
            assert statistics.tokens.tolist() == [5]
            assert statistics.counts.ravel().tolist() == list(range(6))
    assert refused > 50


def test_the_message_does_not_say_how_to_switch_the_protection_off(tmp_path):
    torch.save({"over_zero": _Runs(tmp_path / "x")}, tmp_path / "activation.zh.toy.pt")
    text = refusal(tmp_path)
    assert "could run code. Nothing in it was run; ask for a file of tensors and numbers" in text
    assert "weights_only" not in text


class _Runs:
    """A pickle that would run code."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


def test_code_in_a_pickle_never_runs(tmp_path):
    witness = tmp_path / "lensneurons-was-here"
    lying = {"over_zero": _Runs(witness), "total_tokens": 5}
    torch.save(lying, tmp_path / "activation.zh.toy.pt")
    assert "cannot be read safely" in refusal(tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize("length", [200, 0])
def test_a_broken_file_is_refused(length, tmp_path):
    path = write(tmp_path, "zh", [[4, 5]], 10)
    path.write_bytes(path.read_bytes()[:length])
    assert "cannot be read safely" in refusal(tmp_path)


def test_folders_that_are_not_one_model(tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert "holds no activation.LANGUAGE.MODEL.pt files" in refusal(tmp_path)
    write(tmp_path, "zh", [[4, 5]], 10)
    write(tmp_path, "en", [[4, 5, 6]], 10)
    assert "have different shapes: [(1, 2), (1, 3)]" in refusal(tmp_path)
    write(tmp_path, "en", [[4, 5]], 10, model="other.v2")
    assert "counts of several models: ['other.v2', 'toy']" in refusal(tmp_path)


def test_a_missing_prompt_file_is_refused(tmp_path):
    write_pair(tmp_path, "zh", [[4, 5]], 2000)
    write(tmp_path, "en", [[4, 5]], 2000)
    assert "has prompt-only counts, but none for ['en']" in refusal(tmp_path)
    assert read_published_counts(tmp_path, languages=["zh"]).languages == ("zh",)


def test_languages_that_are_not_there(tmp_path):
    write(tmp_path, "zh", [[4, 5]], 10)
    write(tmp_path, "en", [[4, 5]], 10)
    with pytest.raises(LensNeuronsError, match=r"language='xx' is not known.*\['en', 'zh'\]"):
        read_published_counts(tmp_path, languages=["zh", "xx"])
    with pytest.raises(LensNeuronsError, match="named twice"):
        read_published_counts(tmp_path, languages=["zh", "zh"])
    assert "languages=[] leaves nothing" in refusal(tmp_path, languages=[])


def test_masks_by_hand(tmp_path):
    none = torch.tensor([], dtype=torch.int64)
    layers = [[torch.tensor([0, 3]), none], [torch.tensor([1]), torch.tensor([2])]]
    torch.save(layers, tmp_path / "mask")
    masks = read_published_mask(tmp_path / "mask", languages=["zh", "en"], d_mlp=4)
    assert {language: list(members) for language, members in masks.items()} == {
        "zh": ["L0N0", "L0N3"],
        "en": ["L0N1", "L1N2"],
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([[torch.tensor([0, 3]), torch.tensor([1])]], "zh has neuron 3 in layer 0, but d_mlp is 3"),
        ([[torch.tensor([0])]] * 2, "holds 2, not a list of 1 languages"),
        ({"zh": 1}, "holds dict, not a list of 1 languages"),
        ([[torch.tensor([0.0, 1.5])]], r"zh, layer 0 is float32 \(2,\), not integers"),
        ([[torch.tensor([-1])]], "zh has neuron -1 in layer 0"),
        ([[torch.tensor([[1]])]], r"zh has \(1, 1\) in layer 0, not a list"),
        ([3], "zh is not a list of index tensors, one a layer"),
    ],
)
def test_what_is_no_mask_is_refused(content, text, tmp_path):
    torch.save(content, tmp_path / "mask")
    with pytest.raises(PublishedCountsError, match=text):
        read_published_mask(tmp_path / "mask", languages=["zh"], d_mlp=3)
    with pytest.raises(PublishedCountsError, match="cannot be read safely"):
        read_published_mask(tmp_path / "nothing", languages=["zh"], d_mlp=3)
