"""python -m bvlib.cli"""

from bvlib.cli import main

if __name__ == "__main__":
    main()
