"""Options: recipes, overriding, and refusals in one line."""

import pytest
from pydantic import ValidationError

from onnxprune.errors import UsageError
from onnxprune.options import RECIPES, Options, resolve


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_to_its_values(recipe):
    options = resolve(recipe, ratio=0.1)
    assert options.recipe == recipe and options.ratio == 0.1
    for field, value in RECIPES[recipe].items():
        assert getattr(options, field) == value


def test_mlprune_is_the_papers_method():
    options = resolve("mlprune", ratio=0.1)
    assert (options.saliency, options.normalise, options.surgeon) == ("mlprune", True, "paper")
    assert (options.allocation, options.steps, options.average, options.regrow) == (
        "global",
        1,
        "exponential",
        False,
    )


def test_what_is_given_overrides_the_recipe_and_none_does_not():
    options = resolve("mlprune", ratio=0.1, surgeon="joint", steps=None, seed=0)
    assert options.surgeon == "joint" and options.steps == 1 and options.saliency == "mlprune"


def test_options_do_not_change_and_survive_json():
    options = resolve(pattern="2:4", floors={"fc*": 0.1}, exclude=("a", "b"))
    with pytest.raises(ValidationError):
        options.seed = 3
    assert Options.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {},
            r"^say what to prune: --ratio or --pattern for weights, .* or a goal such as --max-drop$",
        ),
        ({"ratio": 0.5, "pattern": "2:4"}, r"^give one of --ratio and --pattern, not both$"),
        ({"units": 0.5, "macs": 0.5}, r"^give one of --units and --macs, not both$"),
        ({"macs": 0.5, "scope": "layer"}, r"^--macs is a budget of the whole network"),
        ({"units": 1.5}, r"^--units 1.5: a fraction to remove below 1, or a whole number of units"),
        ({"units": 0}, r"^--units 0: .*greater than 0"),
        ({"units": 0.5, "min_units": -1}, r"^--min-units -1: "),
        ({"units": 0.5, "round_to": "often"}, r"^--round-to"),
        ({"units": 0.5, "units_of": {"a": 1}}, r"^--units-of.a 1: "),
        ({"ratio": 0}, r"^--ratio 0: .*greater than 0"),
        ({"ratio": 1.01}, r"^--ratio 1.01: .*less than or equal to 1"),
        ({"ratio": "half"}, r"^--ratio 'half': "),
        ({"ratio": float("nan")}, r"^--ratio nan: "),
        ({"ratio": 0.5, "steps": 0}, r"^--steps 0: "),
        ({"ratio": 0.5, "steps": 65}, r"^--steps 65: "),
        ({"ratio": 0.5, "damping": 0}, r"^--damping 0: "),
        ({"ratio": 0.5, "batch_size": 0}, r"^--batch-size 0: "),
        ({"ratio": 0.5, "samples": 0}, r"^--samples 0: "),
        ({"ratio": 0.5, "saliency": "best"}, r"^--saliency 'best': .*'mlprune', 'obd'"),
        ({"ratio": 0.5, "floors": {"fc": 2}}, r"^--floors.fc 2: "),
        ({"ratio": 0.5, "colour": "red"}, r"^--colour 'red': "),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_in_one_line(given, message):
    with pytest.raises(UsageError, match=message) as raised:
        resolve(**given)
    assert "\n" not in str(raised.value) and raised.value.exit_code == 2


@pytest.mark.parametrize(
    "pattern", ["4:2", "0:4", "4:4", "2", "2:", ":4", "a:b", "2:4:8", "-1:4", "1.5:4", "", "²:4"]
)
def test_patterns_that_are_none(pattern):
    with pytest.raises(UsageError, match="--pattern"):
        resolve(pattern=pattern)


@pytest.mark.parametrize("pattern", ["2:4", "1:2", "4:8"])
def test_patterns(pattern):
    assert resolve(pattern=pattern).pattern == pattern


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(
        UsageError,
        match="unknown recipe 'fast'; there are default, mlprune, mean-replacement, magnitude, wanda",
    ):
        resolve("fast", ratio=0.5)
