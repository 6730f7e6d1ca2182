"""The agent's tools: calc, over a parsed syntax tree with limits, and lookup, over the knowledge base. Never eval.

Run:         python tools.py "calc(1234 + 5678)"
             python tools.py "lookup(capital of Mongolia)"

A tool takes the text between the brackets and returns one line of text, or raises ToolError with a sentence that the
model and the reader can use. Case, articles and near spellings are the tool's work, so that the model only has to copy.

What it leaves out: units and dates; a tool that reaches another host.
"""

import ast
import difflib
import math
import operator
import re
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

FACTS = Path(__file__).resolve().parent.parent / "data" / "facts.tsv"

MAX_EXPRESSION = 200                                           # characters
MAX_DIGITS = 60                                                # of any number on the way


class ToolError(Exception):
    """A tool that could not answer; the message is one plain sentence without a full stop."""


# -- calc ------------------------------------------------------------------------------------------------------------

def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent: exact where the result is short, else in floating point, whose cost does not grow."""
    digits = abs(exponent) * math.log10(max(abs(base.numerator), base.denominator))
    if exponent.denominator == 1 and digits <= MAX_DIGITS:
        return base**exponent.numerator
    value = float(base) ** float(exponent)
    if isinstance(value, complex):
        raise ToolError("that has no real value")
    return Fraction(value)


BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
          ast.Mod: operator.mod, ast.Pow: _power}
UNARY = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def calc(expression: str) -> str:
    """The value of an arithmetic expression: + - * / % **, brackets, numbers. "1234 + 5678" -> "6912".

    It calculates with fractions, so 0.3 % 0.1 is 0 and whole results are exact; others are rounded to six decimals.
    Raises ToolError for anything else, for division by zero, and for numbers of more than MAX_DIGITS digits (powers are
    checked before the work is done, so time is bounded too).
    """
    if len(expression) > MAX_EXPRESSION:
        raise ToolError(f"the expression is longer than {MAX_EXPRESSION} characters")
    thousands = r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\w,])"                             # 1,234,567 but not 12,34
    plain = re.sub(thousands, lambda number: number[0].replace(",", ""), expression.strip())
    plain = plain.replace("^", "**").replace("\u00d7", "*").replace("\u00f7", "/").replace("\u2212", "-")
    plain = re.sub(r"(?<![\w.])0+(?=\d)", "", plain)                                   # 007 -> 7, as people mean it
    try:
        tree = ast.parse(plain, mode="eval")
        return _show(_value(tree.body))
    except ToolError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError("that is no sum that I can read") from None
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the number is too large") from None


def _value(node: ast.expr) -> Fraction:
    """The value of one node of the syntax tree; only numbers and the operators above exist."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if node.value == math.inf:                             # 1e999
            raise ToolError("the number is too large")
        return _bounded(Fraction(str(node.value)))             # 0.1 is a tenth, not the float nearest to it
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return _bounded(BINARY[type(node.op)](_value(node.left), _value(node.right)))
    raise ToolError("that is no sum that I can read")


def _bounded(value: Fraction) -> Fraction:
    if abs(value) >= 10**MAX_DIGITS:
        raise ToolError("the number is too large")
    return value


def _show(value: Fraction) -> str:
    millionths = round(value * 10**6)
    whole, rest = divmod(abs(millionths), 10**6)
    return ("-" if millionths < 0 else "") + f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


# -- lookup ----------------------------------------------------------------------------------------------------------

NOTHING_FOUND = "nothing found"
_DROPPED = {"the", "a", "an"}
_LINKS = {"of", "in", "on", "for", "to", "at"}                 # "river in Africa" and "river of Africa" are one key


def normalise(query: str) -> str:
    """A query as the knowledge base keeps its keys: lower case, no articles, no punctuation, one link word.

    "The  Capital of the Gambia?" -> "capital of gambia"
    """
    words = [word.strip("'-") for word in re.sub(r"[^\w\s'+-]", " ", query.lower().replace("\u2019", "'")).split()]
    return " ".join("of" if word in _LINKS else word for word in words if word and word not in _DROPPED)


class Knowledge:
    """A knowledge base: facts (relation, subject, value), found by "relation of subject" however it is spelled.

    aliases: other names of a subject, such as {"USA": "United States"}.
    """

    def __init__(self, facts: Sequence[tuple[str, str, str]], aliases: dict[str, str] | None = None):
        self.facts: dict[str, dict[str, str]] = {}             # relation -> subject -> value, keys normalised
        for relation, subject, value in facts:
            self.facts.setdefault(normalise(relation), {})[normalise(subject)] = value
        self.aliases = {normalise(alias): normalise(name) for alias, name in (aliases or {}).items()}

    def lookup(self, query: str) -> str:
        """The value that the query names, or NOTHING_FOUND. A misspelt query finds the one key close to it, if one is."""
        key = normalise(query)[:MAX_EXPRESSION]
        # "number of days of week": the link that parts relation and subject may be any of them.
        cuts = [(key[: m.start()], key[m.end() :]) for m in re.finditer(" of ", key)]
        for relation, subject in cuts:
            subjects = self.facts.get(relation, {})
            for name in (subject, self.aliases.get(subject)):
                if name in subjects:
                    return subjects[name]
        for relation, subject in cuts:
            near = relation if relation in self.facts else _only_close(relation, self.facts)
            subjects = self.facts[near] if near else {}
            known = [name for name in (subject, self.aliases.get(subject)) if name in subjects]
            if name := known[0] if known else _only_close(subject, subjects):
                return subjects[name]
        return NOTHING_FOUND


def _only_close(word: str, known: Iterable[str]) -> str | None:
    """The one known key that differs from the word by about one letter in eight, None if there are none or several."""
    found = difflib.get_close_matches(word, known, n=2, cutoff=0.87) if len(word) >= 4 else []
    return found[0] if len(found) == 1 else None


def read_facts(path: str | Path = FACTS) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """The facts file -> (facts, aliases). Lines are relation, subject, value, parted by tabs; # starts a comment.

    Raises ValueError with the line's number for a line of another form.
    """
    facts, aliases = [], {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != 3 or not all(column.strip() for column in columns):
            raise ValueError(f"{path}, line {number}: expected relation, subject and value parted by tabs: {line!r}")
        relation, subject, value = columns
        if relation == "alias":
            aliases[subject] = value
        else:
            facts.append((relation, subject, value))
    return facts, aliases


@cache
def default_knowledge() -> Knowledge:
    """The bundled knowledge base."""
    return Knowledge(*read_facts())


# -- calling ---------------------------------------------------------------------------------------------------------

def default_tools() -> dict:
    """Name -> function of every tool that the agent has."""
    return {"calc": calc, "lookup": default_knowledge().lookup}


def run_tool(call: str, tools: dict) -> str:
    """Run "name(arguments)" and return what the tool says; a tool that fails says "error: ..." instead of raising."""
    match = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", call, re.DOTALL)
    if not match:
        return "error: that is no call of a tool"
    name, arguments = match.groups()
    if name not in tools:
        return f"error: there is no tool {name}"
    try:
        return tools[name](arguments)
    except ToolError as error:
        return f"error: {error}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit('usage: python tools.py "calc(1234 + 5678)"')
    print(run_tool(sys.argv[1], default_tools()))
