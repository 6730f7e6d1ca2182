"""How good is the agent? Held-out questions through the real loop: server, agent loop and tools, category by category.

Run:         python evaluate.py                       1,200 held-out questions and the ten, about two minutes
             python evaluate.py --per-category 20     a quick look
             python evaluate.py --save                also write reports/results/agent-<machine>.json

A held-out question has a wording, and names or numbers, that training never draws. Its answer is right when it is exactly
what a right agent says; where nothing can be found or calculated, that is the honest sentence that says so.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from tqdm import tqdm

from agent_loop import run
from results import write_result
from tools import Knowledge, calc, default_knowledge
from traces import CATEGORIES, THE_TEN, Example, Generator, read_smalltalk

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent / "03_model" / "server.py"
AT_ONCE = 4


@contextlib.contextmanager
def serve(model: Path) -> Iterator[str]:
    """The inference server with this model in a process of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), "--model", str(model), "--port", str(port), "--threads", "1"],
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise SystemExit(f"the model server ended with status {process.returncode}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise SystemExit("the model server did not start within a minute")
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def answer(question: str, url: str, knowledge: Knowledge) -> dict:
    """What the agent does with a question: {"answer", "steps", "error"}."""
    texts, steps, problem = "", [], None
    async for event in run(question, model_url=url, tools={"calc": calc, "lookup": knowledge.lookup}):
        if event["type"] == "token":
            texts += event["v"]
        elif event["type"] in ("action", "observation"):
            if steps and steps[-1][0] == event["type"]:
                steps[-1][1] += event["v"]
            else:
                steps.append([event["type"], event["v"]])
        elif event["type"] == "error":
            problem = event["message"]
    return {"answer": texts.strip(), "steps": steps, "error": problem}


async def ask_all(examples: list[Example], url: str) -> list[dict]:
    """The agent's results for all the examples, a few at a time, in order."""
    places, bar = asyncio.Semaphore(AT_ONCE), tqdm(total=len(examples), desc="questions", unit="question")

    async def one(example: Example) -> dict:
        async with places:
            knowledge = Knowledge(example.facts) if example.facts else default_knowledge()
            result = await answer(example.question, url, knowledge)
            bar.update()
            return result

    with bar:
        return list(await asyncio.gather(*map(one, examples)))


def the_ten_right(question: str, expected: str, said: str) -> bool:
    """Whether an answer to one of the ten is right."""
    if not expected:                                           # small talk: the answer of its intent
        return said == read_smalltalk()["how_are_you"][0]
    return expected in said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "out" / "agent.pt", help="the agent (default: %(default)s)")
    parser.add_argument("--url", help="ask a server that runs already instead of starting one")
    parser.add_argument("--per-category", type=int, default=150, help="questions of each category (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed asks other questions (default: %(default)s)")
    parser.add_argument("--show", type=int, default=5, help="wrong answers to print for each category (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the result file")
    args = parser.parse_args()
    generator = Generator(args.seed, "heldout")
    examples = [generator.trace(category) for category in CATEGORIES for _ in range(args.per_category)]
    with serve(args.model) if not args.url else contextlib.nullcontext(args.url) as url:
        started = time.perf_counter()
        results = asyncio.run(ask_all(examples, url))
        seconds = time.perf_counter() - started
        ten = [(q, expected, asyncio.run(answer(q, url, default_knowledge()))["answer"]) for q, expected in THE_TEN]
    right = {category: 0 for category in CATEGORIES}
    wrong: dict[str, list] = {category: [] for category in CATEGORIES}
    for example, result in zip(examples, results, strict=True):
        if result["answer"] == example.answer and result["error"] is None:
            right[example.category] += 1
        else:
            wrong[example.category].append((example, result))
    for category in CATEGORIES:
        print(f"{category:12} {right[category]:4} of {args.per_category}  {right[category] / args.per_category:6.1%}")
        for example, result in wrong[category][: args.show]:
            print(f"    Q: {example.question}\n       {result['steps']} -> {result['answer']!r}"
                  f"{' error: ' + result['error'] if result['error'] else ''}; right: {example.answer!r}")
    total = sum(right.values())
    print(f"{'all':12} {total:4} of {len(examples)}  {total / len(examples):6.1%}   in {seconds:.0f} s\n\nthe ten:")
    ten_right = [the_ten_right(*one) for one in ten]
    for (question, _, said), fine in zip(ten, ten_right, strict=True):
        print(f"  {'right' if fine else 'WRONG'}  {question}  ->  {said}")
    print(f"  {sum(ten_right)} of {len(ten)}")
    if args.save:
        path = write_result("agent", {
            "questions": len(examples), "right": total, "per_category": args.per_category, "categories": right, "seconds": seconds,
            "seed": args.seed, "the_ten": [{"question": q, "answer": said, "right": fine}
                                           for (q, _, said), fine in zip(ten, ten_right, strict=True)]})
        print(f"saved {path}")


if __name__ == "__main__":
    main()
