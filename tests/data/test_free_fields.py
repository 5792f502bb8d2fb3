from exp.data.free_fields import MOST_LISTED, learn_free_fields
from exp.records import Example


def test_fields_are_free_where_they_have_many_values(orders):
    names = [f"n{chr(97 + i % 26)}{i}" for i in range(MOST_LISTED + 1)]
    rows = [Example(name, "", {"name": name, "unit": f"u{i % 5}"}) for i, name in enumerate(names)]
    assert learn_free_fields(rows) == {("name",)}
    assert learn_free_fields(rows[:-1]) == frozenset()
    assert learn_free_fields(orders("train")) == {("lineas", "[]", "producto")}
