"""Gates: what can be read, what passes, what the messages say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nx47dask.errors import GateError, InputError
from nx47dask.runs.gates import Gate, check_gates, parse_gates, require_passed
from nx47dask.runs.measures import NAMES


def test_gates_are_read():
    assert parse_gates(" score>=0, recall >= -0.01,voi<=1e-3") == [
        Gate("score", ">=", 0),
        Gate("recall", ">=", -0.01),
        Gate("voi", "<=", 0.001),
    ]


@given(
    st.lists(
        st.builds(
            Gate,
            st.sampled_from(NAMES),
            st.sampled_from([">=", "<="]),
            st.integers(-(10**5), 10**5).map(lambda n: n / 1000),
        ),
        min_size=1,
    )
)
def test_gates_read_back_as_they_are_written(gates):
    assert parse_gates(",".join(map(str, gates))) == gates


@pytest.mark.parametrize("text", ["", ",", "score>=0,", "score", "score>0", "score==0", "score>=", "score>=low",
                                  "score>=nan", "score>=inf", "score>=0 recall>=0"])  # fmt: skip
def test_malformed_gates_are_refused_with_the_grammar(text):
    with pytest.raises(InputError, match=r"expected NAME>=VALUE or NAME<=VALUE.*names: score, .*density"):
        parse_gates(text)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"no value 'speed'; known: score, .*, density, components"):
        parse_gates("speed>=0")
    with pytest.raises(InputError, match=r"no value 'speed'; known: density, components$"):
        parse_gates("speed>=0", scored=False)


def test_a_score_needs_labels():
    with pytest.raises(InputError, match=r"recall needs scores of both runs.*--labels"):
        parse_gates("density>=0,recall>=0", scored=False)
    assert parse_gates("components<=0", scored=False) == [Gate("components", "<=", 0)]


@pytest.mark.parametrize(
    ("gate", "difference", "passed"),
    [
        ("score>=0", 0, True),
        ("score>=0", -1e-13, True),
        ("score>=0", -1e-11, False),
        ("score>=-0.01", -0.0100000000000001, True),
        ("score>=-0.01", -0.0101, False),
        ("score<=0.5", 0.5, True),
        ("score<=0.5", 0.51, False),
        ("score>=0", float("nan"), False),
    ],
)
def test_limits(gate, difference, passed):
    (result,) = check_gates(parse_gates(gate), {"score": 0}, {"score": difference})
    assert result.passed is passed
    assert result.as_dict()["passed"] is passed


def test_failed_gates_are_named_with_both_values_and_the_difference():
    gates = parse_gates("score>=0,recall>=-0.01,density<=0.1")
    results = check_gates(
        gates, {"score": 0.5, "recall": 0.75, "density": 0.1}, {"score": 0.375, "recall": 0.5, "density": 0.1}
    )
    with pytest.raises(GateError) as error:
        require_passed(results)
    assert "2 of 3 gates" in str(error.value)
    assert "score>=0 failed: score 0.5 -> 0.375, difference -0.125" in str(error.value)
    assert "recall>=-0.01 failed: recall 0.75 -> 0.5, difference -0.25" in str(error.value)
    assert "density" not in str(error.value)
    require_passed(results[2:])


def test_a_mean_that_one_run_lacks_is_refused():
    with pytest.raises(InputError, match="score>=0: score is not known of both runs; known here: density"):
        check_gates(parse_gates("score>=0"), {"density": 0.1}, {"score": 1, "density": 0.1})
