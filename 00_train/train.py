"""Pretraining (L3): random weights learn to predict the next token of plain text.

Run:         python prepare.py && python train.py                       the tiny preset, about a minute on two CPU cores
             python train.py --preset shakespeare                        the published experiment
             python train.py --resume                                    go on after Ctrl-C

Before the first step the model knows nothing, so its loss must be ln(V): each of the V tokens is equally likely.
"""

import argparse
import math

import numpy as np
import torch

import checkpoint
import tokenizer
from model import GPT
from presets import PRESETS, Preset, base_path, data_dir
from sampling import generate
from trainer import Batch, Trainer, add_training_arguments, chosen


class Windows:
    """Random windows of a token file. Which ones is a function of the seed and the step alone."""

    def __init__(self, path, rows: int, block: int, seed: int):
        if not path.exists():
            raise SystemExit(f"{path} is missing: run  python prepare.py  first")
        self.data = np.memmap(path, dtype=np.uint16, mode="r")
        self.rows, self.block, self.seed = rows, block, seed

    def batch(self, step: int) -> Batch:
        """ids and the same moved by one, each (rows, block)."""
        starts = np.random.default_rng((self.seed, step)).integers(0, len(self.data) - self.block - 1, self.rows)
        rows = torch.from_numpy(np.stack([self.data[s : s + self.block + 1] for s in starts]).astype(np.int64))
        return rows[:, :-1], rows[:, 1:]

    def whole(self, most: int = 32):
        """The file cut into consecutive windows, at most that many of them, evenly spread: the validation set."""
        count = (len(self.data) - 1) // self.block
        for i in np.linspace(0, count - 1, min(most, count)).astype(int):
            row = torch.from_numpy(self.data[i * self.block : (i + 1) * self.block + 1].astype(np.int64))[None]
            yield row[:, :-1], row[:, 1:]


def validation(windows: Windows, device: torch.device):
    """The function model -> mean loss over the validation windows."""
    batches = [(x.to(device), y.to(device)) for x, y in windows.whole()]
    return lambda model: sum(model.loss(x, y).item() for x, y in batches) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="model, data and recipe (default: %(default)s)")
    add_training_arguments(parser)
    args = parser.parse_args()
    preset: Preset = PRESETS[args.preset]
    device = checkpoint.pick_device(args.device)
    try:
        bpe = tokenizer.load(preset.vocabulary)
    except (OSError, ValueError) as error:
        raise SystemExit(f"train.py: {error}") from None
    torch.manual_seed(args.seed)
    model = GPT(preset.config).to(device)
    folder, block = data_dir(args.preset), preset.config.block_size
    validate = validation(Windows(folder / "val.bin", 1, block, 0), device)
    recipe = chosen(preset.base, args)
    print(f"{model.n_params():,} parameters on {device}; a loss of ln(V) = {math.log(bpe.vocab_size):.3f} means knowing nothing")
    with torch.no_grad():
        print(f"initial validation loss {validate(model):.3f}")
    trainer = Trainer(model, bpe, Windows(folder / "train.bin", preset.batch_rows, block, args.seed).batch, recipe, stage="base",
                      out=args.out or base_path(args.preset), validate=validate, info={"preset": args.preset}, resume=args.resume)
    path = trainer.run()
    print(f"validation loss {trainer.val_losses[-1][1]:.3f} after {trainer.seconds:.0f} s; saved {path}\n\nA sample:")
    print(generate(model, bpe, bpe.encode("ROMEO:"), max_tokens=80, temperature=0.8, seed=args.seed))


if __name__ == "__main__":
    main()
