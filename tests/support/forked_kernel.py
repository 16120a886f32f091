"""Kernels for notebooks, each a process of its own that starts with the libraries imported.

A fork server imports once what every notebook imports. Each kernel is a fork of it, so no notebook
sees what another one left behind. What an import prints or reads from the environment is seen by a
kernel that starts with nothing: `notebook_tools.execute` has both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from typing import Any
from unittest import mock

from jupyter_client.manager import AsyncKernelManager

LIBRARIES = [
    *("ipykernel.kernelapp", "pandas", "plotly.graph_objs", "scipy.stats", "torch._dynamo"),
    *("transformer_lens", "transformers.models.llama.modeling_llama"),
    *("lensneurons.demo.run", "lensneurons.studies.study", "lensneurons.course.checks"),
]
# What a notebook's first cell says of progress bars, and Hugging Face reads at its import.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(LIBRARIES)


def serve(folder: str, arguments: list[str]) -> None:
    """Be a kernel in a folder until the process is terminated; it then leaves nothing behind."""
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.chdir(folder)
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"
    IPKernelApp.launch_instance(argv=[parent, *arguments])


class ForkedKernel(AsyncKernelManager):
    """One kernel, forked instead of started by the command of its kernel spec."""

    process: ForkServerProcess | None = None

    async def start_kernel(self, *, extra_arguments: list[str], cwd: str, **_: Any) -> None:
        self.write_connection_file()
        arguments = ["-f", self.connection_file, *extra_arguments]
        self.process = SERVER.Process(target=serve, args=(cwd, arguments), daemon=True)
        with mock.patch.dict(os.environ, QUIET):  # the first start begins the server
            self.process.start()

    @property
    def has_kernel(self) -> bool:
        return self.process is not None

    async def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    _async_is_alive = is_alive  # the name by which a client asks

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.join(10)
        self.process.kill()
