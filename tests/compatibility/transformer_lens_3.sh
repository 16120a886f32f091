#!/usr/bin/env bash
# Proves that models of TransformerLens 3.9 work: makes an environment, installs, runs the tests.
#   tests/compatibility/transformer_lens_3.sh [folder of the environment, default .venv-tl3]
# An environment that is already there is used as it is. PYTHON chooses the interpreter (>= 3.11).
set -euo pipefail

cd "$(dirname "$0")/../.."
environment=${1:-.venv-tl3}

if [ ! -x "$environment/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    # torch first: a free range would take the newest one with gigabytes of CUDA.
    "$environment/bin/pip" install --quiet torch==2.13.0
    "$environment/bin/pip" install --quiet transformer-lens==3.9.0 transformers==5.23.0 \
        safetensors filelock tqdm scipy pyarrow plotly circuitsvis jinja2 langcodes regex \
        num2words lazy-loader jaxtyping beartype pytest pytest-socket hypothesis
    # Without its dependencies, which ask for TransformerLens 4.
    "$environment/bin/pip" install --quiet --no-deps --editable .
fi

exec "$environment/bin/python" -m pytest -p no:cacheprovider --override-ini=addopts= \
    --import-mode=importlib --strict-markers \
    tests/compatibility/test_transformer_lens_3.py \
    tests/test_models.py tests/test_sites.py tests/test_forward.py tests/test_collect.py
