"""Checkpoints: one self-contained file from which a model can be talked to.

Use:         save(path, model, bpe, stage="base", training={...});  model, bpe, info = load(path)

The file holds format, stage, config, model, tokenizer and training. It is read with weights_only=True, so a file from a
stranger cannot run code. It is written to a temporary file, flushed to the disk, then renamed: at every moment the
path holds either the old file whole or the new file whole.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bpe import BPE
from model import GPT, GPTConfig

FORMAT = "query-to-flop checkpoint 1"
STAGES = ("base", "sft", "agent")


def save_atomic(value: Any, path: str | Path) -> None:
    """torch.save that never leaves half a file behind. Raises OSError (a full disk, for instance) and cleans up."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(path: str | Path, model: GPT, bpe: BPE, stage: str, training: dict) -> None:
    """Write a checkpoint. training: plain values (preset, seed, steps, tokens, losses, seconds, device, versions)."""
    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
    weights = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    save_atomic({"format": FORMAT, "stage": stage, "config": asdict(model.config), "model": weights,
                 "tokenizer": bpe.state(), "training": training}, path)


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[GPT, BPE, dict]:
    """Read a checkpoint -> (model in eval mode on the device, its vocabulary, {"stage", "training"}).

    Raises FileNotFoundError when there is none, ValueError when the file is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: train one first (make demo trains all three stages)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint that can be read safely: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT!r}")
    try:
        model, bpe = GPT(GPTConfig(**state["config"])), BPE.from_state(state["tokenizer"])
        model.load_state_dict(state["model"])
        info = {"stage": state["stage"], "training": state["training"]}
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged checkpoint: {error!r}") from error
    return model.to(device).eval(), bpe, info


def pick_device(name: str = "auto") -> torch.device:
    """"auto": cuda, else mps, else cpu. Any other name is taken as it is."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
