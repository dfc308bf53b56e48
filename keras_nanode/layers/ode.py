"""The layer that integrates dx/dt = f(x, theta(t))."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nanode import adjoints, backend, checks, solvers
from keras_nanode.adjoints import AdjointLike
from keras_nanode.adjoints.recompute import for_inference
from keras_nanode.fields.dynamics import (
    Flow,
    WeightsOverTime,
    arrangement,
    same_shape,
    vector_field,
)
from keras_nanode.fields.trial import try_out
from keras_nanode.integrate import as_state, integrate
from keras_nanode.layers.arguments import CheckedArguments
from keras_nanode.layers.horizon import warn_of_large_weights
from keras_nanode.layers.nested import Nesting, symbolic_output
from keras_nanode.layers.step_counts import steps_of, warn_of_unseen_weights
from keras_nanode.layers.tally import Tally
from keras_nanode.layers.time_varying import TimeVarying
from keras_nanode.solvers import SolverLike
from keras_nanode.stepping import Adaptive, StepsLike, serialize_steps


@keras.saving.register_keras_serializable("keras_nanode")
class ODE(CheckedArguments, Nesting, Flow, keras.Layer):
    """Integrates dx/dt = dynamics(x, t) from x(t0) = inputs and returns x(t1).

    Args:
        dynamics: A Keras layer that keeps the shape of its input: `TimeVarying`, whose
            weights depend on time; `TimeAppended`; any layer with `call(x, t)`; or any
            other layer, which makes the ODE autonomous. It must be pure: no
            BatchNormalization in training, no Dropout.
        solver: A name in `keras_nanode.solvers.ALL`, a `Tableau` or a `Reversible`; or
            `"bdf"` for small stiff problems on TensorFlow, see `keras_nanode.odeint`.
        steps: Positive integer, the number of equal steps; `"adaptive"` or
            `Adaptive(rtol, atol, max_steps)` for steps chosen by the estimated error;
            None for adaptive steps if the solver estimates its error, like `"dopri5"`
            and `"tsit5"`. For other solvers None means 10 steps, as in the paper's
            networks, or the next multiple of the basis' number of pieces: each bucket
            gets equally many. A warning says if pieces have no step.
            `callbacks.Evaluations` shows in `fit` what adaptive steps cost.
        t_span: Two different numbers (t0, t1); t1 < t0 integrates backwards.
        adjoint: How to compute gradients: `"checkpoint"` (exact, memory O(sqrt steps)),
            `Checkpoint(num)`, `"reversible"` (exact, memory O(1), for the solvers
            `"reversible_heun"`, `"alf"` and `Reversible`), `"backsolve"` (the paper's,
            memory O(1), off by the solver's error) or `"direct"` (exact, memory
            O(steps), can be differentiated again). `"bdf"` has its own adjoint, which
            the default and `"backsolve"` select.

    `solver`, `steps` and `adjoint` can also be set later. Functions that Keras has
    already compiled keep the old value until `model.compile` is called again.

    Call arguments:
        inputs: A floating tensor. The state is at least float32. Under mixed precision
            only the dynamics compute in the lower precision.
        training: True, as in `fit`, keeps what the adjoint needs for the gradient.
            Otherwise the call stores nothing for the backward pass. Gradients stay
            available, at the cost of one more solve. In a training loop of your own,
            call `model(x, training=True)`.
        mask: A boolean tensor, which Keras finds on the inputs behind `Masking` or
            `Embedding(mask_zero=True)`. The dynamics see it at every evaluation, and
            the outputs carry it on.

    Input shape:
        That of `dynamics`.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is invalid, if `t_span` leaves the domain of a basis
            that is not defined outside it, or (when built) if `dynamics` changes the
            shape of its input, is not pure, uses `keras.remat`, or (but for
            `adjoint="direct"`) reads trainable variables of other layers.
        RuntimeError: if adaptive steps fail in eager mode. In a compiled function the
            output is NaN for the whole batch, since its rows share their steps.
            `callbacks.Evaluations` then reports why.

    Example:

    >>> import keras
    >>> from keras_nanode import bases, layers
    >>> dynamics = layers.TimeVarying(
    ...     keras.layers.Dense(3, activation="tanh"), bases.Trigonometric(2)
    ... )
    >>> ode = layers.ODE(dynamics, solver="rk4", steps=5)
    >>> x = keras.ops.ones((2, 3))
    >>> error = keras.ops.convert_to_numpy(ode.inverse(ode(x)) - x)
    >>> bool(abs(error).max() < 1e-2)
    True

    References:
        - [Chen et al., 2018](https://arxiv.org/abs/1806.07366)
        - Time Dependence in Non-Autonomous Neural ODEs, arXiv 2005.01906
    """

    nested = "dynamics"

    def __init__(
        self,
        dynamics: keras.Layer,
        solver: SolverLike = "euler",
        steps: StepsLike = None,
        t_span: Sequence[float] = (0.0, 1.0),
        adjoint: AdjointLike = "checkpoint",
        **kwargs: Any,
    ):
        # The state keeps its precision; `dynamics` casts what it computes.
        super().__init__(autocast=False, **kwargs)
        if not keras.backend.is_float_dtype(self.compute_dtype):
            raise checks.wrong(
                "dtype",
                self.compute_dtype,
                "a floating dtype or policy, since the state changes continuously",
            )
        self.dynamics = checks.layer("dynamics", dynamics)
        self.t_span = checks.span("t_span", t_span)
        if isinstance(dynamics, WeightsOverTime):
            dynamics.basis.check_covers("t_span", self.t_span)
            warn_of_large_weights(self.name, dynamics.basis, self.t_span)
        self._choose(solver, steps, adjoint)
        self.supports_masking = True
        self.tally = Tally()

    def _choose(self, solver, steps, adjoint):
        """Sets all three if they are compatible, else none."""
        solver, adjoint = solvers.get(solver), adjoints.get(adjoint)
        varies = isinstance(self.dynamics, WeightsOverTime)
        basis = self.dynamics.basis if varies else None
        steps = steps_of(solver, steps, basis, self.t_span)
        adjoint.check(solver)
        if not isinstance(steps, Adaptive):
            warn_of_unseen_weights(self.name, basis, self.t_span, solver, steps)
        self._chosen = (solver, steps, adjoint)

    @property
    def solver(self):
        return self._chosen[0]

    @solver.setter
    def solver(self, solver):
        self._choose(solver, self.steps, self.adjoint)

    @property
    def steps(self):
        return self._chosen[1]

    @steps.setter
    def steps(self, steps):
        self._choose(self.solver, steps, self.adjoint)

    @property
    def adjoint(self):
        return self._chosen[2]

    @adjoint.setter
    def adjoint(self, adjoint):
        self._choose(self.solver, self.steps, adjoint)

    @property
    def is_adaptive(self) -> bool:
        """Whether the steps are chosen by the estimated error."""
        return isinstance(self.steps, Adaptive)

    def build(self, input_shape):
        x = keras.KerasTensor(input_shape, dtype=self.compute_dtype)
        t0 = ops.convert_to_tensor(self.t_span[0])
        inputs, others = arrangement(self.dynamics)(t0, x)
        output = symbolic_output(self.dynamics, inputs, **others)
        if not same_shape(output.shape, input_shape):
            raise ValueError(
                f"The dynamics {self.dynamics.name!r} of the ODE {self.name!r} must "
                "give dx/dt in the shape of x. Give its last layer as many units or "
                "filters as the input has channels, and 'same' padding without "
                f"strides. Received: x with shape {tuple(input_shape)}, dx/dt with "
                f"shape {tuple(output.shape)}"
            )
        # Fails now, not in the middle of training, if a call changes state.
        try_out(self._slope, self.dynamics, x, training=True)

    def call(self, inputs, training=None, mask=None):
        return self._flow(inputs, self.t_span, training, mask)

    def inverse(self, outputs, mask=None):
        """Integrates backwards from t1 to t0: the inputs that lead to `outputs`.

        Args:
            outputs: A floating tensor shaped as the outputs of the layer.
            mask: The mask that the layer was called with, if any.

        Returns:
            The state at t0, up to the error of the solver.
        """
        outputs = as_state(outputs, "outputs")
        if not self.built:
            self.build(outputs.shape)
        return self._flow(outputs, self.t_span[::-1], None, mask)

    def _flow(self, inputs, t_span, training, mask):
        field, params = self.field(mask)
        adjoint = self.adjoint if training else for_inference(self.adjoint, self.steps)

        def solve():
            y, stats = integrate(
                field,
                as_state(inputs),
                params,
                np.array(t_span),
                solver=self.solver,
                steps=self.steps,
                adjoint=adjoint,
                name=f"the layer {self.name!r}",
                fails=not (training and self.tally.skips),
            )
            return ops.cast(y[0], self.compute_dtype), stats

        y, stats = backend.held_by_outputs(solve)
        if training and self.is_adaptive:
            self.tally.add(stats, inputs)
        return y

    def field(self, mask=None):
        """The dynamics as a vector field, and their parameters."""
        return vector_field(
            self.dynamics, self.adjoint.differentiates_closures, mask=mask
        )

    def weights_at(self, t):
        """The weights of the dynamics at the times t, as `TimeVarying.weights_at`.

        Args:
            t: A number or a sequence of n times.

        Returns:
            A list of tensors, one for each trainable weight of the dynamics' layer.
            Each has the weight's shape if `t` is a number, else `(n, *shape)`.

        Raises:
            ValueError: if the weights do not vary in time.
        """
        if not isinstance(self.dynamics, TimeVarying):
            raise ValueError(
                f"The weights of the ODE {self.name!r} do not vary in time. Put "
                "`layers.TimeVarying` around its dynamics, or read the `weights` of "
                f"these. Received: dynamics={self.dynamics!r}"
            )
        return self.dynamics.weights_at(t)

    def _slope(self, x):
        if isinstance(self.dynamics, TimeVarying):
            return self.dynamics(x, t=self.t_span[0])
        field, params = self.field()
        return field.func(ops.convert_to_tensor(self.t_span[0]), x, params)

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        # TensorFlow asks for it. A function that trains reads the tally, and can be
        # saved only if the tally is found; checkpoints stay as they are.
        children = super()._trackable_children(save_type, **kwargs)
        if save_type != "savedmodel":
            return children
        return {**children, "tally": self.tally.resource}

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, training=None, mask=None):
        checks.floating("inputs", inputs)
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "solver": solvers.serialize(self.solver),
            "steps": serialize_steps(self.steps),
            "t_span": self.t_span,
            "adjoint": adjoints.serialize(self.adjoint),
        }
