"""Agent tuning (L5): the chat model learns to think, to call a tool, to wait for its result and to answer.

Run:         python build_data.py && python train.py     from ../00b_sft/out/sft.pt, minutes on two CPU cores
             python train.py --resume                    go on after Ctrl-C

The loss is taken on what the model itself has to say; what the user asked and what the tool answered carries none.
Watch the loss: it falls slowly, then, within some hundred steps, steeply. That is when the model learns to copy
(Olsson et al. 2022, arXiv:2209.11895, on induction heads), and from then on it can use names it has never seen.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoint
from bpe import BPE
from prompts import encode_trace
from rows import Rows, pad_batch
from trainer import Recipe, Trainer, add_training_arguments, chosen

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" / "agent.pt"
SFT = HERE.parent / "00b_sft" / "out" / "sft.pt"
RECIPE = Recipe(steps=2500, lr=4e-3, muon_lr=0.006, warmup=20, eval_every=500, save_every=200)
ROWS = 32
HELD_BACK = 256                                                # traces for validation


def read_rows(path: Path, bpe: BPE) -> list[tuple[list[int], list[int]]]:
    """The traces of build_data.py as (ids, targets)."""
    if not path.exists():
        raise SystemExit(f"{path} is missing: run  python build_data.py  first")
    with open(path, encoding="utf-8") as file:
        return [encode_trace(json.loads(line)["segments"], bpe) for line in tqdm(file, desc="encoding", unit="trace")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=SFT, help="the model to start from (default: %(default)s)")
    parser.add_argument("--traces", type=Path, default=HERE / "out" / "traces.jsonl", help="(default: %(default)s)")
    add_training_arguments(parser)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    try:
        model, bpe, info = checkpoint.load(args.base, checkpoint.pick_device(args.device))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"train.py: {error}") from None
    recipe = chosen(RECIPE, args)
    block = model.config.block_size
    rows = [row for row in read_rows(args.traces, bpe) if len(row[0]) <= block]
    held_ids, held_targets = (part.to(model.wte.weight.device) for part in pad_batch(rows[:HELD_BACK]))
    trainer = Trainer(model, bpe, Rows(rows[HELD_BACK:], ROWS, recipe.seed).batch, recipe, stage="agent", out=args.out or OUT,
                      info={"preset": info["training"].get("preset", "tiny")}, resume=args.resume,
                      validate=lambda m: m.loss(held_ids, held_targets).item())
    path = trainer.run()
    print(f"validation loss {trainer.val_losses[-1][1]:.4f} after {trainer.seconds:.0f} s; saved {path}")


if __name__ == "__main__":
    main()
