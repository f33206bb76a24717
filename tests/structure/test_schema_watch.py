"""Fields and values that no model knows are counted by their path."""

import json
import re
from typing import TypeVar

import attrs
from hypothesis import given
from hypothesis import strategies as st

from ief_async import (
    IefSession,
    Pod,
    RetryPolicy,
    Token,
)
from ief_async._structure.envelope import split
from ief_async._structure.schema_watch import SchemaWatch

T = TypeVar("T")

QUICK = RetryPolicy(attempts=2, base=0, throttled_base=0)


async def list_pods(fake, **options):
    """Ask a fake server for one page."""
    ief = IefSession(
        fake.project_id,
        credentials=Token(fake.token),
        endpoint=fake.endpoint,
        retry=QUICK,
        **options,
    )
    async with ief:
        return await ief.list_pods(deployment_id=fake.deployment_ids[0], limit=10)


# ---- what the models do not know -----------------------------------------------------------------


def looked(*rows, model=Pod):
    """Return what a schema watch counts in these rows."""
    watch = SchemaWatch(model)
    watch.look([json.dumps(row).encode() for row in rows])
    return dict(watch.unknown_fields), dict(watch.unknown_values)


def test_unknown_fields_are_counted_by_their_path():
    """A key that no class has is counted wherever it stands; labels may be named as they like."""
    pod = {
        "id": "p",
        "phase": 1,
        "containers": [{"ports": [{"mode": "x"}, {"mode": "y"}]}, {"state": "odd"}],
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"whatever": "x"}}, "new": 1}
                ]
            }
        },
    }
    term = "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[].new"

    fields, values = looked(pod, {"id": "q", "phase": 2})

    assert {"phase": 2, "containers[].ports[].mode": 2, term: 1} == fields
    assert {} == values


def test_unknown_words_are_counted_where_the_words_are_known():
    """A new state or scheme is counted; an empty word, a known one and a free text are not."""
    probe = {"http_get": {"scheme": "h2"}}
    pods = [
        {"id": "a", "state": "SLEEPING", "name": "x", "containers": [{"liveness_probe": probe}]},
        {"id": "b", "state": "", "containers": [{"volumes": [{"type": "nfs"}]}]},
        {"id": "c", "state": "RUNNING", "containers": [{"npu_type": ""}]},
    ]

    assert (
        {},
        {
            "state=SLEEPING": 1,
            "containers[].liveness_probe.http_get.scheme=h2": 1,
            "containers[].volumes[].type=nfs": 1,
        },
    ) == looked(*pods)


def test_watch_stays_small_whatever_comes():
    """A hundred names are told apart, 64 characters each; the rest is one."""
    fields, values = looked({f"{at}{'x' * 100}": 1 for at in range(300)}, {"state": "S" * 100})

    assert 101 == len(fields)
    assert 200 == fields["…"]
    assert max(map(len, fields)) == 64
    assert [f"state={'S' * 64}"] == list(values)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([field.name for field in attrs.fields(Pod)]), inner)
        ),
        max_leaves=20,
    )
)
def test_watch_takes_any_json(value):
    """Whatever JSON comes in a row, looking at it raises nothing."""
    looked(value)


def test_known_words_are_those_of_the_docstring():
    """The words that the watch knows of a pod's state are those that its docstring lists."""
    known = attrs.fields(Pod).state.metadata["known"]

    listed = Pod.__doc__.partition("state: ")[2].partition("whatever")[0]
    assert set(re.findall("``([A-Z_]+)``", listed)) == known


def test_row_of_a_million_keys_is_not_looked_through():
    """What the models do not know is looked for in rows of a size that rows have."""
    keys = b",".join(b'"k%d":%d' % (n, n) for n in range(100_000))
    watch = SchemaWatch(Pod)

    watch.look(
        [
            b'{"id":"a",%b}' % keys,
            *split(b'{"count":1,"pods":[{"id":"0",%b}]}' % keys, key="pods").raw,
        ]
    )
    assert {} == watch.unknown_fields
    watch.look([b'{"id":"a","new":1}'])
    assert {"new": 1} == watch.unknown_fields
