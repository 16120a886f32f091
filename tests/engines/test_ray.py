"""Workers of Ray give the bits of one process, also where some of them are killed.

Ray needs sockets, which tests do not have: one process makes all runs, with one Ray.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="needs Ray: pip install 'lensneurons[ray]'"
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, str]:
    """What `ray_runs` prints."""
    support = ROOT / "tests" / "support"
    path = os.pathsep.join([str(ROOT), str(support), *sys.path])
    done = subprocess.run(
        [sys.executable, str(support / "ray_runs.py"), str(tmp_path_factory.mktemp("ray"))],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("run", ["1 8", "2 1", "3 2"])
def test_any_number_of_workers_gives_the_same_statistics(run, told):
    assert told[f"statistics {run}"] == told["statistics"]


def test_cells_and_texts_are_the_same(told):
    assert told["matrix 2"] == told["matrix"]
    assert told["texts 2"] == told["texts"]
    assert told["answers 2"] == told["answers"]


def test_a_killed_worker_is_replaced_and_its_shard_counts_once(told):
    assert told["killed deaths"] == 1
    assert told["killed"] == told["statistics"]


def test_shards_whose_workers_always_die_are_named(told):
    assert told["all killed"].startswith("no worker could do batches 0 to 1 of en: 1 died of it (")
    assert "Often it is memory" in told["all killed"]


def test_too_few_processors_are_told_and_not_waited_for(told):
    assert told["no room"].startswith("workers=1000 with 1 CPU each need 1000, and Ray has ")
