"""The cells of the gallery, run one after the other: each leaves its figure in `figure`."""

# %% layer_profile: where the classes sit
import lensneurons as ln

sample = ln.load_sample("gemma-3-270m")  # counts of a real model; the model itself is not needed
neurons, parts = sample.neurons, sample.parts
figure = ln.plots.layer_profile(neurons, parts)

# %% layer_profiles: the same beside another model
paper = ln.samples.published_profile("mistral-7b")
figure = ln.plots.layer_profiles({"Gemma 3 270M": neurons, "Mistral-7B of the paper": paper})

# %% language_histogram: how many languages share a neuron
figure = ln.plots.language_histogram(neurons)

# %% neuron_map: which layers hold the neurons of which language
figure = ln.plots.neuron_map(neurons)

# %% neuron_map, one layer: every neuron of it
figure = ln.plots.neuron_map(neurons, layer=12)

# %% neuron_probabilities: one neuron, language by language
name = sample.cards[0].facts.name
figure = ln.plots.neuron_probabilities(neurons, name, statistics=sample.statistics)

# %% overlap: which languages share their neurons
figure = ln.plots.overlap(neurons)

# %% ablation_effects: what removing the neurons of a language does to every language
figure = ln.plots.ablation_effects(sample.effects["nll"])

# %% lens_curves: in which language each layer would go on
figure = ln.plots.lens_curves(sample.lens, neurons=neurons, parts=parts)

# %% claims: the statements of the paper about one model
tested = ln.studies.model_claims(
    neurons, statistics=sample.statistics, parts=parts, effects=sample.effects["nll"]
)
figure = ln.plots.claims(tested)

# %% histogram_change: what alignment changed, by the number of languages
languages = ["en", "de", "zh", "th"]
corpus = ln.load_corpus("demo", split="test", limit=12, languages=languages)
model, aligned = ln.load_model("demo"), ln.load_model("demo", adapter="zh-de")
before = ln.collect(model, corpus, progress=False)
after = ln.collect(aligned, corpus, progress=False)
change = ln.compare(before, after, trained=("zh", "de"))
figure = ln.plots.histogram_change(change)

# %% transitions: from where to where
figure = ln.plots.transitions(change)

# %% class_changes: layer by layer
figure = ln.plots.class_changes(change)

# %% language_changes: language by language
figure = ln.plots.language_changes(change)

# %% checkpoint_series: along the training
runs = {"0": before, "end": after}  # and every checkpoint between them
series = ln.comparison.compare_series(runs, trained=("zh", "de"))
figure = ln.plots.checkpoint_series(series)

# %% alignment_curves: the training itself
folder = ln.models.adapters.DEMO_ADAPTERS / "zh-de"
figure = ln.plots.alignment_curves(ln.alignment.Alignment.load(folder))

# %% carry_over: what a layer carries from one language to another
options = {"source": "en", "languages": ("de",), "cut": "result"}
pairs = ln.experiments.answer_pairs(corpus, **options)
figure = ln.plots.carry_over(ln.carry_over(model, pairs, progress=False))

# %% attention_shares: which heads look elsewhere in other languages
shares = ln.experiments.attention_shares(model, corpus)
figure = ln.plots.attention_shares(shares, "special")

# %% coupling: is an item answered as its translation is?
few = ["en", "zh", "th"]
several = ln.load_corpus("demo", split="test", limit=25, languages=few)
items = ln.activations.item_activations(model, several, progress=False)
coupled = ln.comparison.coupling(items, draws=99)
figure = ln.plots.coupling(coupled)

# %% language_coupling: between which languages
figure = ln.plots.language_coupling(coupled)

# %% method_effects: what the neurons of several methods do
import warnings  # noqa: E402

counted = ln.collect(model, several.head(20), progress=False)
methods = {
    name: ln.identify(counted, method=name, top_rate=0.09)
    for name in ("lape", "difference", "activation_entropy")
}
held_out = several.select(ids=several.ids[-5:])
with warnings.catch_warnings(action="ignore"):  # the demo lacks random neurons as active
    compared = ln.experiments.compare_methods(
        model, held_out, methods, methods["lape"], number=40, controls=5, progress=False
    )
figure = ln.plots.method_effects(compared)

# %% method_overlap: whether they are the same neurons
figure = ln.plots.method_overlap(compared)

# %% method_layers: where they are
figure = ln.plots.method_layers(compared)

# %% importance_agreement: which cheap measure ranks single neurons as their removal does
measures = ("plnd", "activation_gradient")
agreement = ln.cards.importance_agreement(
    model, several.select(["en"]).head(1), methods["lape"],
    number=40, methods=measures, progress=False,
)  # fmt: skip
figure = ln.plots.importance_agreement(agreement)

# %% steering_curve: what turning up the neurons of a language does
found = ln.identify(before, score="lape", top_rate=0.09)
curve = ln.steering_curve(
    model,
    corpus.head(4),
    found["zh"],
    statistics=before,
    toward="zh",
    prompts_in="en",
    method="difference",
    alphas=(0, 10),
    max_new_tokens=16,
    progress=False,
)
figure = ln.plots.steering_curve(curve)

# %% lens_languages: in whose words each layer has the item
figure = ln.plots.lens_languages(ln.experiments.lens_languages(model, corpus.head(6)))

# %% neuron_edges: which earlier neurons drive one late neuron
edges = ln.cards.neuron_edges(model, corpus.head(4), "L3N10", top=8, cut=False)
figure = ln.plots.neuron_edges(edges)

# %% in_theme: any figure on a dark ground
figure = ln.plots.in_theme(ln.plots.overlap(neurons), "dark")
