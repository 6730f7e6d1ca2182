"""The training loop that all three stages share: pretraining, instruction tuning and agent tuning differ only in their batches.

Use:         Trainer(model, bpe, batch, recipe, stage="base", out=Path("out/base.pt")).run()

A batch is a function of the step alone, batch(step) -> (ids, targets). So the place in the data is the step number, and a
run that was broken off goes on with --resume exactly where it was.

Letters:     B batch, T time (tokens).

What it leaves out: lower precision, CUDA graphs, more than one GPU, gradient accumulation.
"""

import argparse
import json
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import checkpoint
from bpe import BPE
from model import GPT
from muon import optimizers

Batch = tuple[Tensor, Tensor]                                  # ids and targets, each (B, T), integers


@dataclass(frozen=True)
class Recipe:
    """How to train. Learning rates are peaks: reached after warmup steps, then straight down to zero."""

    steps: int
    lr: float = 4e-3                                           # AdamW: embeddings, gains, biases
    muon_lr: float | None = 0.02                               # Muon: the matrices in the blocks; None: AdamW for all
    warmup: int = 20                                           # steps
    clip: float = 1.0                                          # largest norm of the whole gradient
    eval_every: int = 200                                      # steps between two validations
    save_every: int = 200                                      # steps between two states to resume from
    seed: int = 1


class Interrupted(SystemExit):
    """Training was stopped by a signal after saving its state; exit status 130, as after any Ctrl-C."""


class Diverged(RuntimeError):
    """The loss is not finite any more."""


class Trainer:
    """Trains a model and writes a checkpoint.

    batch:     step -> ids and targets (B, T); targets of -1 carry no loss.
    validate:  model -> loss on data that training never sees, or None.
    info:      plain values that go into the checkpoint's "training".
    out:       the checkpoint's path; "<name>.resume.pt", "<name>.jsonl" and "<name>.png" are written beside it.
    """

    def __init__(self, model: GPT, bpe: BPE, batch: Callable[[int], Batch], recipe: Recipe, *, stage: str, out: Path,
                 validate: Callable[[GPT], float] | None = None, info: dict | None = None, resume: bool = False):
        self.model, self.bpe, self.batch, self.recipe = model, bpe, batch, recipe
        self.stage, self.out, self.validate, self.info = stage, Path(out), validate, dict(info or {})
        self.device = next(model.parameters()).device
        self.optimizers = optimizers(model, recipe.lr, recipe.muon_lr)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.losses: list[float] = []
        self.val_losses: list[tuple[int, float]] = []
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.resume_path = self.out.with_suffix(".resume.pt")
        if resume and self.resume_path.exists():
            self._load_state()

    # -- one step ------------------------------------------------------------------------------------------------

    def rate(self, step: int) -> float:
        """The share of the peak learning rate at a step: up over the warm-up, then down in a straight line."""
        if step < self.recipe.warmup:
            return (step + 1) / self.recipe.warmup
        return (self.recipe.steps - step) / max(1, self.recipe.steps - self.recipe.warmup)

    def train_step(self) -> float:
        """One batch, one update; returns its loss in nats."""
        ids, targets = (part.to(self.device, non_blocking=True) for part in self.batch(self.step))
        loss = self.model.loss(ids, targets)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * self.rate(self.step)
            optimizer.step()
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value} at step {self.step}: try a lower learning rate; the last good state "
                           f"is {self.resume_path} ({'saved' if self.resume_path.exists() else 'not saved yet'})")
        self.step += 1
        self.tokens += ids.numel()
        self.losses.append(value)
        return value

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        """Train to the end, show the progress, write the checkpoint; returns its path.

        Ctrl-C (or SIGTERM) finishes the step, saves the state and raises Interrupted.
        """
        self.model.train()
        if self.step:
            print(f"resumed at step {self.step} of {self.recipe.steps}")
        recent = self.losses[-1] if self.losses else math.nan
        with _signals() as stopped, open(self.out.with_suffix(".jsonl"), "a" if self.step else "w") as log, \
                tqdm(total=self.recipe.steps, initial=self.step, desc=self.stage, unit="step", mininterval=0.5) as bar:
            while self.step < self.recipe.steps:
                started, tokens = time.perf_counter(), self.tokens
                value = self.train_step()
                took = time.perf_counter() - started
                self.seconds += took
                recent = value if math.isnan(recent) else 0.95 * recent + 0.05 * value
                entry = {"step": self.step, "loss": value, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
                if self.validate and (self.step % self.recipe.eval_every == 0 or self.step == self.recipe.steps):
                    entry["val_loss"] = self.evaluate()
                log.write(json.dumps(entry) + "\n")
                bar.set_postfix_str(f"loss {recent:.3f}, {(self.tokens - tokens) / took:,.0f} tokens/s"
                                    + (f", val {self.val_losses[-1][1]:.3f}" if self.val_losses else ""), refresh=False)
                bar.update()
                if stopped:
                    log.flush()
                    self._save_state()
                    tqdm.write(f"stopped at step {self.step}; the state is saved, go on with --resume", file=sys.stderr)
                    raise Interrupted(130)
                if self.step % self.recipe.save_every == 0:
                    self._save_state()
        self.model.eval()
        checkpoint.save(self.out, self.model, self.bpe, self.stage, self.summary())
        self.resume_path.unlink(missing_ok=True)
        self.plot()
        return self.out

    def evaluate(self) -> float:
        """The validation loss, which is also kept."""
        assert self.validate is not None
        self.model.eval()
        with torch.no_grad():
            value = self.validate(self.model)
        self.model.train()
        self.val_losses.append((self.step, value))
        return value

    def summary(self) -> dict:
        """What the checkpoint says about its training."""
        return {**self.info, "recipe": asdict(self.recipe), "steps": self.step, "tokens": self.tokens,
                "seconds": self.seconds, "first_loss": self.losses[0], "last_loss": sum(self.losses[-50:]) / len(self.losses[-50:]),
                "val_losses": [list(pair) for pair in self.val_losses], "device": str(self.device),
                "torch": str(torch.__version__), "python": platform.python_version()}

    def plot(self) -> Path:
        """A picture of the loss over the steps, beside the checkpoint."""
        from matplotlib.figure import Figure
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        axes.plot(range(1, self.step + 1), self.losses, linewidth=0.6, label="training")
        if self.val_losses:
            axes.plot(*zip(*self.val_losses, strict=True), marker="o", label="validation")
        axes.set(xlabel="step", ylabel="loss (nats per token)", title=f"{self.stage}: {self.model.n_params():,} parameters")
        axes.legend()
        path = self.out.with_suffix(".png")
        figure.savefig(path, dpi=110, bbox_inches="tight")
        return path

    # -- state to resume from ------------------------------------------------------------------------------------

    def _save_state(self) -> None:
        checkpoint.save_atomic({
            "recipe": asdict(self.recipe), "model": self.model.state_dict(), "step": self.step, "tokens": self.tokens,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "seconds": self.seconds,
            "losses": self.losses, "val_losses": self.val_losses, "rng": torch.get_rng_state()}, self.resume_path)

    def _load_state(self) -> None:
        state = torch.load(self.resume_path, map_location="cpu", weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{self.resume_path} belongs to a run with other settings; delete it or start without --resume\n"
                             f"  saved: {state['recipe']}\n  now:   {asdict(self.recipe)}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.losses, self.val_losses = state["losses"], state["val_losses"]
        torch.set_rng_state(state["rng"])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that a SIGINT or SIGTERM puts its number into; the second Ctrl-C acts at once, as usual."""
    caught: list[int] = []

    def note(number: int, _frame) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that the three stages have in common."""
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, help="number of updates (default: the preset's)")
    group.add_argument("--seed", type=int, default=1, help="seed of weights and data (default: %(default)s)")
    group.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default: %(default)s)")
    group.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    group.add_argument("--out", type=Path, help="the checkpoint to write (default: out/ beside this script)")


def chosen(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line asked for: its seed, and its number of steps where one is given."""
    return replace(recipe, seed=args.seed, steps=args.steps or recipe.steps)
