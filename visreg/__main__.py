"""The ``visreg`` command, as ``python -m visreg``."""

from visreg.cli import main

if __name__ == "__main__":  # and not in a worker process that imports what it was started from
    main()
