"""The command line: parse, call, render."""


def main() -> None:
    """Run `rounds`; the process ends with the exit code of the contract (0, 1, 2, 3 or 4)."""
    from rounds.faces.cli.app import run

    run()
