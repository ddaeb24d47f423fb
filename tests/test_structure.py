"""Tests of the structure of the code: directions of imports, the one file for devices, and justified dependencies."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "pconv_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# The directories that a directory may import from, beside itself. Commands are the files of the package's top level.
MAY_IMPORT = {
    "ops": set(),
    "reading": set(),
    "data": {"reading"},
    "models": {"ops"},
    "training": {"ops", "models", "data"},
    "inpainting": {"ops", "models", "reading", "data", "training"},
    "evaluation": {"ops", "models", "data", "training", "inpainting"},
    "sweeping": {"ops", "models", "data", "training", "evaluation"},
    "commands": {"ops", "reading", "models", "data", "training", "inpainting", "evaluation", "sweeping"},
    "tools": {"ops", "reading", "models", "data", "training", "inpainting", "evaluation", "sweeping", "commands"},
    "web": {"reading", "data", "training", "inpainting", "commands"},  # a command in several files
    "benchmark": {"ops", "models", "data", "training", "inpainting", "evaluation", "sweeping", "commands"},
}
EVERYWHERE = {"pconv_jax.errors"}  # imports nothing itself
NEVER_IN = {
    "ops": {"flax", "optax", "orbax", "cv2", "grain", "absl", "ml_collections"},  # no modules, no input or output
    "models": {"cv2", "grain", "absl", "ml_collections", "optax", "orbax"},
    "reading": {"jax", "flax", "optax", "orbax", "ml_collections", "grain"},
    "web": {"jax", "flax", "optax", "orbax", "ml_collections", "grain"},  # inpainting/ does the work
    "data": {"jax", "flax", "optax", "orbax", "ml_collections"},  # worker processes must not start a device
}
DEVICE_NAMES = {
    "devices",
    "local_devices",
    "device_put",
    "device_put_sharded",
    "device_put_replicated",
    "pmap",
    "shard_map",
    "make_mesh",
    "Mesh",
    "NamedSharding",
    "PartitionSpec",
}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def module_name(path):
    """Returns the full name of the module in a file, e.g. pconv_jax.ops.losses."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(tree):
    """Yields `(module, name or None)` for each import statement, including those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write it absolutely"
            yield from ((node.module, alias.name) for alias in node.names)


def imported_modules(path):
    """Returns the full names of the modules of this package that a file imports, and the top-level names of others."""
    own, others = set(), set()
    for module, name in imports(ast.parse(path.read_text())):
        if module.split(".")[0] == "pconv_jax":
            full = f"{module}.{name}"
            own.add(full if full in MODULES else module)
        else:
            others.add(module.split(".")[0])
    return own, others


def room(module):
    """Returns the directory of a module, "commands" for files of the top level, and None for the package itself."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return parts[1] if (PACKAGE / parts[1]).is_dir() else "commands"


def wrong_imports(module, own):
    """Returns the imported modules that the room of `module` may not import from."""
    here = room(module)
    own = own - EVERYWHERE - ({"pconv_jax"} if module == "pconv_jax.__main__" else set())  # which prints the version
    if here is None:  # the package's face, which imports each public name on first use
        return own - {"pconv_jax.ops.partial_conv", "pconv_jax.models.layers", "pconv_jax.inpainting.inpainter"}
    return {
        name
        for name in own
        if (room(name) != here and room(name) not in MAY_IMPORT[here]) or name in ("pconv_jax", "pconv_jax.main")
    }


def test_every_room_is_known():
    """Every room has a place in `MAY_IMPORT`."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= MAY_IMPORT.keys() and {"ops", "data", "models", "training", "evaluation"} <= rooms


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_down(module):
    """No room imports from a room above, and no module imports the tools or main.py."""
    own, others = imported_modules(MODULES[module])
    assert not wrong_imports(module, own)
    assert not others & NEVER_IN.get(room(module), set())


def test_wrong_imports_are_found():
    """The check of the test above finds violations."""
    assert wrong_imports("pconv_jax.ops.losses", {"pconv_jax.models.unet"})
    assert wrong_imports("pconv_jax.data.masks", {"pconv_jax.ops.losses"})
    assert wrong_imports("pconv_jax.training.steps", {"pconv_jax.evaluation.scores"})
    assert wrong_imports("pconv_jax.training.steps", {"pconv_jax.train"})
    assert wrong_imports("pconv_jax.evaluation.tables", {"pconv_jax.sweeping.plan"})
    assert wrong_imports("pconv_jax.train", {"pconv_jax.benchmark.op"})
    assert wrong_imports("pconv_jax.train", {"pconv_jax.main"})
    assert wrong_imports("pconv_jax", {"pconv_jax.data.masks"})
    assert not wrong_imports("pconv_jax.training.steps", {"pconv_jax.ops.losses", "pconv_jax.training.train_state"})
    own, others = imported_modules(MODULES["pconv_jax.train"])
    assert "pconv_jax.training.checkpoints" in own and {"jax", "orbax", "absl"} <= others


DOOR = "pconv_jax.ops.cpu.dispatch"


def passes_the_door(module, own):
    """Returns the imported modules of ops/cpu that `module` may not import."""
    inside = {name for name in own if name.startswith("pconv_jax.ops.cpu")}
    if module.startswith("pconv_jax.ops.cpu"):
        return set()
    return inside if room(module) == "ops" else inside - {DOOR}


def reads_the_machine(tree):
    """Returns what a file imports or calls to read files, the environment or the processor, or to write logs."""
    modules = {module.split(".")[0] for module, _ in imports(tree)} & {"os", "io", "pathlib", "platform", "logging"}
    return modules | {ast.unparse(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call)} & {"open"}


@pytest.mark.parametrize("module", MODULES)
def test_ops_cpu_has_one_door(module):
    """Outside ops/cpu only `dispatch` is imported, and not by the other operators, so that the room can be deleted."""
    assert not passes_the_door(module, imported_modules(MODULES[module])[0])


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "ops" and not m.startswith("pconv_jax.ops.cpu")])
def test_operators_are_functions_of_arrays(module):
    """The operators outside ops/cpu neither read files nor the processor, and log nothing."""
    assert not reads_the_machine(ast.parse(MODULES[module].read_text()))


def test_side_doors_are_found():
    """The checks of the two tests above find violations."""
    assert passes_the_door("pconv_jax.models.vgg", {"pconv_jax.ops.cpu.onednn", DOOR}) == {"pconv_jax.ops.cpu.onednn"}
    assert passes_the_door("pconv_jax.ops.decoder", {DOOR}) == {DOOR}
    assert not passes_the_door("pconv_jax.ops.cpu.onednn", {"pconv_jax.ops.cpu.primitives"})
    assert reads_the_machine(ast.parse((PACKAGE / "ops" / "cpu" / "onednn.py").read_text())) == {"open"}
    assert reads_the_machine(ast.parse("from absl import flags\nimport os.path")) == {"os"}


def test_no_circle():
    """Modules can be put in an order in which each imports only earlier ones."""
    waiting = {module: imported_modules(path)[0] & MODULES.keys() for module, path in MODULES.items()}
    while waiting:
        ready = {module for module, needs in waiting.items() if not needs & waiting.keys()}
        assert ready, f"these import each other in a circle, or wait for one: {sorted(waiting)}"
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "pconv_jax"])
def test_modules_are_imported_and_not_their_names(module):
    """Modules are imported, and not names from them, so that a reader sees in which module a name is defined."""
    for source, name in imports(ast.parse(MODULES[module].read_text())):
        if source.split(".")[0] == "pconv_jax" and (module, name) != ("pconv_jax.__main__", None):
            assert name and f"{source}.{name}" in MODULES, f"from {source} import {name}"


def device_names(tree):
    """Returns the attributes and imported names that place something on a device."""
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return (attributes | {name for _, name in imports(tree)}) & DEVICE_NAMES


@pytest.mark.parametrize("module", MODULES)
def test_one_file_names_devices(module):
    """Only training/parallel.py, the tools and the benchmark map, place or shard arrays on devices."""
    names = device_names(ast.parse(MODULES[module].read_text()))
    if module == "pconv_jax.training.parallel":
        assert {"pmap", "device_put"} <= names
    elif room(module) not in ("tools", "benchmark"):
        assert not names


@pytest.mark.parametrize("module", MODULES)
def test_only_commands_read_flags(module):
    """Library code takes (config, workdir) and does not read flags."""
    read = any(
        name == "flags" or source == "absl.flags" for source, name in imports(ast.parse(MODULES[module].read_text()))
    )
    assert not read or room(module) in ("commands", "tools", "benchmark") or module == "pconv_jax.web.__main__"


def test_no_file_has_a_vague_name():
    """No file has a name like utils, which names no subject."""
    assert not {path.stem for path in FILES} & VAGUE_NAMES


def test_main_is_short():
    """It picks up the config and starts training; what is longer belongs to a verb."""
    assert len((PACKAGE / "main.py").read_text().splitlines()) < 60


# Modules and calls that run what a file holds, and who may use them.
RUNS_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch", "numpy.load"}
RUNS_DATA |= {"torch.load", "eval", "exec", "compile", "__import__", "os.system", "numpy.core.records", "pandas"}
MAY_RUN_DATA = {
    "pconv_jax.tools.torch_checkpoint": {"pickle"},  # an unpickler of tensors alone, with tests of its own
    "pconv_jax.benchmark.torch_reference": {"torch"},  # computes with it, loads nothing
    "pconv_jax.benchmark.torch_peer": {"torch"},
}


def runs_data(tree):
    """Returns what a file imports or calls that can run code from data; `np.load` counts unless it refuses pickles."""
    names = {module for module, _ in imports(tree)} & RUNS_DATA
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).replace("np.", "numpy.")
        refuses = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in call.keywords)
        if name in RUNS_DATA and not (name == "numpy.load" and refuses):
            names.add(name)
    return names


@pytest.mark.parametrize("module", MODULES)
def test_no_code_from_data(module):
    """Configs, checkpoints, weights and images are read as data; only experiment files are executed."""
    assert runs_data(ast.parse(MODULES[module].read_text())) == MAY_RUN_DATA.get(module, set())


def test_code_from_data_is_found():
    """The check of the test above finds violations."""
    for text, name in {
        "import pickle": "pickle",
        "from yaml import load": "yaml",
        "def f():\n    import dill": "dill",
        "np.load(file)": "numpy.load",
        "numpy.load(file, allow_pickle=True)": "numpy.load",
        "eval(text)": "eval",
    }.items():
        assert runs_data(ast.parse(text)) == {name}
    assert not runs_data(ast.parse("with np.load(file, allow_pickle=False) as f: module.eval(f), re.compile(f)"))


def requirements():
    """Yields `(name, specifier, comment)` for each line of requirements.txt; a comment may stand on the line above."""
    path = ROOT / "requirements.txt"
    if not path.exists():
        pytest.skip("no requirements.txt in this checkout")
    above = ""
    for line in path.read_text().splitlines():
        requirement, _, comment = (part.strip() for part in line.partition("#"))
        if requirement and not requirement.startswith("-"):
            name = re.match(r"[\w.-]+", requirement)[0]
            yield name, requirement.removeprefix(name), comment or above
        above = comment if not requirement else ""


def used_names():
    """Returns the top-level names that the code imports or opens as resources, or that the tools' settings in
    pyproject.toml and `versions.libraries` name."""
    names = set(re.findall(r"\w+", str(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"])))
    names |= {
        node.value
        for node in ast.walk(ast.parse((PACKAGE / "training" / "versions.py").read_text()))
        if isinstance(node, ast.Constant)
    }
    by_name = ("importlib.resources.files", "pytest.importorskip")
    for path in [*FILES, *(ROOT / "experiments").glob("*.py"), *(ROOT / "tests").glob("*.py")]:
        tree = ast.parse(path.read_text())
        names |= {module.split(".")[0] for module, _ in imports(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in by_name:
                names |= {node.args[0].value.split(".")[0]} if isinstance(node.args[0], ast.Constant) else set()
    return names


packages_distributions = functools.cache(importlib.metadata.packages_distributions)


def import_names(distribution):
    """Returns the names that a distribution is imported as, e.g. cv2 for opencv-contrib-python-headless."""
    wanted = re.sub(r"[-_.]+", "-", distribution).lower()
    installed = packages_distributions()
    names = {
        name for name, owners in installed.items() if wanted in {re.sub(r"[-_.]+", "-", o).lower() for o in owners}
    }
    return names or {wanted.replace("-", "_")}


def test_every_dependency_is_used():
    """Every requirement is imported, or is a plugin of pytest."""
    used = used_names()
    plugins = {point.dist.name for point in importlib.metadata.entry_points(group="pytest11")}
    surplus = {name for name, *_ in requirements() if not import_names(name) & used} - plugins
    assert not surplus
    assert not import_names("tensorflow") & used  # the search can fail


def test_every_dependency_is_justified_and_bounded():
    """Every requirement has a comment with its purpose and an upper bound, against changes by new releases."""
    for name, specifier, comment in requirements():
        assert comment, f"{name} has no comment that says what it is for"
        assert re.search(r"<|==|~=", specifier), f"{name}{specifier} has no upper bound"
