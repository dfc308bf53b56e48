import json

import keras
import pytest

from keras_nanode import tableaus
from keras_nanode.tableaus import Tableau


def test_rooted_trees_are_counted():
    # OEIS A000081.
    assert [len(tableaus._trees(n)) for n in range(1, 9)] == [
        1, 1, 2, 4, 9, 20, 48, 115,
    ]  # fmt: skip


@pytest.mark.parametrize("name", tableaus.ALL)
def test_order_is_the_stated_one_and_not_more(name):
    tableau = tableaus.ALL[name]
    assert tableaus.order_residual(tableau.a, tableau.b, tableau.order) < 1e-14
    assert tableaus.order_residual(tableau.a, tableau.b, tableau.order + 1) > 1e-3


@pytest.mark.parametrize("name", tableaus.ALL)
def test_a_changed_number_is_noticed(name):
    tableau = tableaus.ALL[name]
    b = (tableau.b[0] + 1e-6, *tableau.b[1:])
    with pytest.raises(ValueError, match=f"does not have order {tableau.order}.*state"):
        Tableau(name, tableau.order, tableau.a, b)


def test_an_implicit_table_is_refused():
    with pytest.raises(ValueError, match=r"not explicit.*Received: a=\(\(0.5,\),\)"):
        Tableau("implicit midpoint", 2, a=((0.5,),), b=(1.0,))


def test_names_and_objects():
    ssp3 = Tableau("ssp3", 3, ((), (1.0,), (0.25, 0.25)), (1 / 6, 1 / 6, 2 / 3))
    assert tableaus.get(ssp3) is ssp3
    assert tableaus.get("rk4").num_stages == 4
    assert tableaus.serialize(tableaus.get("rk4")) == "rk4"
    config = json.loads(json.dumps(tableaus.serialize(ssp3)))
    assert tableaus.get(config) == ssp3
    assert keras.saving.get_registered_name(Tableau) == "keras_nanode>Tableau"


def test_an_unknown_solver_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'euler'.*'rk4'.*Received: solver='rk5'"):
        tableaus.get("rk5")
