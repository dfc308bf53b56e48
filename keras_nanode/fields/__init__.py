"""What is integrated: vector fields dy/dt, made from layers and functions, and theta.

`vector_field.py` is the field itself, `weights.py` its theta over time, `pieces.py`
where theta jumps. `dynamics.py` makes a field of a user's layer or function, with the
help of `stateless.py` (as a pure function), `arguments.py`, `masks.py` and `trial.py`
(called once when it is built).
"""
