"""Puts the measured results into the READMEs: tables and figures between <!-- begin:NAME --> and <!-- end:NAME -->.

Run:         python reports/render.py             write them
             python reports/render.py --check     only say whether they are up to date (exit status 1 if not)

Every number comes from a file in reports/results. Where there is no file yet, the block says so.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from gpu_tables import render_gpu

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "reports" / "results"


def result(what: str) -> dict | None:
    """The newest result of a kind, whatever machine it is from."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(f"{what}-*.json"))]
    return max(found, key=lambda r: r["date"]) if found else None


def source(measured: dict) -> str:
    """Where and when the numbers were measured."""
    machine = measured["machine"]
    where = machine.get("gpu") or f"{machine['cores']} cores of {machine['processor']}"
    return f"\nMeasured on {where}, {measured['date']}, with `{measured['command']}`.\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]) + "\n"


def stage(name: str) -> Callable[[dict], str]:
    """The table of one training stage."""
    def render(chain: dict) -> str:
        s = chain["stages"][name]
        return table(["steps", "tokens seen", "seconds", "first loss", "last loss", "validation loss"],
                     [[f"{s['steps']:,}", f"{s['tokens']:,}", f"{s['seconds']:.0f}",
                       f"{s['first_loss']:.3f}", f"{s['last_loss']:.4g}",
                       f"{s['validation_loss']:.4g}"]]) + source(chain)
    return render


def chain_summary(chain: dict) -> str:
    """The chain as the top README shows it."""
    total = sum(s["seconds"] for s in chain["stages"].values())
    rows = [["parameters of the tiny preset", f"{chain['parameters']:,}"],
            ["three stages of training, all weights from random", f"{total:.0f} s"]]
    if "first_demo_seconds" in chain:
        rows.append(["`make demo` after the install, from nothing to a ready chat", f"{chain['first_demo_seconds']:.0f} s"])
    rows += [["the next `make demo`", f"{chain['next_demo_seconds']:.1f} s"],
             ["cached step against full forward pass, fp32, random weights: largest difference of the logits",
              f"{chain['step_against_forward']['random_weights']['difference']:.1e}"],
             ["decode, one request, one thread", f"{chain['engine']['decode_tokens_per_second']:,.0f} tokens/s"]]
    return table(["what", "measured"], rows) + source(chain)


def transformer(chain: dict) -> str:
    """What layer 2 measured."""
    shape = chain["config"]
    return table(["layers", "heads", "width", "context", "vocabulary", "parameters"],
                 [[*(f"{shape[k]:,}" for k in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")),
                   f"{chain['parameters']:,}"]]) + "\n" + table(
                       ["step against forward, fp32", "largest difference of logits", "largest logit"],
                       [[name.replace("_", " "), f"{s['difference']:.1e}", f"{s['largest_logit']:.1f}"]
                        for name, s in chain["step_against_forward"].items()]) + source(chain)


def server(chain: dict) -> str:
    """What layer 6 measured."""
    e = chain["engine"]
    rows = [[phase, f"{e[f'{phase}_tokens_per_second']:,.0f}"] for phase in ("prefill", "decode")]
    return table(["one request, one thread", "tokens/s"], rows) + source(chain)


def agent(measured: dict) -> str:
    """Held-out questions by category."""
    per = measured["per_category"]
    rows = [[name, f"{right} of {per}", f"{right / per:.1%}"] for name, right in measured["categories"].items()]
    rows.append(["**all**", f"{measured['right']} of {measured['questions']}",
                 f"**{measured['right'] / measured['questions']:.1%}**"])
    return table(["held-out questions", "right", "share"], rows) + source(measured)


def ten(measured: dict) -> str:
    """The ten questions and what was answered."""
    rows = [[one["question"], one["answer"], "yes" if one["right"] else "**no**"] for one in measured["the_ten"]]
    return table(["question", "answer", "right"], rows) + source(measured)


BLOCKS: dict[str, tuple[str, Callable[[dict], str]]] = {
    "chain": ("chain", chain_summary), "base": ("chain", stage("base")), "sft": ("chain", stage("sft")),
    "agent-training": ("chain", stage("agent")), "transformer": ("chain", transformer), "server": ("chain", server),
    "gpu": ("gpu", render_gpu), "agent": ("agent", agent), "loop": ("agent", ten), "ten": ("agent", ten),
}


def rendered(text: str) -> str:
    """A README with its blocks filled in. Raises KeyError for a block that nobody renders."""
    def fill(match: re.Match) -> str:
        what, render = BLOCKS[match[1]]
        measured = result(what)
        body = render(measured) if measured else "Not measured yet.\n"
        return f"<!-- begin:{match[1]} -->\n{body}<!-- end:{match[1]} -->"

    return re.sub(r"<!-- begin:([\w-]+) -->\n.*?<!-- end:\1 -->", fill, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit with status 1 if a README is out of date")
    args = parser.parse_args()
    stale = []
    for path in [ROOT / "README.md", *sorted(ROOT.glob("0*/README.md"))]:
        text = path.read_text(encoding="utf-8")
        if (new := rendered(text)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not args.check:
                path.write_text(new, encoding="utf-8")
    print("up to date" if not stale else f"{'out of date' if args.check else 'rendered'}: {', '.join(stale)}")
    sys.exit(bool(stale and args.check))


if __name__ == "__main__":
    main()
