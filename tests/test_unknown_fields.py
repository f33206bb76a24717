"""Fields of a model that no row has: a misspelt one is said, and all others are silent."""

import json
import logging
import random
from contextlib import asynccontextmanager
from typing import Annotated, Any

import attrs
import cattrs
import pytest
from conftest import session_with

from ief_async import (
    ConfigurationError,
    Container,
    Pod,
    Target,
    Token,
    scan_fleet,
)
from ief_async._endpoints import LISTINGS, PODS
from ief_async.testing import Account, FakeIef, Fault


@attrs.frozen(kw_only=True)
class Misspelt:
    """A model with a typing error: plain fields, so that a page of it is made at once."""

    id: str
    stat: str | None = None


@attrs.frozen(kw_only=True)
class Probed:
    """A part of a container, with another."""

    name: str | None = None
    livenes_probe: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Nested:
    """A model whose error is in a class within it."""

    id: str
    containers: tuple[Probed, ...] = ()


@attrs.frozen(kw_only=True)
class Labels:
    """A class in the place of what may hold any key."""

    app: str | None = None


@attrs.frozen(kw_only=True)
class Tagged:
    """An instance with its tags as objects."""

    id: str
    tags: Labels | None = None


@attrs.frozen(kw_only=True)
class Tree:
    """A class that contains itself."""

    id: str
    state: str | None = None
    parent: "Tree | None" = None


@attrs.frozen(kw_only=True)
class Derived:
    """Fields that are read from no key of their own name, or from none."""

    id: str
    label: str = attrs.field(init=False, default="x")
    title: Annotated[str | None, cattrs.override(rename="name")] = None
    secret: Annotated[int, cattrs.override(omit=True)] = 5
    state: str | None = attrs.field(default=None, alias="status")


@attrs.frozen(kw_only=True)
class Lately:
    """A field that the service has, though no document names it."""

    id: str
    host_network_new: str | None = None


@asynccontextmanager
async def fleet(pods=30, **options):
    """Run a fake fleet and a session with it."""
    async with FakeIef(pods, **options) as fake, session_with(fake) as ief:
        yield fake, ief


def target_of(fake):
    """Return a fake server as a target."""
    return Target(project_id=fake.project_id, endpoint=fake.endpoint, credentials=Token(fake.token))


def listed(key, *rows):
    """Return an answer with these rows."""
    return Fault.body(json.dumps({"count": len(rows), key: rows}).encode())


@pytest.mark.parametrize(
    ("model", "names", "hint"),
    [
        (Misspelt, ("stat",), "stat (is state meant?)"),
        (
            Nested,
            ("containers[].livenes_probe",),
            "containers[].livenes_probe (is liveness_probe meant?)",
        ),
        (Tree, ("parent",), "parent"),
        (Derived, (), ""),
        (Pod, (), ""),
    ],
)
async def test_a_misspelt_field_is_said_once(model, names, hint, caplog):
    """At the first page a warning names it and what may be meant; the report holds its name."""
    async with fleet() as (fake, ief):
        with caplog.at_level(logging.WARNING, "ief_async"):
            stream = ief.iter_pods(fake.deployment_ids, model=model, batch_size=1, page_size=5)
            items = await stream.collect()
    said = [one for one in caplog.messages if "the model has fields" in one]

    assert 30 == len(items)
    assert names == stream.report.unknown_model_fields
    assert bool(names) == len(said)
    assert hint in "".join(said)


@pytest.mark.parametrize("model", [Misspelt, Nested])
@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
async def test_it_is_an_error_if_that_is_asked(model, on_error):
    """Under every policy, at every door, before an item comes."""
    async with fleet() as (fake, ief):
        options = {"model": model, "on_unknown_field": "raise"}
        seen = []
        for stream in (
            ief.iter_pods(fake.deployment_ids, on_error=on_error, **options),
            scan_fleet([target_of(fake)], on_error=on_error, **options),
        ):
            with pytest.raises(ConfigurationError, match="meant"):
                seen = [item async for item in stream]
        with pytest.raises(ConfigurationError, match="meant"):
            await ief.list_pods(deployment_ids=fake.deployment_ids, **options)
    assert [] == seen


async def test_one_call_warns_too(caplog):
    """`list_pods` has no report, and says it all the same; of a good model it says nothing."""
    async with fleet() as (fake, ief):
        with caplog.at_level(logging.WARNING, "ief_async"):
            await ief.list_pods(deployment_ids=fake.deployment_ids, model=Pod)
            assert [] == caplog.messages
            await ief.list_pods(deployment_ids=fake.deployment_ids, model=Misspelt)
    assert 1 == len(caplog.messages)


@pytest.mark.parametrize("at", [0, 7, 149])
async def test_what_the_service_has_is_no_error(at, caplog):
    """A field that no document names is fine wherever a row of the first page has it."""
    rows = [{"id": f"p{one}"} for one in range(150)]
    rows[at]["host_network_new"] = None
    async with fleet(0) as (fake, ief):
        fake.script(listed("pods", *rows))
        stream = ief.iter_pods(["d"], model=Lately, page_size=200, on_unknown_field="raise")
        with caplog.at_level(logging.WARNING, "ief_async"):
            assert 150 == len(await stream.collect())
    assert () == stream.report.unknown_model_fields
    assert [] == caplog.messages


async def test_what_a_later_batch_has_leaves_the_report():
    """The warning was early; what the report says is of all rows that were looked at."""
    async with fleet(0) as (fake, ief):
        fake.script(listed("pods", {"id": "a"}), listed("pods", {"id": "b", "stat": "x"}))
        stream = ief.iter_pods(["d", "e"], model=Misspelt, batch_size=1, concurrency=1)
        assert ["a", "b"] == [item.id for item in await stream.collect()]
    assert () == stream.report.unknown_model_fields


async def test_an_empty_fleet_is_no_error():
    """Where no row came nobody can say that it has no such field; the report has its name."""
    async with fleet(0) as (_, ief):
        stream = ief.iter_pods(["d"], model=Misspelt, on_unknown_field="raise")
        assert [] == await stream.collect()
    assert ("stat",) == stream.report.unknown_model_fields


@pytest.mark.parametrize(
    "listing", [one for one in LISTINGS.values() if one is not PODS], ids=lambda one: one.name
)
async def test_every_list_says_it(listing):
    """The sibling lists do likewise, each by its own document."""
    model = attrs.make_class(
        "Row", {"id": attrs.field(type=str), "naem": attrs.field(type=str, default="")}
    )
    async with fleet(0) as (fake, ief):
        fake.script(*[listed(listing.key, {"id": "a"})] * 3)
        read = getattr(ief, listing.operation)
        with pytest.raises(ConfigurationError, match="naem"):
            await read(model=model, on_unknown_field="raise").collect()
        stream = read(model=model)
        await stream.collect()
        await read(model=listing.model, on_unknown_field="raise").collect()
    assert ("naem",) == stream.report.unknown_model_fields


async def test_where_any_key_may_come_nothing_is_misspelt():
    """Below what a document leaves open no field is called unknown."""
    async with fleet(0) as (fake, ief):
        fake.script(listed("ief_instances", {"id": "a", "tags": {"other": "x"}}))
        stream = ief.iter_instances(model=Tagged, on_unknown_field="raise")
        assert [Tagged(id="a", tags=Labels())] == await stream.collect()


async def test_a_fleet_says_what_no_target_has():
    """What some target has is known."""
    async with FakeIef(3) as one, FakeIef(3, account=Account(project_id="0" * 32)) as other:
        deployments = listed("deployments", {"id": "d"})
        one.script(deployments, listed("pods", {"id": "a"}))
        other.script(deployments, listed("pods", {"id": "b", "stat": "x"}))
        stream = scan_fleet(map(target_of, (one, other)), model=Misspelt)
        assert 2 == len(await stream.collect())
        assert () == stream.report.unknown_model_fields
        stream = scan_fleet([target_of(one)], model=Misspelt)
        await stream.collect()
    assert ("stat",) == stream.report.unknown_model_fields


@pytest.mark.parametrize("value", ["ignore", None, True, "skip"])
async def test_other_words_are_refused(value):
    """Only the two words are taken, before anything is sent."""
    async with fleet(0) as (fake, ief):
        with pytest.raises(ConfigurationError, match="on_unknown_field must be"):
            ief.iter_pods(["d"], on_unknown_field=value)
        with pytest.raises(ConfigurationError, match="on_unknown_field must be"):
            await ief.list_pods(node_id="n", on_unknown_field=value)
        assert 0 == fake.statistics().requests


async def test_files_say_it_too(tmp_path):
    """A sink has its own reader, and says what the stream says."""
    from ief_async.sinks import write_ndjson

    async with fleet() as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, model=Nested)
        await write_ndjson(stream, tmp_path / "pods.ndjson")
        assert ("containers[].livenes_probe",) == stream.report.unknown_model_fields
        with pytest.raises(ConfigurationError, match="livenes_probe"):
            await write_ndjson(
                ief.iter_pods(fake.deployment_ids, model=Nested, on_unknown_field="raise"),
                tmp_path / "more.ndjson",
            )


@pytest.mark.parametrize("seed", range(30))
async def test_exactly_the_misspelt_ones_are_said(seed):
    """Of any fields at two depths, some of them misspelt, those are named and no other."""
    chance = random.Random(seed)

    def made(documented, more):
        known = {field.name: field for field in attrs.fields(documented)}
        chosen = chance.sample(sorted(known), k=5)
        wrong = [f"{name}x" for name in chance.sample(chosen, k=chance.randrange(3))]
        fields = {
            name: attrs.field(default=None, type=Any) for name in (*chosen, *wrong) if name != "id"
        }
        return attrs.make_class("Part", fields | more, kw_only=True), wrong

    inner, wrong_inside = made(Container, {})
    inside = {"containers": attrs.field(factory=list, type=list[inner])}
    model, wrong = made(Pod, {"id": attrs.field(type=str), **inside})
    expected = {*wrong, *(f"containers[].{name}" for name in wrong_inside)}

    async with fleet(10, seed=seed) as (fake, ief):
        stream = ief.iter_pods(fake.deployment_ids, model=model)
        await stream.collect()
    assert expected == {*stream.report.unknown_model_fields}


async def test_a_key_that_cattrs_renames_is_read():
    """A renamed field is read from its key, null included, and is not taken for a misspelt one."""
    async with fleet(0) as (fake, ief):
        fake.script(listed("pods", {"id": "a", "name": "n"}, {"id": "b", "name": None}))
        stream = ief.iter_pods(["d"], model=Derived, on_unknown_field="raise")
        assert ["n", None] == [item.title for item in await stream.collect()]
