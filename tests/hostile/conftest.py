"""At the end of a long run: how much was tried, and how it ended."""

from hostile.sandbox import TRIED, Budget


def pytest_terminal_summary(terminalreporter):
    if TRIED and Budget.MINUTES:
        terminalreporter.section(f"{TRIED.total():,} hostile inputs in {Budget.MINUTES:g} minutes")
        for (reader, outcome), count in sorted(TRIED.items()):
            terminalreporter.write_line(f"{reader}: {count:,} {outcome}")
