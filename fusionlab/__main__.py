"""``python -m fusionlab`` is the same as ``fusionlab``."""

from fusionlab.cli import main

if __name__ == "__main__":
    main()
