"""Data, training, export, quantisation, evaluation and the gate: one stage, one module; they meet in files."""
