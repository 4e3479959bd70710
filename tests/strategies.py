"""Post-processing steps and their parameters for property tests, drawn from their definitions."""

from __future__ import annotations

from hypothesis import strategies as st
from pydantic import TypeAdapter

from nx47dask.steps import STEPS
from nx47dask.steps.dimensions import Choices
from nx47dask.steps.parameters import parameters

NEAR, FAR = 2, 60
"""How far above its least value a whole number is drawn, with few values and with many: volumes of tests are small."""


def values_of(schema):
    """Values that a JSON schema allows, the small ones of numbers."""
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            most = schema.get("maximum", 10**9)
            return st.integers(least, min(most, least + (NEAR if most <= 1000 else FAR)))
        case "number":
            above = 0.05 if "exclusiveMinimum" in schema else 0
            return st.floats(least + above, min(schema["maximum"], least + 1.5))
        case "array":
            item = schema["prefixItems"][0] if "prefixItems" in schema else schema["items"]
            return st.lists(values_of(item), min_size=schema.get("minItems", 0), max_size=schema["maxItems"])
    raise AssertionError(schema)


def values_for(parameter):
    """Values of a parameter: small ones within its limits, and the choices that a search has."""
    allowed = values_of(parameter.schema)
    return allowed | st.sampled_from(parameter.search.values) if isinstance(parameter.search, Choices) else allowed


@st.composite
def steps(draw, takes, gives):
    """A step of :data:`STEPS` of a kind, as an item of a workflow file."""
    names = [name for name, step in STEPS.items() if (step.takes, step.gives) == (takes, gives)]
    name = draw(st.sampled_from(names))
    drawn = draw(st.fixed_dictionaries({key: values_for(p) for key, p in parameters(STEPS[name]).items()}))
    if TypeAdapter(STEPS[name]).validate_python(drawn).problem():
        return {name: {}}
    return {name: drawn}
