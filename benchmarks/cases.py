"""Inputs from the field that gave wrong numbers, crashes or unclear words, and what is said now.

The cases are people's: issue numbers of public projects stand beside them. A row is an input, the
exit code of `bv` (2: refused in one line), and what is printed.

python benchmarks/cases.py --write    # a minute
"""

import argparse

from cases_numbers import files, numbers, weights
from cases_pictures import sets
from field import ROWS, scratch
from report import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/cases.csv")
    asked = parser.parse_args()
    for part in (sets, numbers, weights, files):
        with scratch():
            part()
    for each in ROWS:
        print(f"{each['case']:6} {each['exit']}  {each['input']}\n          {each['said']}")
    if asked.write:
        write("cases", ROWS)


if __name__ == "__main__":
    main()
