"""GPT-2's published weights in our GPT class, straight from the safetensors file, without transformers.

Use:         from_pretrained()                   OpenAI's 124 M weights, downloaded once
             from_pretrained("/some/folder")     any GPT-2 in the Hugging Face layout: config.json and model.safetensors

What it leaves out: the larger sizes by name, and the way back (export).
"""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from download import fetch
from model import GPT, GPTConfig

SMALL = GPTConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
# Their name of each part of a block, and ours.
PARTS = {"ln_1": "ln1", "attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj",
         "ln_2": "ln2", "mlp.c_fc": "fc", "mlp.c_proj": "proj"}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

# What a config.json may say about the arithmetic; another value would give other logits without any error.
PLAIN = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
         "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True}


def read_config(path: Path) -> GPTConfig:
    """The shape from a Hugging Face config.json. Raises ValueError for anything but a plain GPT-2."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != "gpt2":
        raise ValueError(f"{path} describes a {config.get('model_type')!r} model, not gpt2")
    for name, plain in PLAIN.items():
        if config.get(name, plain) != plain:
            raise ValueError(f"{path}: {name} is {config[name]!r}; only GPT-2's own {plain!r} is supported")
    return GPTConfig(config["vocab_size"], config["n_positions"], config["n_layer"], config["n_head"], config["n_embd"])


def from_pretrained(folder: str | Path | None = None) -> GPT:
    """A GPT with published weights, in eval mode on the CPU.

    folder: config.json and model.safetensors; without it the setting GPT2_WEIGHTS_DIR, else the download. Raises
    FileNotFoundError, ConnectionError, or ValueError when the tensors are not those of a GPT-2 of this shape.
    """
    folder = folder or os.environ.get("GPT2_WEIGHTS_DIR")
    if folder:
        weights, config = Path(folder) / "model.safetensors", read_config(Path(folder) / "config.json")
    else:
        weights, config = fetch("gpt2/model.safetensors"), SMALL
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is damaged or no safetensors file: {error}") from None
    return from_tensors(tensors, config)


def from_tensors(theirs: dict[str, torch.Tensor], config: GPTConfig) -> GPT:
    """A GPT from tensors under GPT-2's published names. Raises ValueError when they do not fit the shape.

    Their "Conv1D" keeps a matrix as (in, out); a Linear keeps it as (out, in), so those are transposed.
    """
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    layers = {name.split(".")[1] for name in theirs if name.startswith("h.")}
    if len(layers) != config.n_layer:
        raise ValueError(f"the weights do not fit the shape {config}: they have {len(layers)} layers")
    model = GPT(config)
    try:
        ours = {name: theirs[name] for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")}
        for layer in range(config.n_layer):
            for their_part, our_part in PARTS.items():
                for kind in ("weight", "bias"):
                    tensor = theirs[f"h.{layer}.{their_part}.{kind}"]
                    transposed = f"{their_part}.{kind}" in TRANSPOSED
                    ours[f"blocks.{layer}.{our_part}.{kind}"] = tensor.t().contiguous() if transposed else tensor
        model.load_state_dict(ours)
    except KeyError as error:
        raise ValueError(f"the weights are not those of a GPT-2: there is no tensor {error}") from None
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the shape {config}: {error}") from None
    return model.eval()
