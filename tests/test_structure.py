"""The house itself: its files, its names, and who may import whom (DESIGN section 2).

Run:         pytest tests/test_structure.py
"""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ["05_gpu", "04_transformer", "00_train", "00b_sft", "00c_agent_sft", "03_model", "01_app", "02_agent"]
WRITTEN_BY_TOOLS = {"out", "build", "__pycache__", "node_modules"}

TREE = """
README.md  Makefile  requirements.txt  pyproject.toml  LICENSE
data/corpus  data/facts.tsv  data/qa.txt  data/tokenizer.json
00_train/README.md  00_train/prepare.py  00_train/train.py  00_train/sample.py  00_train/trainer.py
00b_sft/README.md  00b_sft/train.py  00b_sft/train_from_gpt2.py
00c_agent_sft/README.md  00c_agent_sft/build_data.py  00c_agent_sft/train.py  00c_agent_sft/evaluate.py
01_app/README.md  01_app/backend/main.py  01_app/frontend/index.html
02_agent/README.md  02_agent/agent.py  02_agent/agent_loop.py  02_agent/tools.py
03_model/README.md  03_model/server.py  03_model/engine.py  03_model/client.py
04_transformer/README.md  04_transformer/model.py  04_transformer/bpe.py  04_transformer/tokenizer.py
04_transformer/inference.py  04_transformer/checkpoint.py  04_transformer/pretrained.py
05_gpu/README.md  05_gpu/matmul_naive.cu  05_gpu/matmul_tiled.cu  05_gpu/attention_triton.py  05_gpu/benchmark.py
reports/results  tests
""".split()

# Layer -> whose modules it may import: "*" all of them, else those named. results.py is everyone's.
EVERYONES = {"results"}
BELOW = {"05_gpu": {}, "04_transformer": {"05_gpu": "*"}}
BELOW["00_train"] = BELOW["03_model"] = {**BELOW["04_transformer"], "04_transformer": "*"}
BELOW["00b_sft"] = {**BELOW["00_train"], "00_train": "*"}
BELOW["00c_agent_sft"] = {**BELOW["00b_sft"], "02_agent": {"tools", "agent_loop"}}
BELOW["02_agent"] = {"04_transformer": {"prompts"}, "03_model": {"client"}}             # L8 knows L6 by HTTP only
BELOW["01_app"] = {**BELOW["02_agent"], "02_agent": {"agent_loop"}}

ORACLES = {"transformers", "tiktoken", "vllm", "openai"}                              # for tests only


@cache
def files() -> list[Path]:
    """All files of the repository, without what tools and training wrote."""
    def is_ours(path: Path) -> bool:
        return not any(part in WRITTEN_BY_TOOLS or part.endswith(".egg-info") or (part[0] == "." and part != ".ci")
                       for part in path.relative_to(ROOT).parts)

    return sorted(path for path in ROOT.rglob("*") if path.is_file() and is_ours(path))


@cache
def python_files(*folders: str) -> list[Path]:
    """The Python files, of all folders or of those named."""
    return [path for path in files() if path.suffix == ".py" and (not folders or folder_of(path) in folders)]


def folder_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=shown(path))


def imports(path: Path) -> set[str]:
    """The first names of everything that a file imports, at its head or inside of functions, or by a call."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0] if node.level == 0 else ".")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module",
                                                                        "__import__", "importlib.util.find_spec"):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                names.add(node.args[0].value.partition(".")[0])
    return names


def modules() -> dict[str, list[Path]]:
    """Name -> files, of everything in the layers that could be imported by that name."""
    found: dict[str, list[Path]] = {}
    for path in python_files(*LAYERS):
        found.setdefault(path.stem, []).append(path)
    return found


def test_the_checks_below_see_the_repository():
    """Prevents: checks that pass because they looked at nothing."""
    assert all(python_files(layer) for layer in LAYERS)
    assert len(python_files()) > 30
    assert {"bpe", "model", "torch"} <= imports(ROOT / "04_transformer" / "inference.py")
    assert set(LAYERS) == {path.name for path in ROOT.iterdir() if path.is_dir() and re.match(r"\d\d", path.name)}
    assert set(BELOW) == set(LAYERS)


@pytest.mark.parametrize("name", TREE)
def test_the_tree_is_complete(name):
    """Prevents: a file that the READMEs, the commands or other layers count on, and that is missing."""
    assert (ROOT / name).exists()


def test_the_makefile_names_files_that_exist():
    """Prevents: a target that fails because its script was renamed."""
    names = re.findall(r"[\w/]+\.py\b", (ROOT / "Makefile").read_text(encoding="utf-8"))
    known = {shown(path) for path in python_files()} | {path.name for path in python_files(*LAYERS)}
    assert names and not [name for name in names if name not in known]


# -- Names -----------------------------------------------------------------------------------------------------------

def test_every_imported_module_has_a_name_of_its_own():
    """Prevents: "import train" that takes the train.py of another layer, depending on the order of the path."""
    own = modules()
    shared = {name: [shown(path) for path in paths] for name, paths in own.items() if len(paths) > 1}
    imported = {name for path in python_files() for name in imports(path)}
    assert not {name: paths for name, paths in shared.items() if name in imported}
    assert set(shared) <= {"train", "prepare", "__init__"}     # only run, never imported


def test_scripts_that_share_a_name_are_never_imported():
    """Prevents: the same by way of a test, or of a script outside of the layers."""
    assert not [shown(path) for path in python_files() if imports(path) & {"train", "prepare", "main"}]


def test_no_module_hides_a_library():
    """Prevents: a module of ours that the standard library or an installed package imports instead of its own."""
    installed = {name for name, packages in importlib.metadata.packages_distributions().items()
                 if packages != ["query-to-flop"]}
    ours = set(modules()) | {path.stem for path in python_files("tests")}
    assert not ours & set(sys.stdlib_module_names)
    assert not ours & installed


def test_test_files_have_names_of_their_own():
    """Prevents: two test files of one name, of which pytest runs one."""
    assert [name for name, count in Counter(path.stem for path in python_files("tests")).items() if count > 1] == []
    assert not {path.stem for path in python_files("tests")} & set(modules())


# -- Imports ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_downwards(layer):
    """Prevents: a lower layer that knows a higher one, after which neither can be read or run alone."""
    folder = {name: folder_of(paths[0]) for name, paths in modules().items()}
    wrong = []
    for path in python_files(layer):
        for name in imports(path) & set(folder):
            allowed = BELOW[layer].get(folder[name], set())
            if not (folder[name] == layer or allowed == "*" or name in allowed or name in EVERYONES):
                wrong.append(f"{shown(path)} imports {name} of {folder[name]}")
        if "." in imports(path):
            wrong.append(f"{shown(path)} has a relative import")
    assert not wrong


def test_every_imported_folder_is_on_the_path():
    """Prevents: an import that works only for scripts of the same folder, or only in the editor."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    on_path = settings["hatch"]["build"]["dev-mode-dirs"]
    folder = {name: folder_of(paths[0]) for name, paths in modules().items()}
    imported = {folder[name] for path in python_files() for name in imports(path) & set(folder)}
    assert imported <= set(on_path) and all((ROOT / name).is_dir() for name in on_path)
    assert settings["pyright"]["extraPaths"] == on_path


def test_nobody_changes_the_path():
    """Prevents: imports that depend on the working directory, or on which script was started."""
    wrong = []
    for path in python_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in ("sys.path", "site.addsitedir"):
                wrong.append(f"{shown(path)}, line {node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "sys" and "path" in {a.name for a in node.names}:
                wrong.append(f"{shown(path)}, line {node.lineno}")
            if isinstance(node, ast.Constant) and node.value == "PYTHON" + "PATH":
                wrong.append(f"{shown(path)}, line {node.lineno}")
    assert not wrong


def test_oracles_are_for_tests_only():
    """Prevents: an inference path that is somebody else's library after all."""
    assert not [(shown(path), imports(path) & ORACLES) for path in python_files()
                if folder_of(path) != "tests" and imports(path) & ORACLES]


# -- How the code reads ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", python_files(), ids=shown)
def test_it_compiles(path):
    """Prevents: a file that no other test touches and that has a slip in it."""
    compile(path.read_bytes(), shown(path), "exec", dont_inherit=True)


@pytest.mark.parametrize("path", python_files(*LAYERS, "scripts", "reports"), ids=shown)
def test_it_opens_with_how_to_run_or_use_it(path):
    """Prevents: a file that its reader does not know how to start."""
    opening = ast.get_docstring(tree(path)) or ""
    assert re.search(r"^(Run|Use): +\S", opening, re.MULTILINE)


@pytest.mark.parametrize("path", python_files("tests"), ids=shown)
def test_every_test_tells_the_bug_that_it_prevents(path):
    """Prevents: tests of which nobody knows any more what they are for."""
    assert ast.get_docstring(tree(path))
    tests = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
             and node.name.startswith("test_")]
    assert tests and not [test.name for test in tests if not ast.get_docstring(test)]
    names = Counter(test.name for test in tests)
    assert names.most_common(1)[0][1] == 1                     # of two with one name only the second runs


def test_no_file_holds_a_path_of_one_machine():
    """Prevents: a result, a log or a script that works, or means something, on its author's machine only."""
    private = re.compile(rb"(?<![\w.~/-])/(?:work|root|home/\w+|Users/\w+)/")
    wrong = []
    for path in files():
        content = path.read_bytes()
        places = [content.count(b"\n", 0, match.start()) + 1 for match in private.finditer(content)]
        if b"\0" not in content[:1000] and places:
            wrong.append(f"{shown(path)}, line {places[0]}")
    assert not wrong
