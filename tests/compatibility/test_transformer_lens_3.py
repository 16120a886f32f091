"""Models of TransformerLens 3.9: a `HookedTransformer` and its `TransformerBridge` work as well.

`transformer_lens_3.sh` beside this file runs it in an environment of its own; with TransformerLens
4, where `HookedTransformer` was removed, the module skips as a whole and says so.
"""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest
import tiny
import torch
from edited import IDS, draw_set, draw_statistics, logits_of, post_of
from torch.nn import functional

INSTALLED = importlib.metadata.version("transformer-lens")
if not INSTALLED.startswith("3."):
    pytest.skip(
        f"TransformerLens {INSTALLED} has no HookedTransformer: run"
        " tests/compatibility/transformer_lens_3.sh",
        allow_module_level=True,
    )

import transformer_lens  # noqa: E402

from lensneurons.activations.collection import collect  # noqa: E402
from lensneurons.activations.statistics import ActivationStatistics  # noqa: E402
from lensneurons.errors import LensNeuronsError, ModelError  # noqa: E402
from lensneurons.evaluation.likelihood import nll  # noqa: E402
from lensneurons.interventions.editing import ablate, scale, steer  # noqa: E402
from lensneurons.models.family import context_length  # noqa: E402
from lensneurons.models.forward import forward_path  # noqa: E402
from lensneurons.models.identity import hash_config, hash_weights  # noqa: E402
from lensneurons.models.loading import model_family  # noqa: E402
from lensneurons.models.sites import neuron_site, verify_neuron_hooks  # noqa: E402
from lensneurons.models.views import has_hooks  # noqa: E402
from lensneurons.tokens.encoding import encode  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:HookedTransformer is deprecated and will be removed:DeprecationWarning"
)

CORPUS = tiny.tiny_corpus()
TOKENIZER = tiny.byte_tokenizer(bos=True)
KINDS = {
    "gated silu": {"act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS"},
    "gelu": {"act_fn": "gelu_new", "normalization_type": "LN"},
    "rotary relu": {
        "act_fn": "relu",
        "normalization_type": "LNPre",
        "positional_embedding_type": "rotary",
        "rotary_dim": 8,
    },
}


def hooked(kind: str):
    torch.manual_seed(11)
    config = transformer_lens.HookedTransformerConfig(
        n_layers=tiny.LAYERS,
        d_model=tiny.D_MODEL,
        d_mlp=tiny.D_MLP,
        n_ctx=tiny.POSITIONS,
        n_heads=4,
        d_head=8,
        d_vocab=tiny.VOCABULARY,
        device="cpu",
        **KINDS[kind],
    )
    model = transformer_lens.HookedTransformer(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.25 + ("ln" in name))
    return model.eval()


@pytest.fixture(params=KINDS)
def model(request):
    return hooked(request.param)


def gather(model, **options):
    return collect(model, CORPUS, progress=False, tokenizer=TOKENIZER, **options)


def ids_of(encoded, row):
    """The tokens of one text."""
    return torch.tensor(encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]).long()


def count_by_cache(model):
    """Every text alone through the library's own `run_with_cache`."""
    encoded = encode(CORPUS, TOKENIZER)
    counts = np.zeros((tiny.LAYERS, tiny.D_MLP, len(CORPUS.languages)), np.int64)
    for row, k in enumerate(encoded.language):
        ids = ids_of(encoded, row)
        with torch.no_grad():
            _, cache = model.run_with_cache(ids[None], prepend_bos=False)
        for layer in range(tiny.LAYERS):
            pre = cache[f"blocks.{layer}.mlp.hook_pre"][0, encoded.start[row] : encoded.stop[row]]
            counts[layer, :, k] += (pre > 0).sum(0).numpy()
    return counts


def test_the_site_is_found_and_proved(model):
    site = neuron_site(model)
    assert model_family(model) == forward_path(model) == "hooked"
    assert (site.n_layers, site.d_mlp) == (tiny.LAYERS, tiny.D_MLP)
    assert site.gated == model.cfg.gated_mlp
    assert context_length(model) == tiny.POSITIONS
    proof = verify_neuron_hooks(model)
    assert proof.fired == 1
    assert max(proof.activation_difference, proof.mlp_difference) < 1e-5


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_counts_equal_its_own_cache(model, padding_side, batch_tokens):
    ours = gather(model, padding_side=padding_side, batch_tokens=batch_tokens)
    assert np.array_equal(ours.counts, count_by_cache(model))
    assert (ours.provenance.attention, ours.provenance.dtype) == ("eager", "float32")


def test_a_users_cache_equals_collect(model):
    encoded = encode(CORPUS, TOKENIZER)
    total = None
    for row, k in enumerate(encoded.language):
        ids = ids_of(encoded, row)
        counted = torch.zeros(1, len(ids), dtype=torch.bool)
        counted[0, encoded.start[row] : encoded.stop[row]] = True
        _, cache = model.run_with_cache(ids[None])
        told = {"languages": [CORPUS.languages[k]], "counted": counted}
        add = total.update if total is not None else ActivationStatistics.from_cache
        total = add(cache, model, **told)
    assert np.array_equal(total.counts, gather(model).counts)


def test_the_model_is_as_before(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.randint(3, 300, (2, 9))
    logits = model(ids)
    gather(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(ids), logits)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_an_ablation_acts_and_is_recorded(model):
    before = gather(model)
    hook = ("blocks.0.mlp.hook_post", lambda tensor, hook: tensor * 0)
    with model.hooks(fwd_hooks=[hook]):
        assert has_hooks(model)
        ablated = gather(model)
    assert not has_hooks(model)
    assert np.array_equal(ablated.counts[0], before.counts[0])
    assert not np.array_equal(ablated.counts[1], before.counts[1])
    assert (before.provenance.interventions, ablated.provenance.interventions) == ("none", "hooks")


def without_rows(kind, neurons):
    """The same model with rows of W_out set to zero."""
    model = hooked(kind)
    with torch.no_grad():
        for layer, own in neurons.by_layer().items():
            model.blocks[layer].mlp.W_out[own] = 0
    return no_bias(model)


def no_bias(model):
    """As loaded models are: a gated MLP adds b_in behind the product, and theirs is zero."""
    if model.cfg.gated_mlp:
        for block in model.blocks:
            torch.nn.init.zeros_(block.mlp.b_in)
    return model


@pytest.fixture
def tokenizer(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    return type(TOKENIZER).from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_w_out_without_the_rows(kind):
    model, other = no_bias(hooked(kind)), without_rows(kind, draw_set())
    before, hooks = logits_of(model), [list(p.fwd_hooks) for p in model.hook_dict.values()]
    with ablate(model, draw_set()):
        ours = logits_of(model)
        written = model.generate(IDS, 5, stop_at_eos=False, do_sample=False, verbose=False)
    assert (ours - logits_of(other)).abs().max() < 1e-5 * before.abs().max()
    assert not torch.equal(ours, before)
    expected = other.generate(IDS, 5, stop_at_eos=False, do_sample=False, verbose=False)
    assert torch.equal(written, expected)
    with pytest.raises(KeyboardInterrupt), ablate(model, draw_set()):
        raise KeyboardInterrupt
    assert torch.equal(logits_of(model), before)
    assert [list(p.fwd_hooks) for p in model.hook_dict.values()] == hooks


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_of_the_activation_function_is_changed(kind):
    model, statistics, neurons = no_bias(hooked(kind)), draw_statistics(), draw_set()
    here = neurons.mask()[0]
    names = [f"blocks.0.mlp.hook_{name}" for name in ("post", "pre_linear")]
    _, cache = model.run_with_cache(IDS)
    before = cache[names[0]][..., here]
    linear = cache[names[1]][..., here] if model.cfg.gated_mlp else torch.ones_like(before)
    mean = torch.from_numpy(statistics.mean[0, here, 1]).float()
    with ablate(model, neurons, method="mean", statistics=statistics, language="zh"):
        assert torch.equal(post_of(model)[..., here], mean * linear)
    with steer(model, neurons, statistics, toward="zh", alpha=0.5):
        assert torch.allclose(post_of(model)[..., here], before + 0.5 * mean * linear)
    with scale(model, [neurons, draw_set(layers=()), neurons], -2.0, positions=[1]):
        post = post_of(model)[..., here]
    assert torch.equal(post[::2, 1], -2 * before[::2, 1])
    assert torch.equal(post[1], before[1])
    assert torch.equal(post[:, 2:], before[:, 2:])


def test_resampling_reads_its_tokenizer(model, tokenizer):
    with pytest.raises(ModelError, match="no tokenizer that can be read again"):
        with ablate(model, draw_set(), method="resample", reference=CORPUS):
            raise AssertionError("the block ran")
    model.tokenizer = tokenizer
    before = logits_of(model)
    with ablate(model, draw_set(), method="resample", reference=CORPUS):
        assert not torch.equal(logits_of(model), before)
    assert torch.equal(logits_of(model), before)


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_nll_is_the_cross_entropy(model, tokenizer, padding_side):
    model.tokenizer = tokenizer
    encoded = encode(CORPUS, TOKENIZER)
    with ablate(model, draw_set()):
        ours = nll(model, CORPUS, padding_side=padding_side, batch_tokens=400)
        for row in range(len(encoded)):
            ids = ids_of(encoded, row)
            logits = logits_of(model, ids[None])[0, :-1]
            losses = functional.cross_entropy(logits, ids[1:], reduction="none")
            counted = losses[encoded.start[row] - 1 : encoded.stop[row] - 1].double()
            assert abs(ours.nll[row] - counted.sum()) < 1e-5 * len(counted)
            assert ours.tokens[row] == len(counted)
    assert ours.provenance.interventions == "hooks"


def test_hashes_notice_a_change(model):
    weights, config = hash_weights(model), hash_config(model)
    with torch.no_grad():
        model.blocks[1].mlp.W_out[3, 4] += 1e-6
    assert hash_weights(model) != weights
    assert hash_config(model) == config
    model.cfg.eps = 1e-3
    assert hash_config(model) != config


def test_hashes_are_equal_for_equal_models():
    one, same, other = (hooked(kind) for kind in ("gelu", "gelu", "rotary relu"))
    assert hash_weights(one) == hash_weights(same)
    assert hash_config(one) == hash_config(same) != hash_config(other)


def test_a_run_folder_works(model, tmp_path):
    first = gather(model, run_dir=tmp_path)
    assert np.array_equal(gather(model, run_dir=tmp_path).sums, first.sums)


def test_a_model_without_tokenizer_asks_for_one(model):
    with pytest.raises(ModelError, match="no tokenizer that can be read again: pass tokenizer="):
        collect(model, CORPUS, progress=False)


def test_an_attention_only_model_is_refused():
    with pytest.raises(LensNeuronsError, match="block 0 has no mlp"):
        neuron_site(one_layer(attn_only=True))


def one_layer(**options):
    config = transformer_lens.HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=9, d_head=4, n_heads=2, d_vocab=50, **options
    )
    return transformer_lens.HookedTransformer(config)


def test_an_activation_that_keeps_no_sign_is_refused():
    model = one_layer(d_mlp=12, act_fn="relu")
    model.blocks[0].mlp.act_fn = torch.sigmoid
    with pytest.raises(LensNeuronsError, match="sigmoid is not positive exactly where its arg"):
        neuron_site(model)


def test_a_layer_norm_after_the_activation_is_refused():
    with pytest.raises(ModelError, match=r"act_fn\(hook_pre\) differs from hook_post"):
        verify_neuron_hooks(one_layer(d_mlp=12, act_fn="solu_ln"))
