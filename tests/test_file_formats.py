"""docs/file-formats.md beside a finished run: every file and every field of it is on the page with
its type, and the page has no field that nothing writes.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Line, lines
from warmstart.cli import main

PAGE = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
Place = tuple[str, ...]
"""A field's keys from the outside in; ``[]`` stands for an element of an array."""
TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "map": lambda value: isinstance(value, dict),
}
ANYTHING = dict.fromkeys(("FILE", "PATH", "ID"), ".+")
"""Words that may stand for a path; others stand for one name in it."""


@dataclass(frozen=True)
class Field:
    """A row of a table of fields."""

    place: Place
    types: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Returns whether a value has the type that the page gives."""
        for kind in self.types:
            outer, _, inner = kind.partition(" of ")
            if TYPES[outer](value) and (not inner or all(map(TYPES[inner], value))):
                return True
        return False

    def names(self, place: Place) -> bool:
        """Returns whether the field is the one at ``place``, or is what a map there holds."""
        if "map" in self.types:
            place = place[: len(self.place)]
        return len(place) == len(self.place) and all(
            re.fullmatch(pattern(ours), theirs)
            for ours, theirs in zip(self.place, place, strict=True)
        )


@dataclass(frozen=True)
class Section:
    """The table of the fields of one kind of file."""

    files: tuple[str, ...]
    text: str
    fields: tuple[Field, ...]

    @property
    def writers(self) -> list[str]:
        """The modules that write the fields."""
        return re.findall(r"`([\w/]+\.py)`", self.text)


def pattern(words: str) -> str:
    """Returns the regular expression of a name whose words in capitals stand for anything."""
    parts = re.split(r"([A-Z]+)", words)
    return "".join(ANYTHING.get(p, "[^/]+") if p.isupper() else re.escape(p) for p in parts)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def sections() -> Iterator[Section]:
    for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        part = re.split(r"^## ", part, flags=re.MULTILINE)[0]
        title, _, rest = part.partition("\n")
        text, _, table = rest.partition("| field | type | unit | meaning |\n|---|---|---|---|\n")
        rows = [cells(line) for line in table.splitlines() if line.startswith("| ")]
        assert rows and all(len(row) == 4 for row in rows), title
        found = (
            Field(
                tuple(re.sub(r"\[\]", ".[]", row[0].strip("`")).split(".")),
                tuple(re.split(" or ", row[1])),
            )
            for row in rows
        )
        yield Section(tuple(spans(title)), text, tuple(found))


SECTIONS = list(sections())
LISTED = [
    (name, cells(line)[2])
    for table in re.findall(r"^\| file \|.+\n\|-.+\n((?:\|.+\n)+)", PAGE, re.MULTILINE)
    for line in table.splitlines()
    for name in spans(cells(line)[0])
]
"""(name, format) of each file in the tables of files."""


def section_of(name: str) -> Section | None:
    found = [s for s in SECTIONS for file in s.files if re.fullmatch(pattern(file), name)]
    return found[0] if found else None


def values_in(path: Path) -> list[Any]:
    return lines(path) if path.suffix == ".jsonl" else [json.loads(path.read_text())]


def found_in(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yields (place, value) of every field of a JSON value; an array of plain values is one."""
    if place:
        yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from found_in(inner, (*place, key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            yield from (f for f in found_in(inner, (*place, "[]")) if f[0][-1] != "[]")


@cache
def known(section: Section, place: Place) -> tuple[Field, ...]:
    """Returns the fields of the page that a place is; several where words stand for anything."""
    return tuple(field for field in section.fields if field.names(place))


def faults(section: Section, values: list[Any]) -> list[str]:
    """Returns what a file's values have that the page has not, or has in another type."""
    wrong = {}
    for value in values:
        for place, inner in found_in(value):
            name, named = ".".join(place), known(section, place)
            if not named:
                wrong[name] = f"{name} is not on the page"
            elif not any(len(place) > len(f.place) or f.holds(inner) for f in named):
                wrong[name] = f"{name} is no {' or '.join(named[0].types)}: {str(inner)[:40]}"
    return list(wrong.values())


def seen_in(section: Section, values: list[Any]) -> set[Place]:
    """Returns the fields of the page that the values have."""
    places = {place for value in values for place, _ in found_in(value)}
    return {field.place for place in places for field in known(section, place)}


def names_in(module: str) -> set[str]:
    """Returns the texts, keyword arguments and annotated members of a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        match node:
            case ast.Constant(value=str(text)):
                found.add(text)
            case ast.keyword(arg=str(name)):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@pytest.fixture(scope="module")
def written(line: Line) -> list[Path]:
    return sorted(p for top in (line.data, line.run) for p in top.rglob("*") if p.is_file())


def test_every_file_of_a_finished_run_is_on_the_page(line: Line, written: list[Path]) -> None:
    assert len(written) > 50
    names = [str(path.relative_to(line.folder)) for path in written]
    unknown = [n for n in names if not any(re.fullmatch(pattern(p), n) for p, _ in LISTED)]
    assert unknown == []


def test_every_field_of_a_finished_run_is_on_the_page_with_its_type(
    line: Line, written: list[Path]
) -> None:
    checked = 0
    for path in written:
        name = str(path.relative_to(line.folder))
        if path.suffix not in (".json", ".jsonl"):
            continue
        section = section_of(name)
        if section is None:
            kinds = [kind for p, kind in LISTED if re.fullmatch(pattern(p), name)]
            assert re.search("Hugging Face|transformers", kinds[-1]), name
            continue
        assert faults(section, values_in(path)) == [], name
        checked += 1
    assert checked > 20


def test_columns_of_a_finished_run_are_those_of_the_page(line: Line) -> None:
    import pyarrow.parquet as pq

    from data_prep.tokenizer import token_files

    schemas = {
        "rows.parquet": pq.read_schema(line.data / "rows.parquet"),
        "tokens/train.arrow": token_files.read(line.data / "tokens" / "train.arrow").schema,
    }
    for name, schema in schemas.items():
        section = section_of(f"data/tiny/{name}")
        assert section is not None
        kinds = {f.name: re.sub(r"list<.+: (\w+)>", r"list of \1", str(f.type)) for f in schema}
        assert {field.place[0]: field.types[0] for field in section.fields} == kinds


def test_what_commands_print_as_json_is_on_the_page(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["status", str(line.run)], ["runs", str(line.run.parent)]):
        assert main([*words, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        (section,) = (s for s in SECTIONS if s.files[0].startswith(f"warmstart {words[0]} "))
        values = printed if isinstance(printed, list) else [printed]
        assert values and faults(section, values) == []


def records_of(section: Section) -> list[Any]:
    """Returns the dataclasses whose fields the section says it has."""
    named = re.findall(r"of\s+`((?:\w+\.)+)([A-Z]\w+)`", section.text)
    return [getattr(import_module(module.rstrip(".")), name) for module, name in named]


@cache
def written_words(section: Section) -> set[str]:
    records = {field.name for record in records_of(section) for field in fields(record)}
    return records.union(*map(names_in, section.writers))


def is_written(section: Section, place: Place) -> bool:
    """Returns whether the writers have the plain keys of a field, each alone or all as one text."""
    plain = [word for word in place if word != "[]" and pattern(word) == re.escape(word)]
    words = written_words(section)
    return ".".join(plain) in words or words.issuperset(plain)


def test_the_page_has_no_field_that_nothing_writes(line: Line, written: list[Path]) -> None:
    """A field is in the run's files, or its writer has its name."""
    names = {path: str(path.relative_to(line.folder)) for path in written}
    for section in SECTIONS:
        assert section.writers, section.files
        made = [path for path, name in names.items() if section_of(name) is section]
        made = [path for path in made if path.suffix in (".json", ".jsonl")]
        seen = set().union(*(seen_in(section, values_in(path)) for path in made))
        for field in section.fields:
            is_there = field.place in seen or is_written(section, field.place)
            assert is_there, (section.files[0], field.place)


def test_records_have_the_fields_of_the_page() -> None:
    of_records = [(section, record) for section in SECTIONS for record in records_of(section)]
    for section, record in of_records:
        ours = {field.place[0] for field in section.fields} - {"split"}
        assert ours == {f.name for f in fields(record)}, record
    assert len(of_records) == 8


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"status": "finished", "step": 3, "total": 3}, None),
        ({"status": "finished", "stopp": 3}, "stopp is not on the page"),
        ({"status": 7}, "status is no string: 7"),
        ({"step": 3.5}, "step is no integer: 3.5"),
        ({"step": None}, "step is no integer: None"),
    ],
)
def test_a_planted_field_is_found(value: Any, fault: str | None) -> None:
    section = section_of("runs/a/attempts/1/outcome.json")
    assert section is not None
    assert faults(section, [value]) == ([] if fault is None else [fault])
