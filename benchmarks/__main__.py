"""`python benchmarks [NAME …] [--smoke]`: what the middleware costs. `suite.py` does it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # its `processes` starts and ends real servers

from suite import main

if __name__ == "__main__":
    main()
