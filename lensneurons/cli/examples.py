"""Two examples of every command, for its ``--help``; a test reads each as the command line does."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, str]] = {
    "demo": (
        "lensneurons demo",
        "lensneurons demo --languages en,zh,sw --items 50 --out demo.html",
    ),
    "study": (
        "lensneurons study Qwen/Qwen3-0.6B-Base --corpus texts.jsonl --out study --dry-run",
        "lensneurons study Qwen/Qwen3-0.6B-Base --corpus texts.jsonl --out study --budget 2h "
        "--methods lape,average_precision,plnd",
    ),
    "collect": (
        "lensneurons collect demo --corpus demo --limit 50 --out runs/demo",
        "lensneurons collect allenai/OLMoE-1B-7B-0924 --corpus texts.jsonl --site experts "
        "--engine ray --workers 4 --worker-gpus 1 --out runs/experts",
    ),
    "merge": (
        "lensneurons merge runs/en runs/zh runs/sw --out runs/all.safetensors",
        "lensneurons merge node1.safetensors node2.safetensors --out all.safetensors",
    ),
    "identify": (
        "lensneurons identify runs/base --score lape --top-rate 0.02 --out results",
        "lensneurons identify runs/base --method script_lape --romanised runs/latin --json",
    ),
    "parts": (
        "lensneurons parts runs/base",
        "lensneurons parts activations/mgsm --published",
    ),
    "ablate": (
        "lensneurons ablate demo runs/demo --corpus demo --limit 10 --score lape --top-rate 0.09 "
        "--out runs/ablation",
        "lensneurons ablate Qwen/Qwen3-0.6B-Base runs/base --corpus texts.jsonl --languages zh,de "
        "--metric nll,accuracy --out runs/ablation",
    ),
    "describe": (
        "lensneurons describe demo runs/demo L2N10 --corpus demo",
        "lensneurons describe demo runs/demo L2N10 L3N7 --corpus demo --out cards.html "
        "--save runs/cards",
    ),
    "export": (
        "lensneurons export demo runs/demo --languages zh --score lape --top-rate 0.09 "
        "--out without-zh",
        "lensneurons export Qwen/Qwen3-0.6B-Base runs/base --languages de --factor 2 --out louder",
    ),
    "records": (
        "lensneurons records demo runs/demo --corpus demo --limit 20 --languages zh --score lape "
        "--top-rate 0.09 --out records/zh",
        "lensneurons records allenai/OLMoE-1B-7B-0924 runs/inside --corpus texts.jsonl "
        "--languages de --out records/de",
    ),
    "align": (
        "lensneurons align Qwen/Qwen3-0.6B-Base --corpus problems.jsonl --languages zh,de "
        "--out runs/zh-de",
        "lensneurons align Qwen/Qwen3-0.6B-Base --corpus problems.jsonl --languages zh --shuffled "
        "--out runs/control",
    ),
    "random-adapter": (
        "lensneurons random-adapter runs/zh-de/adapter --out runs/random",
        "lensneurons random-adapter zh-de --out runs/random --seed 1",
    ),
    "compare": (
        "lensneurons compare runs/base runs/aligned --trained zh,de",
        "lensneurons compare runs/base runs/aligned --trained zh,de --out tables",
    ),
    "report": (
        "lensneurons report runs/base runs/ablation runs/cards",
        "lensneurons report runs/base runs/aligned --trained zh,de --out report.html",
    ),
}
