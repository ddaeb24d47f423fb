"""Tests of the installed package: what it imports, what it depends on, its command, and the experiments in it."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging import requirements, specifiers, version

import pconv_jax
import test_structure as structure
from pconv_jax import __main__ as command
from pconv_jax import errors, experiment_files

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE, EXTRAS = PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]
# Extras that requirements.txt leaves out: PyTorch is large, and jax2onnx wants an older orbax-checkpoint.
APART = {"bench", "onnx"}


def python(code):
    """Runs code in a fresh interpreter and returns what it prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def names(lines):
    """Returns `{name: specifier set}` of requirement lines without those of this package itself."""
    parsed = [requirements.Requirement(line) for line in lines]
    return {r.name: r.specifier for r in parsed if r.name != PROJECT["project"]["name"]}


def with_extra(extra):
    """Returns the names that are installed with an extra, those of the package without extras included."""
    lines = EXTRAS.get(extra, [])
    others = [e for line in lines if line.startswith("pconv_jax[") for e in requirements.Requirement(line).extras]
    return names(BASE).keys() | names(lines).keys() | {name for other in others for name in with_extra(other)}


def test_importing_the_package_imports_no_library():
    """`import pconv_jax` costs less than `import jax`; the operator brings JAX, and neither Flax nor OpenCV."""
    heavy = ["jax", "flax", "cv2", "numpy", "orbax", "grain", "optax", "ml_collections", "absl"]
    code = f"import sys, pconv_jax; print(*sorted(set({heavy}) & set(sys.modules)))"
    assert python(code).split() == []
    code = code.replace("; print", "; pconv_jax.partial_conv, pconv_jax.propagate_mask; print")
    assert python(code).split() == ["jax", "numpy"]


def test_the_layer_and_the_inpainter_need_no_library_of_training():
    """Nothing that reads data, trains or saves runs is imported to fill a photograph, and OpenCV not for the layer."""
    heavy = ["cv2", "orbax", "grain", "tensorflow_datasets", "optax", "skimage", "scipy", "matplotlib", "tensorboardX"]
    code = f"import sys, pconv_jax; pconv_jax.PartialConv; print(*set({heavy}) & set(sys.modules));"
    code += f"import pconv_jax.inpaint; pconv_jax.Inpainter; print(*set({heavy}) & set(sys.modules))"
    assert python(code).splitlines() == ["", "cv2"]


def test_public_names():
    """`__all__` and `dir` list the public names, and other names are missing as in every module."""
    assert set(pconv_jax.__all__) <= set(dir(pconv_jax))
    assert all(getattr(pconv_jax, name) is not None for name in pconv_jax.__all__)
    with pytest.raises(AttributeError, match="module 'pconv_jax' has no attribute 'PartialConf'"):
        pconv_jax.PartialConf  # noqa: B018


def admits(specifier, text):
    """Returns whether `specifier` admits all versions that the bounds `text` admit, with the same upper bound."""
    bounds = {spec.operator: version.Version(spec.version) for spec in specifiers.SpecifierSet(text)}
    wide = {spec.operator: version.Version(spec.version) for spec in specifier}
    return wide[">="] <= bounds[">="] and wide["<"] == bounds["<"]


def test_requirements_are_those_of_the_extras():
    """requirements.txt has the libraries of all extras but PyTorch, with the same bounds.

    The package alone may accept older versions: it lives beside the libraries that other packages want.
    """
    listed = {name: text for name, text, _ in structure.requirements()}
    assert with_extra("dev") == listed.keys()
    for extra in EXTRAS.keys() - APART:
        own = names(EXTRAS[extra])
        assert {name: specifiers.SpecifierSet(listed[name]) for name in own} == own
    for name, specifier in names(BASE).items():
        assert admits(specifier, listed[name]), f"{name}{specifier} excludes versions of {name}{listed[name]}"
    (torch,) = (ROOT / "pconv_jax" / "benchmark" / "requirements.txt").read_text().splitlines()
    assert names([torch.partition("#")[0]]) == names(EXTRAS["bench"])


def top_level(tree):
    """Removes the bodies of functions, whose imports wait until they are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return tree


def imported(module, everything):
    """Returns the libraries that a module and the modules that it imports name in import statements.

    Args:
      module: full name of a module of this package.
      everything: whether imports inside functions count.
    """
    own, libraries, waiting = set(), set(), [module]
    while waiting:
        module = waiting.pop()
        own.add(module)
        tree = ast.parse(structure.MODULES[module].read_text())
        for source, name in structure.imports(tree if everything else top_level(tree)):
            full = f"{source}.{name}" if f"{source}.{name}" in structure.MODULES else source
            if source.split(".")[0] != "pconv_jax":
                libraries.add(source.split(".")[0])
            elif full not in own:
                waiting.append(full)
    return libraries - sys.stdlib_module_names


@pytest.mark.parametrize("name", command.COMMANDS)
def test_extras_suffice_for_their_commands(name):
    """The libraries that a command imports are installed with its extra; options of the others may need more."""
    chosen = command.COMMANDS[name]
    module = chosen.module if chosen.module in structure.MODULES else f"{chosen.module}.__main__"
    installed = set().union(*(structure.import_names(library) for library in with_extra(chosen.extra)))
    missing = imported(module, everything=chosen.extra == "train") - installed
    assert "jax" in installed and not missing


def test_missing_extras_are_found():
    """The check of the test above finds a library that is not installed with an extra."""
    base = set().union(*(structure.import_names(library) for library in with_extra("")))
    assert "orbax" in imported("pconv_jax.evaluate", everything=True) - base
    assert "orbax" in imported("pconv_jax.inpaint", everything=True) - base


def test_the_wheel_holds_the_package_and_the_experiments():
    """The wheel holds every package of pconv_jax but the benchmark, and the experiments inside the package."""
    settings = PROJECT["tool"]["setuptools"]
    rooms = {path.parent.relative_to(ROOT) for path in (ROOT / "pconv_jax").rglob("*.py")}
    expected = {".".join(room.parts) for room in rooms} - {"pconv_jax.benchmark"}
    assert set(settings["packages"]) == expected | {"pconv_jax.shipped.experiments"}
    assert settings["package-dir"] == {"pconv_jax.shipped.experiments": "experiments"}
    assert pathlib.Path(experiment_files._PLACES[0]) == ROOT / "pconv_jax" / "shipped" / "experiments"


def test_experiments_are_found_by_name(tmp_path, monkeypatch):
    """A name is that of an experiment of the package, in the wheel too; a path is that of a file."""
    shipped = tmp_path / "shipped" / "experiments"
    monkeypatch.setattr(experiment_files, "_PLACES", (str(shipped), *experiment_files._PLACES[1:]))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    quickstart = str(ROOT / "experiments" / "quickstart.py")
    for words in (
        ["--config=quickstart"],
        ["--config=quickstart.py"],
        ["-config", "quickstart"],
        [f"--config={quickstart}"],
    ):
        argv, path = experiment_files.resolve(["main", *words, "--config.seed=1"])
        assert path == quickstart and argv[-2].endswith(quickstart) and argv[-1] == "--config.seed=1"
    assert experiment_files.resolve(["main", "--config=quickstart:x"]) == (
        ["main", f"--config={quickstart}:x"],
        quickstart,
    )
    shipped.mkdir(parents=True)
    for name in ("__init__.py", "default.py", "mine.py"):
        (shipped / name).touch()
    assert experiment_files.resolve(["main", "--config=mine"])[1] == str(shipped / "mine.py")
    assert sys.path[-1] == str(tmp_path / "shipped")
    with pytest.raises(errors.UserError, match=r"'quickstart' is no file: .* the package contains \(default, mine\)"):
        experiment_files.resolve(["main", "--config=quickstart"])


def test_the_command_runs_modules(server, tmp_path):
    """`pconv-jax train NAME` runs the main job with the experiment of that name."""
    code, printed = server(tmp_path, "__main__", ["train", "quickstart", "--config.data.size=100"])
    assert code != 0 and "image is 100x100; needs multiples of 8" in printed and "Traceback" not in printed


def test_the_command_has_help(capsys):
    """The help lists every command and the version; an unknown command is an error."""
    command.main([])
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", printed, re.MULTILINE) for name in command.COMMANDS)
    assert max(map(len, printed.splitlines())) <= 120
    command.main(["--version"])
    assert capsys.readouterr().out == f"pconv_jax {pconv_jax.__version__}\n"
    with pytest.raises(SystemExit, match="2"):
        command.main(["fly"])
    assert "error: unknown command fly" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(["train"])
    assert "error: train needs an experiment, e.g. pconv-jax train quickstart" in capsys.readouterr().err


def test_a_missing_library_is_one_line():
    """Without the libraries of an extra, its commands say what to install."""
    lines = (
        "import sys",
        "sys.modules['orbax'] = None",  # Python reports such a module as missing.
        "from pconv_jax import __main__ as command",
        "command.main(['evaluate', '--run=there'])",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert re.search(r'pconv-jax evaluate needs orbax, .* pip install "pconv_jax\[train\]"', done.stderr), done.stderr
    assert "Traceback" not in done.stderr
