"""Pictures of flows, as matplotlib figures.

A notebook shows them, and `figure.savefig(path)` writes them. pyplot does not know
them, so that none has to be closed. What differs in colour differs in its line or its
marker too.
"""

from keras_nanode.visualize.pictures import steps, trajectories, vector_field, weights

__all__ = ["steps", "trajectories", "vector_field", "weights"]
