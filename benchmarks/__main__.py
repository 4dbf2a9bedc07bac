"""`python benchmarks [NAME …] [--smoke]`: run the benchmarks of the middleware (see `suite.py`)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # for `processes`, which starts and stops real servers

from suite import main

if __name__ == "__main__":
    main()
