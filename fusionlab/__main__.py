"""``python -m fusionlab`` is the same as ``fusionlab``."""

import sys

from fusionlab.cli_lists import list_parts, lists_parts


def main() -> None:
    """Runs the command of this process; lists of parts without importing what training needs."""
    if lists_parts(sys.argv[1:]):
        sys.exit(list_parts(sys.argv[1:]))
    from fusionlab.cli import main as run

    run()


if __name__ == "__main__":
    main()
