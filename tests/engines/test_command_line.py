"""The command line names the engine and its workers."""

from __future__ import annotations

import pytest

from lensneurons.cli.inputs import open_engine
from lensneurons.cli.options import build_parser
from lensneurons.engines import RayEngine
from lensneurons.errors import LensNeuronsError

COMMANDS = (
    ["collect", "demo", "--corpus", "demo", "--out", "runs"],
    ["ablate", "demo", "runs", "--corpus", "demo", "--out", "effects"],
    ["study", "demo", "--corpus", "demo", "--out", "study"],
)
GIVEN = ["--workers", "4", "--worker-cpus", "2", "--worker-gpus", "0.5", "--ray-address", "auto"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one[0])
def test_long_jobs_take_an_engine(command):
    read = build_parser().parse_args
    assert open_engine(read(command)) == "local"
    assert open_engine(read([*command, "--engine", "ray"])) == RayEngine()
    found = open_engine(read([*command, "--engine", "ray", *GIVEN]))
    assert found == RayEngine(workers=4, cpus=2, gpus=0.5, address="auto")
    with pytest.raises(LensNeuronsError, match="need --engine ray"):
        open_engine(read([*command, "--workers", "4"]))
