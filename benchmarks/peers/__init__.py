"""What `compare.py` measures: the workloads, and a module for each who does them."""
