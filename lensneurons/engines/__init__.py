"""Engines: who does the work of a long job. This process, or the workers of a Ray cluster.

    engine="local"    this process; the reference, and the default
    engine="ray"      workers on this machine, `RayEngine` with its defaults
    engine=RayEngine(workers=8, gpus=1, address="auto")      a cluster, one model a GPU

`collect`, `ablation_matrix`, `accuracy`, `respond` and `study` take an engine (``pip install
'lensneurons[ray]'``). The result is the same, bit for bit, for any number of workers and any size
of the shards: the driver, which is the process that called, makes the plan, and adds up what comes
back in the order of the plan.

>>> engine = ln.engines.RayEngine(workers=4, cpus=2)                     # doctest: +SKIP
>>> ln.collect(model, corpus, run_dir="runs/base", engine=engine)        # doctest: +SKIP

**The model.** Each worker holds a replica. By default it is the model that was given: its weights
as they are in memory, its configuration and its tokenizer go through Ray's object store once, and
each worker builds the model from them. A model that is too large for that, or that shall lie on
several GPUs of a worker, is loaded by the worker: ``RayEngine(load=lambda:
lensneurons.load_model(name, device_map="auto"), gpus=4)``. Either way the worker proves, before its
first shard, that its model is the one of the driver: the hash of all weights, the configuration,
the number format, the way of the forward pass, the versions of the libraries, the logits of a short
text. Hooks do not travel, so a model with hooks is refused.

**Shards.** A shard has an id: batches 8 to 15 of Chinese, a cell of a matrix, a block of prompts. A
worker gets it whole and returns what it holds: exact integers, and for each batch the float64 sums,
so that the driver adds them in the order of the plan. Each shard that comes back is written to the
run folder (a checksum in it, a temporary name, then its own), if there is one. A shard counts once,
whoever did it and however often. A driver that was killed goes on with the shards that are not in
the folder; either engine goes on in the folder of the other.

**Workers that die.** Another worker does the shard again, and a new worker takes the place of the
dead one. A shard whose workers die `attempts` times is named in the error. An error that is raised
on the shard (a text that cannot be read, say) is raised here at once.

**Bits.** Workers do in float32 what this process does, so numbers are the same bits on the same
sort of processor with as many threads. A worker has one thread of torch for each of its `cpus`;
this process has ``torch.get_num_threads()``. Where a matrix product is added up in another order,
a sum may differ in its last bits, and a pre-activation within 1e-6 of 0 may change its sign.

**What is no engine for counts.** A server such as vLLM runs prompts faster than anything here, but
its numbers cannot be counted: gate and up projection are one fused kernel, so the gate at full
width is never there; a preempted request is prefilled again, and its tokens would count twice; a
cached prefix skips its tokens. It writes well, so it may write: ``respond(..., writer=...)`` and
``accuracy(..., writer=...)``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
del lazy_loader
