"""What a network costs (`receipt.py`), and its variables in a file of their own (`variables.py`)."""

from jkd.compress.receipt import file_bytes, latency, macs, parameters, receipt
from jkd.compress.variables import load_variables, save_variables

__all__ = ["file_bytes", "latency", "load_variables", "macs", "parameters", "receipt", "save_variables"]
