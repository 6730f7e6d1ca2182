"""Checkpoints: enough to talk to the model, safe to open, never half written."""

import errno
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch

import checkpoint
import tokenizer
from bpe import BPE
from model import GPT, GPTConfig

CONFIG = GPTConfig(vocab_size=262, block_size=12, n_layer=2, n_head=2, n_embd=16)
TRAINING = {"preset": "tiny", "seed": 1, "steps": 10, "tokens": 640, "losses": [6.9, 0.1 + 0.2],
            "val_losses": [[5, 3.0]], "seconds": 1.5, "device": "cpu", "versions": {"torch": "2.13.0"}, "note": None}


def make(seed: int = 0) -> tuple[GPT, BPE]:
    torch.manual_seed(seed)
    return GPT(CONFIG), BPE.train("low lower lowest newer newest 12 12", 262, "digits")


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "out" / "model.pt"
    checkpoint.save(path, *make(), "sft", TRAINING)
    return path


def test_round_trip(saved):
    """Bug: a weight, a setting or a number of the training that does not come back exactly."""
    model, bpe = make()
    again, its_bpe, info = checkpoint.load(saved)
    assert again.config == CONFIG and info == {"stage": "sft", "training": TRAINING}
    assert its_bpe.state() == bpe.state()
    for (name, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)
    assert not again.training                                  # ready to use
    ids = torch.tensor([its_bpe.encode("lowest 12")])
    with torch.no_grad():
        assert torch.equal(model.eval()(ids), again(ids))


def test_a_checkpoint_needs_no_other_file(saved, monkeypatch):
    """Bug: the file is moved to another machine and read with that machine's vocabulary."""
    def no_vocabulary(*_):
        raise AssertionError("the vocabulary was looked for outside the checkpoint")

    monkeypatch.setattr(tokenizer, "load", no_vocabulary)
    moved = saved.rename(saved.parent.parent / "elsewhere.pt")
    model, bpe, _ = checkpoint.load(moved)
    assert bpe.decode(bpe.encode("newest 12")) == "newest 12" and bpe.vocab_size == model.config.vocab_size


def test_weights_are_saved_in_full_and_from_any_precision(tmp_path):
    """Bug: a model trained in bfloat16, or one whose tensors carry gradients, gives a file of another kind."""
    model, bpe = make()
    checkpoint.save(tmp_path / "model.pt", model.bfloat16(), bpe, "base", {})
    stored = torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    assert {(t.dtype, t.requires_grad) for t in stored.values()} == {(torch.float32, False)}
    again, _, _ = checkpoint.load(tmp_path / "model.pt")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.wte.weight, model.wte.weight.float())


class RunsCode:
    """A value whose unpickling makes a file: what a hostile checkpoint would do, made visible."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_file_that_would_run_code_is_refused(saved, tmp_path):
    """Bug: torch.load without weights_only: opening a checkpoint from a stranger runs the stranger's program."""
    marker, hostile, plain = tmp_path / "it ran", tmp_path / "hostile.pt", tmp_path / "plain.pt"
    state = torch.load(saved, weights_only=True)
    torch.save({**state, "training": RunsCode(marker)}, hostile)
    plain.write_bytes(pickle.dumps(RunsCode(marker), protocol=2))
    for path in (hostile, plain):
        with pytest.raises(ValueError, match=f"{path.name} is no checkpoint that can be read safely"):
            checkpoint.load(path)
        assert not marker.exists()
    torch.load(hostile, weights_only=False)                    # the trap itself works
    assert marker.exists()


def test_a_missing_file_says_what_to_do(tmp_path):
    """Bug: a newcomer who starts the server before training gets a traceback from inside torch."""
    for path in (tmp_path / "none.pt", tmp_path):              # a folder is no checkpoint either
        with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*train one first"):
            checkpoint.load(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_a_clear_error(saved, share):
    """Bug: half a file (a copy that was broken off) loads half of the weights, or the error names no file."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model\.pt is no checkpoint"):
        checkpoint.load(saved)


def test_a_file_of_another_kind_is_a_clear_error(saved, tmp_path):
    """Bug: another program's weights, a later format or a state to resume from, read as a checkpoint of ours."""
    state = torch.load(saved, weights_only=True)
    later = {**state, "format": "query-to-flop checkpoint 99"}
    for other in ({}, {"model": state["model"]}, [1, 2], torch.zeros(3), later):
        torch.save(other, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other\.pt is not of format 'query-to-flop checkpoint 1'"):
            checkpoint.load(tmp_path / "other.pt")
    (tmp_path / "notes.pt").write_text("Dear diary")
    with pytest.raises(ValueError, match=r"notes\.pt is no checkpoint"):
        checkpoint.load(tmp_path / "notes.pt")


def test_a_damaged_checkpoint_is_a_clear_error(saved, tmp_path):
    """Bug: the right format with a part missing or misshapen raises KeyError: 'config' and names no file."""
    state = torch.load(saved, weights_only=True)
    bad = [{k: v for k, v in state.items() if k != missing} for missing in state if missing != "format"]
    for change in ({"n_embd": 32}, {"depth": 3}, {"n_head": 3}):
        bad.append({**state, "config": {**state["config"], **change}})
    bad += [{**state, "tokenizer": {"format": "other"}}, {**state, "tokenizer": None}, {**state, "model": {}}]
    assert len(bad) == 11
    for other in bad:
        torch.save(other, tmp_path / "damaged.pt")
        with pytest.raises(ValueError):
            checkpoint.load(tmp_path / "damaged.pt")


def test_a_failing_write_leaves_the_old_file_whole(saved, monkeypatch):
    """Bug: the disk is full at the end of an hour of training, and the last good checkpoint is gone as well."""
    before = saved.read_bytes()

    def disk_full(value, file, *args, **kwargs):
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", disk_full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(saved, *make(1), "agent", {})
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(saved.parent / "new.pt", *make(1), "agent", {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model.pt"]
    checkpoint.save(saved, *make(1), "agent", {})              # and the next write succeeds
    assert checkpoint.load(saved)[2]["stage"] == "agent"
    assert [p.name for p in saved.parent.iterdir()] == ["model.pt"]


def test_an_interrupted_write_cleans_up_too(saved, monkeypatch):
    """Bug: Ctrl-C in the middle of a save leaves a temporary file of the model's size behind."""
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(saved, *make(1), "agent", {})
    assert [p.name for p in saved.parent.iterdir()] == ["model.pt"]


def test_a_checkpoint_is_as_readable_as_any_new_file(saved):
    """Bug: a file that only its maker can open (as temporary files are made), so a server under another user cannot."""
    (saved.parent / "ordinary").write_text("")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE((saved.parent / "ordinary").stat().st_mode)


def test_an_unknown_stage_is_refused_before_anything_is_written(tmp_path):
    """Bug: a typing error in a stage's name is found when the file is read, after the training."""
    with pytest.raises(ValueError, match=r"base, sft, agent, not 'sfr'"):
        checkpoint.save(tmp_path / "out" / "model.pt", *make(), "sfr", {})
    assert not (tmp_path / "out").exists()
