"""The lines that say how two settings differ."""

from common.differences import differences


def test_each_difference_is_a_line_by_dotted_key() -> None:
    old = {"b": 1, "a": {"x": 1, "y": [1, 2]}, "gone": 3, "same": {"z": None}}
    new = {"b": 1, "a": {"x": 2, "y": [1, 2], "added": {"deep": "v"}}, "same": {}}
    assert differences(old, new) == {
        "a.added.deep": "a.added.deep: absent -> v",
        "a.x": "a.x: 1 -> 2",
        "gone": "gone: 3 -> absent",
    }
    assert differences(old, old) == {}
