"""python -m bvlib.cli"""

from bvlib.cli import main

main()
