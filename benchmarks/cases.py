"""Inputs from the field that gave wrong numbers, crashes or unclear words, and what is said now.

The cases are people's: issue numbers of public projects stand beside them. A row is an input, the
exit code of `bv` (2: refused in one line), and what is printed.

python benchmarks/cases.py --write    # a minute
"""

import argparse

from cases_numbers import files, numbers
from cases_parameters import parameters, sweeps_and_folders
from cases_pictures import sets
from cases_weights import shards_and_adapters, weights
from field import ROWS, scratch
from report import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/cases.csv")
    asked = parser.parse_args()
    mine = (numbers, files, weights, shards_and_adapters, parameters, sweeps_and_folders)
    for part in (sets, *mine):
        with scratch():
            part()
    for each in ROWS:
        print(f"{each['case']:6} {each['exit']}  {each['input']}\n          {each['said']}")
    if asked.write:
        write("cases", ROWS)


if __name__ == "__main__":
    main()
