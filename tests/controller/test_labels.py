import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray._private.label_utils import validate_label_selector

from sliceform.controller.model.selectors import check_selector, matches

pieces = st.sampled_from(["a", "B2", "-", ".", "_", "/", "!", "in(", "(", ")", ",", ", ", " ", "x" * 62, "é", "\n"])
texts = st.lists(pieces, max_size=6).map("".join)


@given(texts, texts)
def test_what_is_accepted_ray_accepts(key, condition):
    try:
        check_selector({key: condition})
    except ValueError:
        return
    assert validate_label_selector({key: condition}) is None


@pytest.mark.parametrize("key", ["pool", "ray.io/tpu-slice-name", "a.b_c-d", "x" * 63, "example.com/" + "x" * 63])
@pytest.mark.parametrize("condition", ["a", "!a", "in(a)", "in(a,b)", "in(a, b)", "!in(a,b)", "x" * 63])
def test_valid_selectors_are_accepted(key, condition):
    check_selector({key: condition})


@pytest.mark.parametrize("key", ["", "/pool", "pool/", "-pool", "x" * 64, "p" * 254 + "/pool", "my pool"])
def test_wrong_names_are_refused(key):
    with pytest.raises(ValueError, match="is no name of a label"):
        check_selector({key: "a"})


@pytest.mark.parametrize(
    "condition", ["", "!", "!!a", "in()", "!in()", "in(a,)", "in(a,!b)", "a,b", "-a", "x" * 64, "a\n"]
)
def test_wrong_conditions_are_refused(condition):
    with pytest.raises(ValueError, match="is no condition on label pool"):
        check_selector({"pool": condition})


@pytest.mark.parametrize(
    ("condition", "holds_for"),
    [
        ("a", {"a"}),
        ("!a", {"b", "c", None}),
        ("in(a,b)", {"a", "b"}),
        ("in(a, b)", {"a", "b"}),
        ("!in(a,b)", {"c", None}),
        ("!in(a)", {"b", "c", None}),
    ],
)
def test_conditions_mean_what_they_mean_to_ray(condition, holds_for):
    for value in ("a", "b", "c", None):
        labels = {} if value is None else {"pool": value}
        assert matches(labels, {"pool": condition}) == (value in holds_for)


def test_all_conditions_have_to_hold():
    assert matches({"pool": "a", "zone": "z"}, {"pool": "a", "zone": "!y"})
    assert not matches({"pool": "a", "zone": "y"}, {"pool": "a", "zone": "!y"})
    assert matches({}, {})
