"""Measures the whole chain on this machine, as a user sees it: from no weights to a ready chat, and how fast it answers.

Run:         python reports/measure_chain.py            removes what is trained, trains again (minutes), writes the results
             python reports/measure_chain.py --keep     keeps what is trained and measures the rest

Writes reports/results/chain-<machine>.json.
"""

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time

import torch

import checkpoint
import tokenizer
from engine import Engine, Finished, Request
from model import GPT
from results import RESULTS, ROOT, machine_name, write_result

CHECKPOINTS = {"base": "00_train/out/base.pt", "sft": "00b_sft/out/sft.pt", "agent": "00c_agent_sft/out/agent.pt"}
PORTS = ["--model-port", "9317", "--web-port", "8317"]
REPEATS = 7


def seconds_until_ready() -> float:
    """Start the demo, wait for the line that says it is ready, stop it."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "scripts/demo.py", *PORTS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("Ready"):
                return time.perf_counter() - started
        raise SystemExit(f"the demo ended with status {process.wait()} before it was ready")
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)


def step_difference(model: GPT) -> dict[str, float]:
    """The largest difference between one forward pass and token-by-token steps, and the largest logit beside it."""
    bpe = tokenizer.load()
    ids = torch.tensor([bpe.encode("Q: What is 1234 plus 5678?\nTHOUGHT: I calculate this.\nACTION: calc(1234 + 5678)\n")])
    with torch.no_grad():
        full, cache, rows = model(ids), None, []
        for t in range(ids.size(1)):
            logits, cache = model.step(ids[:, t : t + 1], cache)
            rows.append(logits)
    return {"difference": float((torch.cat(rows, 1) - full).abs().max()), "largest_logit": float(full.abs().max())}


def speeds() -> dict:
    """Tokens per second of prefill and decode, one request, median over repeats."""
    engine = Engine.load(str(ROOT / CHECKPOINTS["agent"]), "cpu")
    torch.set_num_threads(1)
    prompt = "Q: " + "one two three four five six seven eight nine ten " * 4 + "\n"
    runs = []
    for _ in range(REPEATS + 1):
        finished = [event for event in engine.generate(Request(prompt, max_tokens=100, temperature=1.0, seed=1))][-1]
        assert isinstance(finished, Finished)
        runs.append({"prompt_tokens": finished.prompt_tokens, "prefill_seconds": finished.prefill,
                     "tokens": finished.completion_tokens, "decode_seconds": finished.decode})
    runs = runs[1:]                                            # the first one warms up
    return {"repeats": runs, "threads": 1,
            "prefill_tokens_per_second": statistics.median(r["prompt_tokens"] / r["prefill_seconds"] for r in runs),
            "decode_tokens_per_second": statistics.median(r["tokens"] / r["decode_seconds"] for r in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="do not train again")
    args = parser.parse_args()
    values: dict = {}
    before = RESULTS / f"chain-{machine_name()}.json"
    if args.keep and before.exists():
        values["first_demo_seconds"] = json.loads(before.read_text())["first_demo_seconds"]
    if not args.keep:
        for path in CHECKPOINTS.values():
            shutil.rmtree((ROOT / path).parent, ignore_errors=True)
        values["first_demo_seconds"] = seconds_until_ready()
    values["next_demo_seconds"] = seconds_until_ready()
    stages = {}
    for name, path in CHECKPOINTS.items():
        model, _, info = checkpoint.load(ROOT / path)
        training = info["training"]
        stages[name] = {key: training[key] for key in ("steps", "tokens", "seconds", "first_loss", "last_loss")}
        stages[name]["validation_loss"] = training["val_losses"][-1][1]
        values["parameters"], values["config"] = model.n_params(), vars(model.config)
    torch.manual_seed(0)
    steps = {"random_weights": step_difference(GPT(model.config).eval()), "agent": step_difference(model)}
    path = write_result("chain", {**values, "stages": stages, "step_against_forward": steps, "engine": speeds()})
    print(path.read_text())


if __name__ == "__main__":
    main()
