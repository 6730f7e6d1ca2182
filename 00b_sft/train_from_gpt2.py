"""Instruction tuning from OpenAI's GPT-2 weights instead of our own base model: the path from real pretrained weights.

Run:         python train_from_gpt2.py                        downloads the 124 M weights once (setting GPT2_WEIGHTS_DIR
                                                              names a folder with model.safetensors and config.json instead)
             python train_from_gpt2.py --weights /some/gpt2   a local folder in the Hugging Face layout

A GPU is advised: 124 M parameters are a hundred times the tiny preset.

What it leaves out: the agent stage from these weights.
"""

import argparse
from pathlib import Path

import torch

import checkpoint
import pretrained
import tokenizer
from chat_tuning import OUT, tune
from trainer import Recipe, add_training_arguments, chosen

RECIPE = Recipe(steps=200, lr=5e-5, muon_lr=None, warmup=20, eval_every=50, save_every=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a folder with model.safetensors and config.json (default: download GPT-2)")
    add_training_arguments(parser)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        model = pretrained.from_pretrained(args.weights).to(checkpoint.pick_device(args.device))
        bpe = tokenizer.load("gpt2")
    except (OSError, ValueError) as error:
        raise SystemExit(f"train_from_gpt2.py: {error}") from None
    recipe = chosen(RECIPE, args)
    tune(model, bpe, recipe, out=args.out or OUT.with_name("sft-gpt2.pt"), info={"preset": "gpt2"}, resume=args.resume)


if __name__ == "__main__":
    main()
