"""Makes the training traces of the agent: every observation comes from the real tool.

Run:         python build_data.py                    81,000 traces in a few seconds -> out/traces.jsonl
             python build_data.py --show 10          print some and write nothing

A line holds the trace's segments [[text, learned], ...] (see prompts.py) and its category.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from prompts import prompt_text
from traces import MIX, Generator, draw

OUT = Path(__file__).resolve().parent / "out" / "traces.jsonl"
TRACES = 81_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=TRACES, help="how many traces (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other traces (default: %(default)s)")
    parser.add_argument("--show", type=int, metavar="N", help="print N traces and write nothing")
    args = parser.parse_args()
    generator = Generator(args.seed, "train")
    if args.show:
        for example in draw(generator, args.show):
            print(f"[{example.category}]\n{prompt_text(example.segments())}\n")
        return
    OUT.parent.mkdir(parents=True, exist_ok=True)
    temporary, counts = OUT.with_suffix(".tmp"), Counter()
    with open(temporary, "w", encoding="utf-8") as file, tqdm(total=args.count, desc="traces", unit="trace") as bar:
        for start in range(0, args.count, 1000):
            for example in draw(generator, min(1000, args.count - start)):
                file.write(json.dumps({"category": example.category, "segments": example.segments()}) + "\n")
                counts[example.category] += 1
                bar.update()
    temporary.replace(OUT)
    print(", ".join(f"{category} {counts[category]:,}" for category in MIX) + f" -> {OUT}")


if __name__ == "__main__":
    main()
