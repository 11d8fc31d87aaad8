"""`python -m slm_registry` is `slm-registry`."""

from slm_registry.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
