"""Instruction tuning (L4): the base model learns that a question is followed by an answer.

Run:         python train.py              from ../00_train/out/base.pt, seconds on two CPU cores
             python train.py --resume     go on after Ctrl-C

The loss is taken on the answer only: the model shall learn to answer, not to ask. The same questions are put before and
after. A model of a million parameters learns the form of an answer here; most of its facts it makes up, and that is
why the next stage gives it tools.
"""

import argparse
from pathlib import Path

import torch

import checkpoint
from chat_tuning import OUT, tune
from presets import base_path
from trainer import Recipe, add_training_arguments, chosen

RECIPE = Recipe(steps=100, lr=2e-3, muon_lr=0.01, warmup=10, eval_every=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=base_path("tiny"), help="the model to start from (default: %(default)s)")
    add_training_arguments(parser)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        model, bpe, info = checkpoint.load(args.base, checkpoint.pick_device(args.device))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"train.py: {error}") from None
    recipe = chosen(RECIPE, args)
    tune(model, bpe, recipe, out=args.out or OUT, info={"preset": info["training"].get("preset", "tiny")}, resume=args.resume)


if __name__ == "__main__":
    main()
