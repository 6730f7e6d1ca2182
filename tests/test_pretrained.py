"""GPT-2's weights in our class: what transformers saves we load, with equal logits, or with an error that says why not.

The run of 00b_sft/train_from_gpt2.py needs GPT-2's vocabulary files; test_bpe.py says where they are looked for.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_bpe import ROOT, gpt2_folder, vocabulary
from transformers import GPT2Config, GPT2LMHeadModel

import checkpoint
import pretrained
from model import GPT, GPTConfig

SHAPE = {"vocab_size": 73, "n_positions": 20, "n_layer": 3, "n_head": 2, "n_embd": 16}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def random_gpt2(**changes) -> GPT2LMHeadModel:
    """A GPT-2 of transformers with noise on every parameter, biases and gains included."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**SHAPE, **ENDS, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder as transformers' save_pretrained leaves it."""
    random_gpt2().save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def rewrite(folder: Path, change) -> None:
    """Put a changed dictionary of tensors in the place of the saved one."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors")


def set_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def assert_equal_logits(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    ids = torch.randint(SHAPE["vocab_size"], (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (ours(ids) - theirs(ids).logits).abs().max() < 1e-5
    assert not ours.training


def test_what_transformers_saves_gives_equal_logits(folder):
    """Bug: a matrix that is not transposed, or a wrong number of heads from config.json: fluent nonsense, no error."""
    ours = pretrained.from_pretrained(folder)
    assert ours.config == GPTConfig(vocab_size=73, block_size=20, n_layer=3, n_head=2, n_embd=16)
    assert_equal_logits(ours, random_gpt2())


def without_prefix(tensors: dict) -> dict:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_everything(tensors: dict) -> dict:
    """As OpenAI's weights on the hub (which keep the mask of each layer), with the tied matrix twice."""
    triangle = torch.ones(1, 1, 20, 20).tril()
    masks = {f"h.{i}.attn.{name}": triangle.clone() for i in range(3) for name in ("bias", "masked_bias")}
    return {**without_prefix(tensors), **masks, "lm_head.weight": tensors["transformer.wte.weight"].clone()}


@pytest.mark.parametrize("variant", [without_prefix, with_everything])
def test_other_layouts_of_the_same_tensors(folder, variant):
    """Bug: only one of the layouts that are in use loads: with or without the prefix, masks and output matrix."""
    rewrite(folder, variant)
    assert_equal_logits(pretrained.from_pretrained(folder), random_gpt2())


def test_half_precision_files_load_as_float32(folder):
    """Bug: a model that is half bfloat16 and half float32 and fails at the first matrix product."""
    rewrite(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    theirs = random_gpt2().bfloat16().float()
    assert_equal_logits(pretrained.from_pretrained(folder), theirs)


def test_the_setting_names_the_folder(folder, monkeypatch):
    """Bug: GPT2_WEIGHTS_DIR is set and half a gigabyte is downloaded all the same."""
    monkeypatch.setenv("GPT2_WEIGHTS_DIR", str(folder))
    monkeypatch.setattr(pretrained, "fetch", None)             # any attempt to download fails
    assert_equal_logits(pretrained.from_pretrained(), random_gpt2())


@pytest.mark.parametrize("change, message", [
    ({"model_type": "llama"}, r"config\.json describes a 'llama' model, not gpt2"),
    ({"activation_function": "relu"}, "activation_function is 'relu'"),
    ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"scale_attn_weights": False}, "scale_attn_weights is False"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"n_layer": 4}, r"do not fit .*n_layer=4.* 3 layers"), ({"n_layer": 2}, r"do not fit .*n_layer=2.* 3 layers"),
    ({"n_embd": 32}, "do not fit"), ({"vocab_size": 74}, "do not fit"), ({"n_positions": 21}, "do not fit"),
    ({"n_head": 3}, r"n_embd \(16\) must be a multiple of n_head \(3\)")], ids=str)
def test_a_config_of_another_model_is_refused(folder, change, message):
    """Bug: weights run with another arithmetic or another shape than they were trained with: wrong logits, no error."""
    set_config(folder, **change)
    with pytest.raises(ValueError, match=message):
        pretrained.from_pretrained(folder)


@pytest.mark.parametrize("change, message", [
    (lambda t: {n: x for n, x in t.items() if "h.1.mlp.c_fc.bias" not in n}, r"no tensor 'h\.1\.mlp\.c_fc\.bias'"),
    (lambda t: {n: x for n, x in t.items() if "wte" not in n}, r"no tensor 'wte\.weight'"),
    (lambda t: {n: x.t().contiguous() if "h.0.mlp.c_fc.weight" in n else x for n, x in t.items()}, "do not fit"),
    (lambda t: {"encoder.weight": torch.ones(2, 2)}, "0 layers")], ids=["bias", "wte", "transposed", "another model"])
def test_tensors_of_another_model_are_refused(folder, change, message):
    """Bug: KeyError: 'h.1.mlp.c_fc.bias', or a tensor that is missing keeps its random initial values."""
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        pretrained.from_pretrained(folder)


def test_missing_and_damaged_files_are_named(folder):
    """Bug: a pointer of git-lfs in the place of the weights ends in "header too large" and no file name."""
    weights = folder / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        pretrained.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        pretrained.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        pretrained.from_pretrained(folder)


# -- Tuning from such weights ----------------------------------------------------------------------------------------

def run_tuning(*arguments: str, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "train_from_gpt2.py", "--device", "cpu", *arguments], cwd=ROOT / "00b_sft",
                          env={**os.environ, **settings}, capture_output=True, text=True, timeout=240)


def test_train_from_gpt2_runs(tmp_path):
    """Bug: the script for real pretrained weights was never run because it needs them: here they are tiny."""
    bpe = vocabulary("gpt2")                                   # or skip
    shape = {"vocab_size": 50257, "n_positions": 64, "n_layer": 1, "n_head": 2, "n_embd": 16}
    random_gpt2(**shape).save_pretrained(tmp_path / "gpt2")
    out = tmp_path / "out" / "sft.pt"
    done = run_tuning("--weights", str(tmp_path / "gpt2"), "--steps", "2", "--out", str(out),
                      GPT2_VOCAB_DIR=str(gpt2_folder()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Before:" in done.stdout and "After:" in done.stdout and str(out) in done.stdout
    model, its_bpe, info = checkpoint.load(out)
    assert info["stage"] == "sft" and info["training"]["steps"] == 2 and info["training"]["preset"] == "gpt2"
    assert its_bpe.state() == bpe.state()
    start = pretrained.from_pretrained(tmp_path / "gpt2")
    assert model.config == start.config
    for (name, before), after in zip(start.named_parameters(), model.parameters(), strict=True):
        assert not torch.equal(before, after), f"{name} was not trained"
        assert (before - after).abs().max() < 0.01, f"{name} does not come from the given weights"


def test_train_from_gpt2_without_weights_says_so(tmp_path):
    """Bug: a traceback where a sentence would do: the folder that --weights names is empty."""
    done = run_tuning("--weights", str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("train_from_gpt2.py: ") and "config.json" in done.stderr
