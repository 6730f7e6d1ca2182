"""The training loop: it learns, it resumes exactly, it can be interrupted, it notices when it breaks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

import checkpoint
import tokenizer
from model import GPT, GPTConfig
from muon import Muon, optimizers, orthogonalize
from rows import Rows, pad_batch
from trainer import Diverged, Recipe, Trainer

SMALL = GPTConfig(vocab_size=1024, block_size=16, n_layer=2, n_head=2, n_embd=32)


def batch(step: int):
    rng = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 50, (4, 17), generator=rng)
    return ids[:, :-1], ids[:, 1:]


def make(out: Path, steps: int = 12, resume: bool = False, **recipe) -> Trainer:
    torch.manual_seed(0)
    return Trainer(GPT(SMALL), tokenizer.load(), recipe.pop("batch", batch), Recipe(steps=steps, warmup=2, save_every=5, **recipe),
                   stage="base", out=out, resume=resume)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 5), (2, 5, 16)])
def test_orthogonalize_against_svd(shape):
    """Bug: an update that is not the orthogonal factor U V^T of the momentum, for square, tall and wide matrices."""
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = torch.linspace(0.3, 3.0, u.size(-1))
    x = orthogonalize(u @ torch.diag_embed(spread.expand(u.size(0), -1)) @ vt, steps=8)
    singular = torch.linalg.svdvals(x)
    assert singular.min() > 0.6 and singular.max() < 1.3
    same = torch.einsum("nir,nij,njr->nr", u, x, vt.mT)        # the directions are kept: U^T X V is diagonal
    assert torch.allclose(same, torch.diagonal(u.mT @ x @ vt.mT, dim1=1, dim2=2), atol=1e-4)
    off = u.mT @ x @ vt.mT - torch.diag_embed(same)
    assert off.abs().max() < 1e-3


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    """Bug: a parameter that no optimizer moves, or that two do."""
    model = GPT(SMALL)
    adam, muon = optimizers(model, 1e-3, 0.02)
    ours = [p for group in muon.param_groups for p in group["params"]]
    rest = [p for group in adam.param_groups for p in group["params"]]
    assert isinstance(muon, Muon) and all(p.dim() == 2 for p in ours)
    assert len(ours) == 4 * SMALL.n_layer
    assert {id(p) for p in ours} | {id(p) for p in rest} == {id(p) for p in model.parameters()}
    assert not {id(p) for p in ours} & {id(p) for p in rest}


@pytest.mark.parametrize("muon_lr", [0.02, None])
def test_overfits_one_batch(tmp_path, muon_lr):
    """Bug: gradients or updates of the wrong sign or size: a model that cannot learn a single batch by heart."""
    trainer = make(tmp_path / "m.pt", steps=150, muon_lr=muon_lr, lr=3e-3, batch=lambda step: batch(0))
    trainer.run()
    assert trainer.losses[0] > 5.5 and trainer.losses[-1] < 0.3


def test_resume_is_exact(tmp_path):
    """Bug: a resumed run that loses optimizer state, position or learning rate: its losses must be the same bits."""
    whole = make(tmp_path / "whole.pt")
    whole.run()
    first = make(tmp_path / "cut.pt")
    for _ in range(7):
        first.train_step()
    first._save_state()
    second = make(tmp_path / "cut.pt", resume=True)
    assert second.step == 7
    second.run()
    assert second.losses == whole.losses
    one, other = checkpoint.load(tmp_path / "whole.pt")[0], checkpoint.load(tmp_path / "cut.pt")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not (tmp_path / "cut.resume.pt").exists()


def test_resume_refuses_other_settings(tmp_path):
    """Bug: a run that goes on silently with another recipe."""
    trainer = make(tmp_path / "m.pt")
    trainer.train_step()
    trainer._save_state()
    with pytest.raises(ValueError, match="other settings"):
        make(tmp_path / "m.pt", steps=99, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_loses_nothing(tmp_path, number):
    """Bug: Ctrl-C that throws the work away, or a log that ends in half a line."""
    script = textwrap.dedent("""
        import sys, torch, tokenizer
        from pathlib import Path
        from model import GPT, GPTConfig
        from trainer import Recipe, Trainer
        def batch(step):
            print("step", step, flush=True)
            ids = torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(step))
            return ids[:, :-1], ids[:, 1:]
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=1024, block_size=16, n_layer=2, n_head=2, n_embd=32))
        Trainer(model, tokenizer.load(), batch, Recipe(steps=100000), stage="base", out=Path(sys.argv[1])).run()
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "m.pt")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for line in process.stdout:
        if line.strip() == "step 30":
            break
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    state = torch.load(tmp_path / "m.resume.pt", weights_only=True)
    log = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert state["step"] == len(state["losses"]) == len(log) >= 30
    assert [entry["loss"] for entry in log] == state["losses"]


def test_a_broken_loss_stops_the_run(tmp_path):
    """Bug: training on through NaN and saving a checkpoint of garbage."""
    trainer = make(tmp_path / "m.pt")
    with torch.no_grad():
        trainer.model.wte.weight[3] = float("nan")
    with pytest.raises(Diverged, match="step 0"):
        trainer.run()
    assert not (tmp_path / "m.pt").exists()


def test_checkpoint_tells_its_training(tmp_path):
    """Bug: a checkpoint that does not say what it is."""
    trainer = make(tmp_path / "m.pt")
    trainer.run()
    _, _, info = checkpoint.load(tmp_path / "m.pt")
    training = info["training"]
    assert info["stage"] == "base" and training["steps"] == 12 and training["tokens"] == 12 * 4 * 16
    assert {"recipe", "seconds", "first_loss", "last_loss", "device", "torch"} <= set(training)
    assert (tmp_path / "m.png").stat().st_size > 5000


def test_padding_changes_nothing():
    """Bug: padded places that carry loss or are attended to: the loss of a padded batch is that of its rows."""
    torch.manual_seed(0)
    model = GPT(SMALL)
    rows = [([1, 2, 3], [-1, 3, 4]), ([5, 6, 7, 8, 9], [6, -1, 8, 9, 1])]
    ids, targets = pad_batch(rows)
    alone = [torch.nn.functional.cross_entropy(model(torch.tensor([r]))[0], torch.tensor(t), ignore_index=-1, reduction="sum")
             for r, t in rows]
    assert torch.allclose(model.loss(ids, targets), sum(alone) / 6, atol=1e-6)


def test_rows_gives_every_row_once_an_epoch():
    """Bug: rows that are never drawn, drawn twice, or another order after a resume."""
    rows = [([i] * (1 + i % 7), [i] * (1 + i % 7)) for i in range(101)]
    source = Rows(rows, 10, seed=3)
    drawn = [int(row[0]) for step in range(10) for row in source.batch(step)[0]]
    assert len(set(drawn)) == 100
    fresh = Rows(rows, 10, seed=3)
    for step in (17, 3, 12):
        assert torch.equal(fresh.batch(step)[0], source.batch(step)[0])
    assert [int(r[0]) for r in source.batch(10)[0]] != [int(r[0]) for r in source.batch(0)[0]]


def test_windows_are_the_text(tmp_path):
    """Bug: targets that are not the ids moved by one, or windows past the end of the file."""
    import importlib.util

    import numpy as np
    spec = importlib.util.spec_from_file_location("pretraining", Path(__file__).parents[1] / "00_train" / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    np.arange(500, dtype=np.uint16).tofile(tmp_path / "t.bin")
    windows = script.Windows(tmp_path / "t.bin", 6, 32, seed=1)
    for step in range(200):
        ids, targets = windows.batch(step)
        assert torch.equal(ids + 1, targets) and targets.max() <= 499 and ids.shape == (6, 32)
    assert torch.equal(windows.batch(5)[0], script.Windows(tmp_path / "t.bin", 6, 32, seed=1).batch(5)[0])
    started = time.perf_counter()
    assert sum(1 for _ in windows.whole()) == 15 and time.perf_counter() - started < 5
