"""`python -m penstock`."""

from penstock_console import main

if __name__ == "__main__":
    main()
