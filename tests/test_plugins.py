"""Plugins: what `module:object` finds, and that the user's own mistakes read as one sentence."""

import math
import sys

import pytest

from onnxprune.errors import DataError, PluginError, UsageError
from onnxprune.plugins import load_object, user_code


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working directory, which is not on the path, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_objects_are_found_in_the_environment_and_in_the_working_directory(module):
    module("plug_one", "class A:\n    b = 7\n")
    assert load_object("math:pi") == math.pi
    assert load_object("plug_one:A.b") == 7


@pytest.mark.parametrize(
    "spec", ["math", "math:", ":pi", "no_such_module_here:f", "os.nowhere:f", "math:tau.x"]
)
def test_what_names_nothing_is_wrong_use(spec, module):
    with pytest.raises(UsageError, match=spec):
        load_object(spec)


def test_a_missing_name_lists_those_there_are(module):
    module("plug_two", "def recall(): ...\n")
    with pytest.raises(UsageError, match="has no 'precision'; it has recall"):
        load_object("plug_two:precision")


@pytest.mark.parametrize(
    "text, said",
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("import not_there_at_all\n", "not_there_at_all"),
        ("x = (\n", "SyntaxError"),
    ],
)
def test_a_module_that_fails_says_why(module, text, said):
    module("plug_three", text)
    with pytest.raises(PluginError, match=said):
        load_object("plug_three:x")


def test_code_that_fails_is_one_sentence_with_its_place():
    with pytest.raises(
        PluginError, match=r"^the thing failed: KeyError: 'a b' \(test_plugins.py, line \d+\)$"
    ):
        with user_code("the thing"):
            {}["a b"]
    with pytest.raises(DataError, match="ours"), user_code("the thing"):
        raise DataError("ours")  # said already
