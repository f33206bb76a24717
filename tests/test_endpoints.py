"""The table of lists: what a row says is what session and command do."""

from typing import get_overloads

import attrs
import pytest

from ief_async import IefSession
from ief_async._endpoints import LISTINGS, ListOptions
from ief_async.cli._arguments import parser_of
from ief_async.cli._output import COLUMNS, columns_of, fields_of

each_list = pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)


@each_list
def test_row_has_its_method(listing):
    """The session streams each list by the method that its row names."""
    method = getattr(IefSession, listing.operation)

    returned = get_overloads(method)[0].__annotations__["return"]
    assert str(returned).endswith(f"{listing.document}]")


@each_list
def test_row_has_its_command(listing):
    """The command lists each, with the filters and the largest page of its row."""
    arguments = [listing.name, "--page-size", str(listing.most_rows)]
    for name in listing.filters:
        arguments += [f"--{name.replace('_', '-')}", "x"]
    given = parser_of().parse_args(arguments)

    assert {"x"} >= {getattr(given, name) for name in listing.filters}
    assert listing.most_rows == given.page_size
    assert listing.page_size == parser_of().parse_args([listing.name]).page_size


@each_list
def test_page_of_the_command_is_one_that_the_service_gives(listing):
    """No row asks for more rows than a page may have."""
    assert listing.page_size <= listing.most_rows


@each_list
def test_columns_are_fields_of_the_model(listing):
    """Every column of the command's tables is filled from documented fields."""
    usual, more = columns_of(listing)

    assert {*fields_of([*usual, *more])} <= {field.name for field in attrs.fields(listing.model)}


@each_list
def test_new_list_has_the_usual_columns(listing, monkeypatch):
    """A list without columns of its own shows name, state, id and age, as far as it has them."""
    monkeypatch.delitem(COLUMNS, listing.name, raising=False)
    usual, more = columns_of(listing)

    known = {field.name for field in attrs.fields(listing.model)}
    titles = {"name": "NAME", "state": "STATE", "id": "ID", "created_at": "AGE"}
    assert [title for field, title in titles.items() if field in known] == [
        column.title for column in usual
    ]
    assert () == more


@each_list
def test_filters_are_the_services_own(listing):
    """How a list is read is not a filter."""
    assert not {*listing.filters} & {*ListOptions.__annotations__}
    assert {*listing.exclusive} <= {*listing.filters}
