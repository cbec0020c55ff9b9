"""The Dockerfile, read, for want of Docker: what it copies exists, and is all that its build needs."""

import re
import tomllib

from ci.steps import ROOT

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def copied() -> list[str]:
    return [path for line in instructions("COPY") for path in line.split()[:-1]]


def test_what_is_copied_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    for path in copied():
        assert (ROOT / path).exists() and f"!{path}" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())


def test_what_the_build_reads_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    read = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    read |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert read | {"constraints.txt"} == set(copied())


def test_it_installs_what_the_readme_installs() -> None:
    [found] = [line for line in instructions("RUN") if line.startswith("pip install")]
    assert f"\n{found} &&\n" in (ROOT / "README.md").read_text("utf-8")


def test_its_python_is_one_that_the_package_takes() -> None:
    [image] = instructions("FROM")
    found = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert found is not None and int(found[1]) >= 11


def test_it_runs_the_command_line_as_a_user_without_rights() -> None:
    assert instructions("ENTRYPOINT") == ['["onnxprune"]']
    order = [line.split()[0] for line in LINES]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))
    [user] = instructions("USER")
    assert user != "root" and any(user in line for line in instructions("RUN"))
    assert instructions("WORKDIR")[-1] == "/work"  # where docs/ci.md mounts
    assert "/work" in (ROOT / "docs/ci.md").read_text("utf-8")
