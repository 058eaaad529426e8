"""The properties of ``tests/unit/test_properties.py`` with values that nobody has tried, for as long as is asked.

    python tests/fuzz.py --minutes 10

Ends with 1 and the smallest value found where something is neither taken nor refused in words.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from hypothesis import seed

os.environ["CLASSROOMKD_FUZZ"] = "long"
sys.path.insert(0, str(Path(__file__).parent / "unit"))

from test_properties import EXAMPLES, PROPERTIES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--only", default="", help="a word in a property's name")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", flush=True)
    chosen = [test for test in PROPERTIES if wanted.only in test.__name__ and hasattr(test, "hypothesis")]
    end, rounds, wrong = time.monotonic() + 60 * wanted.minutes, 0, 0
    while time.monotonic() < end and chosen:
        for test in list(chosen):
            try:
                seed(wanted.seed + rounds)(test)()
            except Exception:
                print(f"--- {test.__name__}, seed {wanted.seed + rounds}", flush=True)
                traceback.print_exc(limit=-6)
                chosen.remove(test)
                wrong += 1
        rounds += 1
    print(f"{rounds} rounds of {EXAMPLES.max_examples} values of each property; {wrong} properties do not hold")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
