#!/usr/bin/env bash
# Proves that models of TransformerLens 3.9 work: makes an environment, installs, runs the tests.
#   tests/compatibility/transformer_lens_3.sh [folder of the environment, default .venv-tl3]
# An environment that is already there is used as it is. PYTHON chooses the interpreter (>= 3.11).
set -euo pipefail

cd "$(dirname "$0")/../.."
environment=${1:-.venv-tl3}

if [ ! -e "$environment/.installed" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    # The tested versions of everything but TransformerLens; torch first, for its CPU wheel.
    grep -v '^transformer-lens==' constraints.txt > "$environment/constraints.txt"
    pip=("$environment/bin/pip" install --quiet --constraint "$environment/constraints.txt")
    "${pip[@]}" torch
    "${pip[@]}" transformer-lens==3.9.0 transformers safetensors filelock tqdm scipy pyarrow \
        plotly jinja2 langcodes regex num2words lazy-loader xxhash jaxtyping \
        beartype pytest pytest-socket hypothesis
    # Without its dependencies, which ask for TransformerLens 4.
    "${pip[@]}" --no-deps --editable .
    touch "$environment/.installed"
fi

exec "$environment/bin/python" -m pytest --override-ini=addopts= --import-mode=importlib \
    tests/compatibility/test_transformer_lens_3.py \
    tests/models/test_loading.py tests/models/test_sites.py tests/models/test_forward.py \
    tests/activations/test_collection.py tests/evaluation/test_generation.py
