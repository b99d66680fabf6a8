"""`python -m streamsgd` is `streamsgd`."""

from streamsgd.cli.entry import run

if __name__ == "__main__":
    run()
