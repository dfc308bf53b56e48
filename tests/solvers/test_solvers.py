import json
import re
import time

import keras
import numpy as np
import pytest
from cases import EACH_KIND, SOLVERS

from keras_nanode import (
    Adaptive,
    Reversible,
    bases,
    layers,
    solvers,
    tableaus,
)
from keras_nanode.order_conditions import order_residual, trees
from keras_nanode.tableaus import Tableau

EMBEDDED = [name for name, tableau in tableaus.ALL.items() if tableau.b_embedded]
SSP3 = Tableau("ssp3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3))


def test_rooted_trees_are_counted():
    # OEIS A000081.
    assert [len(trees(n)) for n in range(1, 9)] == [
        1, 1, 2, 4, 9, 20, 48, 115,
    ]  # fmt: skip


@pytest.mark.parametrize("name", tableaus.ALL)
def test_order_is_the_stated_one_and_not_more(name):
    tableau = tableaus.ALL[name]
    assert order_residual(tableau.a, tableau.b, tableau.order) < 2e-14
    assert order_residual(tableau.a, tableau.b, tableau.order + 1) > 1e-6


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_row_has_one_order_less_and_not_more(name):
    tableau = tableaus.ALL[name]
    b = tableau.b_embedded
    assert order_residual(tableau.a, b, tableau.order - 1) < 2e-14
    assert order_residual(tableau.a, b, tableau.order) > 1e-6


def test_which_pairs_end_on_the_first_stage_of_the_next_step():
    """Bogacki and Shampine's, Dormand and Prince's and Tsitouras' do."""
    for name in ("bosh3", "dopri5", "tsit5"):
        assert tableaus.ALL[name].first_same_as_last
    assert not tableaus.ALL["dopri8"].first_same_as_last


@pytest.mark.parametrize("name", tableaus.ALL)
def test_a_changed_number_is_noticed(name):
    tableau = tableaus.ALL[name]
    b = (tableau.b[0] + 1e-6, *tableau.b[1:])
    with pytest.raises(ValueError, match=f"does not have order {tableau.order}.*state"):
        Tableau(name, tableau.order, tableau.a, b)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_changed_embedded_number_is_noticed(name):
    tableau = tableaus.ALL[name]
    b = (*tableau.b_embedded[:-1], tableau.b_embedded[-1] + 1e-6)
    message = f"order {tableau.order - 1} with the weights `b_embedded`"
    with pytest.raises(ValueError, match=message):
        Tableau(name, tableau.order, tableau.a, tableau.b, b)


def test_an_implicit_table_is_refused():
    with pytest.raises(ValueError, match=r"not explicit.*Received: a=\(\(0.5,\),\)"):
        Tableau("implicit midpoint", 2, a=((0.5,),), b=(1.0,))


def test_an_embedded_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"as in `b`, 2. Received: b_embedded=\(1.0,"):
        Tableau("heun", 2, ((), (1.0,)), (0.5, 0.5), (1.0,))


# The solvers made of them.


def test_the_tests_know_one_solver_of_each_kind():
    assert {type(SOLVERS[name]) for name in EACH_KIND} == set(
        map(type, SOLVERS.values())
    )


def test_names_and_objects():
    assert solvers.get(SSP3) == solvers.RungeKutta(SSP3)
    assert solvers.get(solvers.get("rk4")) is solvers.get("rk4")
    assert solvers.get("rk4").order == tableaus.ALL["rk4"].order == 4
    assert keras.saving.get_registered_name(Tableau) == "keras_nanode>Tableau"


def test_a_solver_is_shown_by_its_name():
    assert repr(solvers.get("dopri8")) == "RungeKutta('dopri8')"
    assert repr(solvers.get("alf")) == "AsynchronousLeapfrog('alf')"
    assert "heun" in repr(Reversible("heun")) and len(repr(Reversible("heun"))) < 60


@pytest.mark.parametrize(
    "solver",
    [*solvers.ALL, SSP3, Reversible("dopri5", 0.9), Reversible(SSP3)],
    ids=str,
)
def test_configuration_round_trip(solver):
    solver = solvers.get(solver)
    config = json.loads(json.dumps(solvers.serialize(solver)))
    assert solvers.get(config) == solver
    assert (config == solver.name) == (solver.name in solvers.ALL)


@pytest.mark.parametrize("solver", ["rk5", ["rk4"], None])
def test_an_unknown_solver_is_refused_with_the_known_ones(solver):
    message = rf"'rk4'.*'alf'.*Received: solver={re.escape(repr(solver))}"
    with pytest.raises(ValueError, match=message):
        solvers.get(solver)


@pytest.mark.parametrize("solver", ["alf", Reversible("heun"), "rk5"], ids=str)
def test_only_runge_kutta_methods_are_made_reversible(solver):
    with pytest.raises(ValueError, match="solver.*Received: solver="):
        Reversible(solver)


@pytest.mark.parametrize("coupling", [0, 1.1, np.nan])
def test_a_bad_coupling_is_refused(coupling):
    with pytest.raises(ValueError, match=rf"\(0, 1\]. Received: coupling={coupling}"):
        Reversible("heun", coupling)


TWO = {"name": "two", "order": 2, "a": ((), (1.0,)), "b": (0.5, 0.5)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": 30}, "at most 10. Received: order=30"),
        ({"order": 0}, "at least 1. Received: order=0"),
        ({"order": True}, "Received: order=True"),
        ({"b": (0.5, np.nan)}, "`b` must be finite numbers"),
        ({"a": ((), (np.inf,))}, "`a` must be finite numbers"),
        ({"a": ((), ("x",))}, "`a` must be finite numbers"),
        ({"b_embedded": (0.5, 0.5)}, "must not be those of `b`.*estimates the error"),
        ({"b": (0.5, 0.4)}, "violated by"),
        ({"a": 3}, "is not explicit"),
        ({"a": [[]] * 10**4}, r"is not explicit.*\.\.\."),
        ({"b": [0.0] * 1500}, "at most 100 weights. Received: b="),
        ({"name": 3}, "`name` must be a string. Received: name=3"),
    ],
)
def test_a_tableau_is_checked_also_when_a_file_holds_it(changes, message):
    with pytest.raises(ValueError, match=message):
        Tableau(**{**TWO, **changes})
    config = keras.saving.serialize_keras_object(Tableau(**TWO))
    config["config"].update(changes)
    with pytest.raises(ValueError, match=message):
        keras.saving.deserialize_keras_object(config)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (bases.Bucket, {"num_buckets": 10**12}, "at most 4096. Received: num_buckets="),
        (bases.Bucket, {"num_buckets": 65536}, "at most 4096. Received: num_buckets="),
        (bases.Polynomial, {"degree": 10**9}, "at most 100. Received: degree="),
        (bases.Legendre, {"degree": 101}, "at most 100. Received: degree="),
        (bases.Trigonometric, {"order": 3000}, "at most 2047. Received: order="),
        (bases.Cosine, {"size": 10**12}, "at most 4096. Received: size="),
        (bases.BSpline, {"size": 10**12}, "at most 4096. Received: size="),
        (bases.BSpline, {"size": 2000, "degree": 1000}, "at most 20.*degree=1000"),
    ],
)
def test_nothing_that_a_file_holds_of_a_basis_takes_long(kind, config, message):
    with pytest.raises(ValueError, match=message):
        kind.from_config(config)


def test_a_tableau_with_as_many_stages_as_are_allowed_is_checked_at_once():
    rows = [[0.0] * i for i in range(100)]
    start = time.perf_counter()
    Tableau("euler", 1, rows, [1.0, *[0.0] * 99])
    with pytest.raises(ValueError, match="does not have order 10"):
        Tableau("euler", 10, rows, [1.0, *[0.0] * 99])
    assert time.perf_counter() - start < 10


def test_nor_of_steps():
    with pytest.raises(ValueError, match="at most 10000000. Received: steps="):
        layers.ODE(keras.layers.Dense(2), steps=10**12)
    with pytest.raises(ValueError, match="at most 10000000. Received: max_steps="):
        Adaptive(max_steps=10**12)
    with pytest.raises(ValueError, match="at most 1000. Received: depth="):
        layers.ResidualStack(keras.layers.Dense(2), 1_001)
    nested = layers.ResidualStack(keras.layers.Dense(2), 40)
    with pytest.raises(ValueError, match="at most 25. Received: depth=26"):
        layers.ResidualStack(keras.Sequential([nested]), 26)
