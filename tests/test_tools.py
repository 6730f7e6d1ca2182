"""The agent's tools: calc against fractions, lookup against the facts file itself, and what neither may ever do.

Run:         pytest tests/test_tools.py
"""

import re
import subprocess
import sys
import time
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tools
from tools import NOTHING_FOUND, Knowledge, ToolError, calc, default_tools, normalise, read_facts, run_tool

CANNOT_READ = "that is no sum that I can read"
TOO_LARGE = "the number is too large"


def refusal(expression: str) -> str:
    """What calc says against an expression; fails if it has a value."""
    with pytest.raises(ToolError) as refused:
        calc(expression)
    return str(refused.value)


def cpu_seconds(function, *arguments) -> float:
    """Processor time of this thread in one call, so that a busy machine does not matter; a ToolError is an answer."""
    began = time.thread_time()
    try:
        function(*arguments)
    except ToolError:
        pass
    return time.thread_time() - began


# -- calc against an oracle ------------------------------------------------------------------------------------------

# A tree is (text, value, strength); value None stands for a division by zero somewhere in it. A text needs brackets
# as an operand when its strength is lower than the operator's, or equal on the right-hand side.
OPERATORS = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2}


def remainder(a: Fraction, b: Fraction) -> Fraction:
    """a modulo b by its definition: what is left after taking b away a whole number of times, with b's sign."""
    return a - b * ((a / b).numerator // (a / b).denominator)


def join(parts: tuple) -> tuple[str, Fraction | None, int]:
    (left, a, left_strength), operator, (right, b, right_strength), space = parts
    strength = OPERATORS[operator]
    left = f"({left})" if left_strength < strength else left
    right = f"({right})" if right_strength <= strength else right
    value = None
    if a is not None and b is not None and not (operator in "/%" and b == 0):
        value = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b,
                 "%": lambda: remainder(a, b)}[operator]()
    return f"{left}{space}{operator}{space}{right}", value, strength


def minus(tree: tuple) -> tuple[str, Fraction | None, int]:
    text, value, strength = tree
    return f"-({text})" if strength < 4 else f"-{text}", None if value is None else -value, 3


WHOLE = st.integers(0, 9999).map(lambda n: (str(n), Fraction(n), 4))
DECIMAL = st.tuples(st.integers(0, 999), st.integers(0, 99)).map(
    lambda n: (f"{n[0]}.{n[1]:02d}", Fraction(n[0] * 100 + n[1], 100), 4))
TREE = st.recursive(WHOLE | DECIMAL, lambda inner: st.tuples(inner, st.sampled_from("+-*/%"), inner,
                                                             st.sampled_from(["", " "])).map(join) | inner.map(minus),
                    max_leaves=8)


def written(value: Fraction) -> str:
    """A fraction as the tool is to write it: rounded to six decimals (a tie to the even digit), no trailing zeros."""
    with localcontext() as context:
        context.prec = 2000
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        text = re.sub(r"\.?0+$", "", f"{exact.quantize(Decimal('0.000001'), ROUND_HALF_EVEN):f}")
    return "0" if text == "-0" else text


@settings(max_examples=400, deadline=None)
@given(TREE)
def test_calc_equals_fractions(tree):
    """Prevents: wrong precedence or brackets, digits lost to floating point, a wrong rounding, a crash on zero."""
    text, value, _ = tree
    if len(text) > tools.MAX_EXPRESSION:
        assert "longer than" in refusal(text)
    elif value is None:
        assert refusal(text) == "division by zero"
    else:
        assert calc(text) == written(value)


@pytest.mark.parametrize("text, value", [
    ("2 + 3 * 4", 2 + 3 * 4), ("(2 + 3) * 4", (2 + 3) * 4), ("2 * 3 ** 2", 2 * 3**2), ("-3 ** 2", -(3**2)),
    ("2 ** 3 ** 2", 2 ** (3**2)), ("10 - 4 - 3", 10 - 4 - 3), ("100 / 10 / 5", 2), ("100 / 10 * 5", 50),
    ("17 % 5 * 2", 17 % 5 * 2), ("-7 % 3", -7 % 3), ("7 % -3", 7 % -3), ("2 + -3", -1), ("2--3", 5), ("---4", -4),
    ("+5", 5), ("2 ^ 10", 2**10), ("(((7)))", 7), ("1234 + 5678", 6912), ("999999 * 999999", 999999**2),
    ("12345678901234567890 * 98765432109876543210", 12345678901234567890 * 98765432109876543210),
    ("2 ** 199", 2**199), ("(10 ** 17 + 1) / 2 * 2", 10**17 + 1), ("10 ** 40 + 1 - 10 ** 40", 1),
])
def test_whole_results_are_exact(text, value):
    """Prevents: Python's rules of precedence lost on the way, and 100000000000000000 for 10**17 + 1."""
    assert calc(text) == str(value)


@pytest.mark.parametrize("text, said", [
    ("1 / 3", "0.333333"), ("2 / 3", "0.666667"), ("-2 / 3", "-0.666667"), ("10 / 4", "2.5"),
    ("1 / 1000000", "0.000001"), ("1 / 10000000", "0"), ("-1 / 10000000", "0"), ("22 / 7 * 7", "22"),
    ("10 ** 20 / 3", "33333333333333333333.333333"), ("0.1 + 0.2", "0.3"), ("0.3 % 0.1", "0"), ("1 % 0.1", "0"),
    ("1.1 * 1.1", "1.21"), ("2.50 * 2", "5"), (".5 + .5", "1"), ("1.5e3", "1500"), ("2 ** -1", "0.5"),
    ("2 ** 0.5", "1.414214"), ("9 ** 0.5", "3"), ("27 ** (1/3)", "3"), ("1 ** 1000000", "1"), ("(-1) ** 999999", "-1"),
    ("0 ** 5", "0"), ("0 ** 0", "1"), ("0.5 ** 1000", "0"),
])
def test_decimals(text, said):
    """Prevents: 0.30000000000000004, "-0", and 0.1 as what is left of 0.3 % 0.1."""
    assert calc(text) == said


def test_compound_interest():
    """Prevents: a long power of a number near one refused as too large, when it is not."""
    assert calc("1000 * 1.004 ** 360") == written(1000 * Fraction(1004, 1000) ** 360)


@pytest.mark.parametrize("text, said", [
    ("1,234 + 5,678", "6912"), ("1,234,567 * 1", "1234567"), ("1,000.50 * 2", "2001"), ("(1,000)", "1000"),
    ("1_000 + 7", "1007"), ("6 \u00d7 7", "42"), ("84 \u00f7 2", "42"), ("50 \u2212 8", "42"), ("  40 + 2\t", "42"),
    ("007 + 1", "8"), ("0000", "0"), ("000.5", "0.5"), ("1.007", "1.007"), ("100 + 0", "100"), ("10.0 + 00010", "20"),
    ("1.5e007", "15000000"),
])
def test_spellings_of_numbers_and_signs(text, said):
    """Prevents: 1_000 read as 10, 1.007 as 1.7, and sums refused because of the signs that people write."""
    assert calc(text) == said


@pytest.mark.parametrize("text", [
    "12,34", "1,2345", "1234,567", "1.234,567", "1,234,", ",123", "1,,234", "1, 234", "12,345,67"])
def test_a_comma_in_another_place_is_refused(text):
    """Prevents: 1.234,567 (a German million and more) calculated as 1.234567 without a word."""
    assert refusal(text) == CANNOT_READ


# -- calc: what it refuses -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "", " ", "()", "two + 2", "x", "pi", "abs(3)", "(3)(4)", "(5).real", "a.b", "__import__('os')", "().__class__",
    "'a'", "'a' * 3", '"3"', "b'3'", "f'{1}'", "f'{9**9**9}'", "[1, 2]", "[1][0]", "{1: 2}", "{1}", "1, 2", "1 < 2",
    "1 == 1", "1 is 1", "1 and 2", "not 1", "~1", "1 if 1 else 2", "lambda: 1", "(lambda: 1)()", "[x for x in (1, 2)]",
    "(x := 1)", "x = 1", "1; 2", "7 // 2", "1 << 3", "1 | 2", "1 & 2", "6 @ 7", "1j", "True", "None", "...", "await 1",
    "yield 1", "*1", "1 +", "+", "(1", "1)", "1 2", "5 =", "0x", "1__0", "\u0661 + 1\0", "1\0", "\ud800", "print(1)",
    "1\n2",
])
def test_what_is_no_sum_is_refused(text):
    """Prevents: a tool that runs what a stranger typed, or that ends with Python's own exception."""
    assert refusal(text) == CANNOT_READ


@pytest.mark.parametrize("text", [
    "1 / 0", "1 % 0", "1.5 % 0", "0 ** -1", "0.0 ** -0.5", "1 / (2 - 2)", "5 / 0.00", "0 / 0"])
def test_division_by_zero_is_said(text):
    """Prevents: a ZeroDivisionError that ends the agent, or "infinity" as an answer."""
    assert refusal(text) == "division by zero"


@pytest.mark.parametrize("text", [
    "9**9**9", "9**9**9**9", "10**60", "-10**60", "10**59 * 10", "2**200", "99999**99999", "1.5**1e9", "1e999",
    "-1e999", "1e999 - 1e999", "1e308 * 10", "(10**59)**2.5", "9" * 61, "10**(10**59)", "0.1**-61", "2 ** 1e18",
    "(1/3) ** -(10**9)",
])
def test_huge_numbers_are_refused_at_once(text):
    """Prevents: 9**9**9, a number of 370 million digits, that keeps the server busy for hours; inf as an answer."""
    assert refusal(text) == TOO_LARGE
    assert cpu_seconds(calc, text) < 0.1


@pytest.mark.parametrize("text", ["(-8) ** (1/3)", "(-1) ** 0.5", "(-2.5) ** 1.5"])
def test_complex_results_are_refused(text):
    """Prevents: a complex number that breaks the comparison with the largest one."""
    assert refusal(text) == "that has no real value"


def test_the_largest_numbers_are_still_calculated():
    """Prevents: a limit that begins one digit too early."""
    nines = "9" * tools.MAX_DIGITS
    assert calc(nines) == nines and calc(f"{nines} - 1") == f"{'9' * (tools.MAX_DIGITS - 1)}8"
    assert refusal(f"{nines} + 1") == TOO_LARGE
    assert calc("1" + "+1" * 99 + " ") == "100"                # exactly MAX_EXPRESSION characters


@pytest.mark.parametrize("text", [
    "1" + "+1" * 5000, "(" * 10_000 + "1" + ")" * 10_000, "-" * 10**6, " " * 10**6 + "1"], ids="+( 1")
def test_very_long_input_is_refused_at_once(text):
    """Prevents: a parser driven to its knees, or out of its stack, by length alone."""
    assert "longer than 200 characters" in refusal(text)
    assert cpu_seconds(calc, text) < 0.1


@pytest.mark.parametrize("text, said", [
    ("(" * 95 + "7" + ")" * 95, "7"), ("-" * 198 + "7", "7"), ("-(" * 66 + "7" + ")" * 66, "7"),
    ("+".join(["1"] * 100), "100"), ("2**" * 60 + "1", None), ("1/" * 99 + "0", None)])
def test_deep_nesting(text, said):
    """Prevents: a RecursionError or MemoryError of the parser that reaches the caller."""
    assert len(text) <= tools.MAX_EXPRESSION
    if said is None:
        refusal(text)
    else:
        assert calc(text) == said


SOUP = st.text(alphabet="0123456789+-*/%^().,_eEjx ='\"\u00d7\u00f7\u2212\n\t#@<[{:\\", max_size=60)
PARTS = st.sampled_from(["9", "0.1", "(-7)", "1e9", "10", "0", "**", "**-", "*", "/", "%", "-"])
POWERS = st.lists(PARTS, max_size=25).map("".join)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@settings(max_examples=600, deadline=None)
@given(SOUP | POWERS | st.text(max_size=250) | st.characters().map(lambda c: f"1{c}2"))
def test_no_text_breaks_calc(text):
    """Prevents: any input at all that raises something else than ToolError, or that takes longer than a second."""
    began = time.thread_time()
    try:
        assert re.fullmatch(r"-?\d{1,60}(\.\d{0,5}[1-9])?", calc(text), re.ASCII)
    except ToolError as refused:
        assert str(refused) and "\n" not in str(refused)
    assert time.thread_time() - began < 1


# -- lookup ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bundled() -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    return read_facts()


@pytest.fixture(scope="module")
def knowledge(bundled) -> Knowledge:
    return Knowledge(*bundled)


def test_every_fact_is_found_by_its_own_key(bundled, knowledge):
    """Prevents: facts that hide each other, or keys that the normalising of queries makes unreachable."""
    facts, _ = bundled
    assert len(facts) >= 1000
    lost = [fact for fact in facts if knowledge.lookup(f"{fact[0]} of {fact[1]}") != fact[2]]
    assert not lost


def test_every_fact_is_found_however_it_is_asked(bundled, knowledge):
    """Prevents: a query in capitals, with articles, a question mark, quotes or another link word that finds nothing."""
    facts, _ = bundled
    shapes = ["The {0} of the {1}?", "{0} in {1}", " {0}  for  {1} ! ", "'{0} of {1}'", '"{0} of {1}"', "{0} - of {1}."]
    lost = [(fact, shape) for number, fact in enumerate(facts) for shape in [shapes[number % len(shapes)]]
            if knowledge.lookup(shape.format(fact[0].upper(), fact[1].upper())) != fact[2]]
    assert not lost


def test_every_alias_finds_what_its_name_finds(bundled, knowledge):
    """Prevents: an alias of a name that no fact has, and an alias that is followed for some relations only."""
    facts, aliases = bundled
    names = {name for _, name, _ in facts}
    assert aliases and set(aliases.values()) <= names
    for alias, name in aliases.items():
        for relation, subject, value in facts:
            if subject == name:
                assert knowledge.lookup(f"{relation} of {alias}") == value


SMALL = Knowledge([("capital", "Northland", "A"), ("capital", "Northlend", "B"), ("capital", "Ruritania", "Strelsau"),
                   ("highest mountain", "Ruritania", "Zenda"), ("number of days", "week", "7"),
                   ("meaning", "proof of concept", "a trial"), ("capital", "Oz", "Emerald City")],
                  {"RU": "Ruritania", "Kingdom of Ruritania": "Ruritania"})


@pytest.mark.parametrize("query, value", [
    ("capital of Ruritania", "Strelsau"), ("CAPITAL OF RURITANIA", "Strelsau"),
    ("the capital of the Ruritania", "Strelsau"), ("capital in Ruritania", "Strelsau"),
    ("capital for ruritania???", "Strelsau"), ("capital of RU", "Strelsau"),
    ("capital of the kingdom of Ruritania", "Strelsau"), ("number of days in a week", "7"),
    ("number of days of week", "7"), ("meaning of proof of concept", "a trial"), ("capital of Northland", "A"),
    ("capital of Northlend", "B"), ("capital of Ruritanea", "Strelsau"), ("capital of Rurtania", "Strelsau"),
    ("capital of Ruritanias", "Strelsau"), ("highest montain of Ruritania", "Zenda"),
    ("higest mountain in Ruritanai", "Zenda"), ("highest montain of RU", "Zenda"),
    ("capital of Northlind", NOTHING_FOUND),                   # as near to Northland as to Northlend
    ("capital of Gondor", NOTHING_FOUND), ("capital of Ooz", NOTHING_FOUND), ("king of Ruritania", NOTHING_FOUND),
    ("capital", NOTHING_FOUND), ("Ruritania", NOTHING_FOUND), ("of", NOTHING_FOUND), ("capital of", NOTHING_FOUND),
    ("of Ruritania", NOTHING_FOUND), ("", NOTHING_FOUND), ("???", NOTHING_FOUND), ("the", NOTHING_FOUND),
    ("capital of week", NOTHING_FOUND), ("capital Ruritania", NOTHING_FOUND),
])
def test_what_a_query_finds(query, value):
    """Prevents: a guess between two near keys, a value of another subject, and near misses that look silly."""
    assert SMALL.lookup(query) == value


def test_a_misspelt_name_never_finds_another_one(bundled, knowledge):
    """Prevents: a slip of one letter answered with another country's capital."""
    capitals = {subject: value for relation, subject, value in bundled[0] if relation == "capital"}
    names = {normalise(name) for name in [*capitals, *bundled[1]]}
    slips = [(subject, subject[:i] + subject[i + 1 :]) for subject in capitals for i in range(len(subject))]
    slips = [(subject, typed) for subject, typed in slips if normalise(typed) not in names]
    said = [knowledge.lookup(f"capital of {typed}") for _, typed in slips]
    wrong = [(slip, value) for slip, value in zip(slips, said, strict=True)
             if value not in (capitals[slip[0]], NOTHING_FOUND)]
    assert not wrong
    assert said.count(NOTHING_FOUND) < len(slips) / 2


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(["of", "the", "Oz", "'", "-", "'the'", "?", ""])).map(" ".join))
def test_normalising_twice_changes_nothing(query):
    """Prevents: keys with two spaces, a quote or an article left in, which no query can ever equal."""
    once = normalise(query)
    assert normalise(once) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize("query", [
    "x" * 10**5, "of " * 10**5, "capital of " * 5000, "a of " * 100, "capital of " + "united " * 10**4, "?" * 10**5,
    "number of " + "ab of " * 40, "\u0130" * 10**5], ids=lambda query: ascii(query[:20]))
def test_long_garbage_is_answered_at_once(knowledge, query):
    """Prevents: a comparison with thousands of keys for each of thousands of words."""
    assert cpu_seconds(knowledge.lookup, query) < 0.5
    assert knowledge.lookup(query) == NOTHING_FOUND


# -- the facts file --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", [
    "capital\tOz", "capital\tOz\tCity\tmore", "capital Oz City", "capital\t\tCity", "\tOz\tCity", "capital\tOz\t "])
def test_a_bad_line_is_named(tmp_path, line):
    """Prevents: a slip in a file of thousands of lines that only says "not enough values to unpack"."""
    file = tmp_path / "facts.tsv"
    file.write_text(f"# a comment\n\ncapital\tGondor\tMinas Tirith\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"facts\.tsv, line 4: expected relation, subject and value"):
        read_facts(file)


def test_comments_empty_lines_and_aliases(tmp_path):
    """Prevents: a comment read as a fact, or an alias that becomes a relation."""
    file = tmp_path / "facts.tsv"
    file.write_text("# x\ty\tz\n\n  \ncapital\tGondor\tMinas Tirith\nalias\tSouth Kingdom\tGondor\n", encoding="utf-8")
    assert read_facts(file) == ([("capital", "Gondor", "Minas Tirith")], {"South Kingdom": "Gondor"})


# -- calling ---------------------------------------------------------------------------------------------------------

ECHO = {"echo": lambda text: text}


@pytest.mark.parametrize("call, arguments", [
    ("echo(a)", "a"), (" echo(a) ", "a"), ("echo()", ""), ("echo((a) and (b))", "(a) and (b)"), ("echo(f(x))", "f(x)"),
    ("echo(:-))", ":-)"), ("echo( a, b )", " a, b "), ("echo(one\ntwo)", "one\ntwo"), ("echo(())\n", "()"),
])
def test_arguments_reach_the_tool_as_they_are(call, arguments):
    """Prevents: a call cut at the first closing bracket, so that calc((1 + 2) * 3) fails."""
    assert run_tool(call, ECHO) == arguments


def test_the_default_tools():
    """Prevents: a tool that the model was trained on and that the loop does not have."""
    both = default_tools()
    assert run_tool("calc((1234 + 5678) * (2 - 1))", both) == "6912"
    assert run_tool("lookup(capital of the Mongolia)", both) == "Ulaanbaatar"
    assert run_tool("calc(1 / 0)", both) == "error: division by zero"


@pytest.mark.parametrize("call", [
    "", "echo", "echo a", "echo(a", "echo a)", "(a)", "echo (a)", "echo(a) b", "x.echo(a)", "1 + 1", "\n"])
def test_an_unreadable_call_is_an_error_in_words(call):
    """Prevents: an exception, and a tool run on half a call."""
    assert run_tool(call, ECHO) == "error: that is no call of a tool"


def test_an_unknown_tool_is_named():
    """Prevents: a KeyError for a tool that the model invented."""
    assert run_tool("search(France)", ECHO) == "error: there is no tool search"


@pytest.mark.parametrize("mistake", [ZeroDivisionError, KeyError, TypeError, ValueError, RuntimeError])
def test_a_programming_error_is_not_swallowed(mistake):
    """Prevents: a bug of a tool that is told to the model as if it were an answer, and never to the programmer."""
    def broken(_):
        raise mistake("a bug")

    with pytest.raises(mistake):
        run_tool("broken(1)", {"broken": broken})


def test_a_tool_error_becomes_words():
    """Prevents: a tool's own refusal that ends the loop instead of telling the model."""
    def unable(_):
        raise ToolError("not today")

    assert run_tool("unable(1)", {"unable": unable}) == "error: not today"


@pytest.mark.parametrize("arguments, status, out", [
    (["calc(1234 + 5678)"], 0, "6912\n"), ([], 1, ""), (["calc(1", "+ 2)"], 1, "")])
def test_the_command_line(arguments, status, out):
    """Prevents: the command of the file's first lines broken, or silent when it is called in another way."""
    run = subprocess.run([sys.executable, tools.__file__, *arguments], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (status, out)
    assert ("usage: python tools.py" in run.stderr) == (status != 0)
