"""The parts of scripts/gpu-check: the machine, its steps, the report."""
