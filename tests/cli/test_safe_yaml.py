import pytest
import yaml

from flops_fit.cli import safe_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("010", 10),
        ("1_000", 1000),
        ("1e15", 1e15),
        ("1.5E-3", 1.5e-3),
        (".5", 0.5),
        ("3e8", 3e8),
        ("true", True),
        ("False", False),
        ("NULL", None),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("2026-11-25", "2026-11-25"),
        ("my.module:Net", "my.module:Net"),
        ("[1, 2e3]", [1, 2e3]),
        ("'4'", "4"),
        ("[1", "[1"),
    ],
)
def test_a_scalar_reads_as_people_expect(text, value):
    read = safe_yaml.scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_infinity_is_a_number():
    assert safe_yaml.scalar(".inf") == float("inf")


def test_no_object_is_made():
    with pytest.raises(yaml.YAMLError, match=r"got the tag !!python/object.apply"):
        safe_yaml.load('!!python/object/apply:os.system ["true"]')


def test_a_key_given_twice_is_an_error():
    with pytest.raises(yaml.YAMLError, match="'model' is given twice"):
        safe_yaml.load("model: a\nmodel: b")
