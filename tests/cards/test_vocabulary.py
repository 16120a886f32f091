"""What a neuron writes and hears, against the weights of Hugging Face models multiplied by hand."""

from __future__ import annotations

from inspect import unwrap

import corpus_data
import edited
import numpy as np
import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders
from transformers import AutoModelForCausalLM

from lensneurons.cards.vocabulary import _Products, heard_tokens, promoted_tokens, written_logits
from lensneurons.errors import LensNeuronsError, ModelError
from lensneurons.models.identity import original_tokenizer
from lensneurons.models.loading import load_model
from lensneurons.tokens.characters import token_texts

LAYER, NEURON, NAME = 1, 17, "L1N17"
# The final norm where it is a LayerNorm; it centres, an RMSNorm does not.
FINAL = {
    **dict.fromkeys(("GPT2", "GPTJ", "Bloom"), "transformer.ln_f"),
    "GPTNeoX": "gpt_neox.final_layer_norm",
    "OPT": "model.decoder.final_layer_norm",
    "Phi": "model.final_layernorm",
}


def row_by_hand(hf, architecture):
    """From Hugging Face's code: the output row of the neuron on its way to the unembedding."""
    layers, _, out = edited.NAMES.get(architecture, edited.USUAL)
    block = hf.get_submodule(layers)[LAYER]
    weight = block.get_submodule(out).weight
    row = weight[NEURON] if architecture == "GPT2" else weight[:, NEURON]  # Conv1D is transposed
    if architecture in FINAL:
        return (row - row.mean()) * hf.get_submodule(FINAL[architecture]).weight
    more = 1 if architecture.startswith("Gemma") else 0  # the gain is stored less 1
    if more or architecture == "Olmo2":
        row = row * (more + block.post_feedforward_layernorm.weight)
    return row * (more + hf.model.norm.weight)


# The norm before the MLP, and the matrix of the pre-activation.
HEARS = {
    "GPT2": ("ln_2", "mlp.c_fc"),
    "Phi": ("input_layernorm", "mlp.fc1"),
    "Olmo2": (None, "mlp.gate_proj"),
    "Gemma3": ("pre_feedforward_layernorm", "mlp.gate_proj"),
    "Phi3": ("post_attention_layernorm", "mlp.gate_up_proj"),
    "Llama": ("post_attention_layernorm", "mlp.gate_proj"),
}


def heard_by_hand(hf, architecture):
    norm, matrix = HEARS[architecture]
    block = hf.get_submodule(edited.NAMES.get(architecture, edited.USUAL)[0])[LAYER]
    vectors, weight = hf.get_input_embeddings().weight, block.get_submodule(matrix).weight
    vectors = vectors if norm is None else block.get_submodule(norm)(vectors)
    return vectors @ (weight[:, NEURON] if architecture == "GPT2" else weight[NEURON])


WRITES = (
    *("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Olmo2", "Phi3"),
    *("GPT2", "GPTNeoX", "Bloom", "OPT", "Phi", "GPTJ"),
)


@pytest.mark.parametrize("architecture", WRITES)
def test_both_directions_equal_hugging_face(architecture, bridge, model_folder):
    hf = AutoModelForCausalLM.from_pretrained(model_folder(architecture))
    with torch.no_grad():
        theirs = {written_logits: hf.get_output_embeddings().weight @ row_by_hand(hf, architecture)}
        if architecture in HEARS:
            theirs[heard_tokens] = heard_by_hand(hf, architecture)
    for read, their in theirs.items():
        ours = read(bridge(architecture), LAYER, NEURON)
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, their.numpy(), atol=2e-5 * float(their.abs().max()))


def test_large_vocabularies_go_in_parts(bridge, monkeypatch):
    whole = [f(bridge("Llama"), LAYER, NEURON) for f in (written_logits, heard_tokens)]
    monkeypatch.setattr("lensneurons.cards.vocabulary._ROWS", 13)
    parts = [f(bridge("Llama"), LAYER, NEURON) for f in (written_logits, heard_tokens)]
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-7)


def test_strongest_tokens_are_the_strongest(bridge):
    model = bridge("GPT2")
    effect = promoted_tokens(model, NAME, k=7)
    ids = sorted(original_tokenizer(model).get_vocab().values())
    scores = written_logits(model, LAYER, NEURON)[ids]  # the rest of the rows pads the vocabulary
    order = np.argsort(scores)
    assert len(ids) < tiny.VOCABULARY
    assert effect.n_tokens == len(ids)
    assert [t.id for t in effect.promoted] == [ids[i] for i in order[::-1][:7]]
    assert [t.id for t in effect.suppressed] == [ids[i] for i in order[:7]]
    assert [t.value for t in effect.suppressed] == pytest.approx(sorted(scores)[:7])
    deviations = (scores - scores.mean()) / scores.std()
    assert effect.promoted[0].deviation == pytest.approx(deviations.max())
    assert effect.chance == pytest.approx(np.sqrt(2 * np.log(len(ids))))
    heard = heard_tokens(model, LAYER, NEURON)[ids]
    assert effect.heard[0].value == pytest.approx(heard.max())


def test_nearly_equal_tokens_are_ordered_as_in_float64(model_folder):
    """Forty rows whose products differ by less than float32 can tell."""
    model = load_model(model_folder("Llama"), device="cpu")
    hf = model.original_model
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = hf.get_output_embeddings().weight
        direction = model.blocks[LAYER].mlp.W_out[NEURON] * hf.model.norm.weight
        noise = torch.randn(40, len(direction), generator=draws)
        rows[100:140] = 5 * direction / direction.norm() * (1 + 1e-7 * noise)
        exact = (rows.double() @ direction.double()).numpy()
    order = np.argsort(-exact, kind="stable")[:10]
    effect = promoted_tokens(model, NAME, k=10)
    assert [t.id for t in effect.promoted] == order.tolist()
    assert [t.value for t in effect.promoted] == pytest.approx(exact[order], rel=1e-6)
    rounded = written_logits(model, LAYER, NEURON)
    assert np.argsort(-rounded, kind="stable")[:10].tolist() != order.tolist()


def test_products_beyond_their_bound_are_made_again(bridge, monkeypatch):
    """Where a machine multiplies in TF32 or bfloat16, the bound of float32 does not hold."""
    model = bridge("Llama")
    right = promoted_tokens(model, NAME)
    init = _Products.__init__

    def coarse(self, *args, **options):
        init(self, *args, **options)
        self.scores = torch.from_numpy(self.scores).bfloat16().double().numpy()

    monkeypatch.setattr(_Products, "__init__", coarse)
    for ours, theirs in zip(promoted_tokens(model, NAME).lists, right.lists, strict=True):
        assert [t.id for t in ours[1]] == [t.id for t in theirs[1]]


def test_a_planted_row_is_found(model_folder):
    """A row that is one token's unembedding promotes this token, and its negative suppresses it."""
    model = load_model(model_folder("Llama"), device="cpu")
    hf, token = model.original_model, 123
    with torch.no_grad():
        gain = hf.model.norm.original_component.weight
        direction = model.W_U[:, token] / gain / model.W_U[:, token].norm()
        model.blocks[2].mlp.W_out[5] = direction
        model.blocks[2].mlp.W_out[6] = -3 * direction
    assert promoted_tokens(model, "L2N5").promoted[0].id == token
    assert promoted_tokens(model, "L2N6").suppressed[0].id == token


def test_hooks_of_others_neither_fire_nor_matter(bridge):
    model, fired = bridge("Gemma2"), []
    plain = promoted_tokens(model, NAME)
    spy = [(name, lambda t, hook: fired.append(1)) for name in model.hook_dict if "ln" in name]
    assert len(spy) > 8
    with model.hooks(fwd_hooks=spy):
        assert promoted_tokens(model, NAME) == plain
    assert fired == []


def test_a_row_of_zeros_has_finite_deviations(model_folder):
    model = load_model(model_folder("Llama"), device="cpu")
    with torch.no_grad():
        model.blocks[0].mlp.W_out[0] = 0
    effect = promoted_tokens(model, "L0N0", k=3)
    assert [(t.id, t.value, t.deviation) for t in effect.promoted] == [(i, 0, 0) for i in range(3)]


def test_byte_pieces_are_shown_as_bytes_and_the_rest_as_text():
    tokenizer = tiny.byte_tokenizer(bos=True)
    vocabulary = tokenizer.get_vocab()
    texts = token_texts(tokenizer.backend_tokenizer, sorted(vocabulary.values()))
    for piece, text in zip(sorted(vocabulary, key=vocabulary.get), texts, strict=True):
        if piece in ("<s>", "</s>", "<pad>"):
            assert text == piece
            continue
        raw = corpus_data.piece_bytes(piece)
        try:
            assert text == raw.decode()
        except UnicodeDecodeError:
            assert text == f"<{raw.hex(' ').upper()}>"
    assert any(text.startswith("<E0") for text in texts)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("llama like", {"▁42": " 42", "42": "42", "<0xE0>": "<0xE0>", "<0x41>": "A", "答": "答"}),
        ("words", {"has": "has", "[UNK]": "[UNK]"}),
        ("unigram", {"▁": "▁"}),
    ],
)
def test_other_tokenizers_are_readable(name, pieces):
    own = corpus_data.TOKENIZERS[name]().backend_tokenizer
    backend = Tokenizer.from_str(own.to_str())
    if name == "llama like":
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    ids = [backend.token_to_id(piece) for piece in pieces]
    assert token_texts(backend, ids) == list(pieces.values())


def test_the_value_shows_itself(bridge):
    effect = promoted_tokens(bridge("Llama"), NAME, k=3)
    table = effect.to_pandas()
    assert list(table) == ["direction", "rank", "id", "text", "value", "deviation"]
    assert table["direction"].tolist() == ["promoted"] * 3 + ["suppressed"] * 3 + ["heard"] * 3
    assert table["rank"].tolist() == [1, 2, 3] * 3
    assert repr(effect).startswith(f"VocabularyEffect({NAME}: promotes ")
    assert (effect._repr_html_().count("<tr>"), "chance" in effect._repr_html_()) == (4, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("L9N1", {}, "L9N1 is outside a model of 3 layers x 52 neurons"),
        ("12N1", {}, "'12N1' is not the name of a neuron: write 'L12N3456'"),
        (NAME, {"k": 0}, "k=0 asks for no token; give 1 or more"),
    ],
)
def test_refusals(name, options, message, bridge):
    with pytest.raises(LensNeuronsError, match=message):
        unwrap(promoted_tokens)(bridge("Llama"), name, **options)


def test_a_vocabulary_of_other_dimensions_is_refused(tmp_path, monkeypatch):
    values = tiny.ARCHITECTURES["OPT"][1] | {"word_embed_proj_dim": 16}
    monkeypatch.setitem(tiny.ARCHITECTURES, "OPT", ("OPTConfig", values))
    model = load_model(tiny.save_model("OPT", tmp_path), device="cpu")
    with pytest.raises(ModelError, match="in 16 dimensions and the residual stream has 32"):
        promoted_tokens(model, NAME)


def test_a_model_of_another_library_is_refused(model_folder):
    with pytest.raises(ModelError, match="not a TransformerLens model"):
        promoted_tokens(AutoModelForCausalLM.from_pretrained(model_folder("Llama")), NAME)
