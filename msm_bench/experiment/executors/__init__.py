"""Where cells are made: in processes of this machine, as tasks of a Ray cluster, or as jobs of Slurm. See `contract.py`."""
