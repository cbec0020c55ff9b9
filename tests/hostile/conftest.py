"""At the end of a long run: how much was tried, and how it ended."""

from hostile.sandbox import FOUND, MINUTES, TRIED


def pytest_terminal_summary(terminalreporter):
    TRIED.pop(("no such reader", "crashed"), None)  # the sandbox' own test
    if TRIED and MINUTES:
        terminalreporter.section(f"{TRIED.total():,} hostile inputs in {MINUTES:g} minutes")
        for (reader, outcome), count in sorted(TRIED.items()):
            terminalreporter.write_line(f"{reader}: {count:,} {outcome}")
        for finding, path in FOUND.items():
            terminalreporter.write_line(f"{path}: {finding}")
