"""The presets of the stack: one vocabulary, one model shape and one recipe for each stage, under one name.

Use:         PRESETS["tiny"].config

tiny          our own vocabulary and corpus, about 1 M parameters: minutes on two CPU cores, no network
shakespeare   GPT-2's vocabulary and Tiny Shakespeare, 7.24 M parameters: the published experiment
"""

from dataclasses import dataclass
from pathlib import Path

from model import GPTConfig
from trainer import Recipe

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Preset:
    """vocabulary is a name for tokenizer.load; batch_rows x block_size tokens make one pretraining step."""

    vocabulary: str
    config: GPTConfig
    batch_rows: int
    base: Recipe


PRESETS = {
    "tiny": Preset(
        "bundled", GPTConfig(vocab_size=1024, block_size=256, n_layer=3, n_head=2, n_embd=128), 12,
        Recipe(steps=120, eval_every=60)),
    "shakespeare": Preset(
        "gpt2", GPTConfig(vocab_size=50257, block_size=128, n_layer=4, n_head=4, n_embd=128), 32,
        Recipe(steps=1000, lr=3e-4, muon_lr=None, warmup=100, eval_every=250)),
}


def data_dir(preset: str) -> Path:
    """Where prepare.py puts the token files of a preset."""
    return HERE / "out" / preset


def base_path(preset: str) -> Path:
    """The base checkpoint of a preset; the default one is simply out/base.pt."""
    return HERE / "out" / ("base.pt" if preset == "tiny" else f"base-{preset}.pt")
