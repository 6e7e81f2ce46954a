"""``python -m fusionlab`` is the same as ``fusionlab``."""

import sys

from fusionlab.cli_compare import compare, compares


def main() -> None:
    """Runs the command of this process; imports what training needs only where it trains."""
    if compares(sys.argv[1:]):
        sys.exit(compare(sys.argv[1:]))
    from fusionlab.cli_lists import list_parts, lists_parts

    if lists_parts(sys.argv[1:]):
        sys.exit(list_parts(sys.argv[1:]))
    from fusionlab.cli import main as run

    run()


if __name__ == "__main__":
    main()
