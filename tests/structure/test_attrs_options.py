"""What a stream makes of a row is what calling the model makes of it, whatever attrs was told."""

import abc
import functools
import json
import random
import types
import weakref
from typing import Any

import attr
import attrs
import cattrs
import pytest

from ief_async import PayloadError
from ief_async._structure.structure import structure_of

ROWS = (
    {"id": "a"},
    {"id": "A", "x": 5},
    {"id": "b", "x": 5, "y": 6, "more": 7},
    {"id": "c", "x": 500, "z": 8, "_z": 7},
)
NAMES = ("made", "seen", "twice", "args", "_attrs_cached_hash")


def said_of(item, model):
    """Return all that can be seen of an item; an error where something of it is not there."""

    def seen(look):
        try:
            return look()
        except Exception as error:  # noqa: BLE001  that is what is compared
            return type(error)

    return [
        type(item) is model,
        seen(lambda: repr(item)),
        # an own identity is no difference
        seen(lambda: model.__hash__ is object.__hash__ or hash(item)),
        seen(lambda: len({item, item})),
        seen(lambda: item == attrs.evolve(item)),
        seen(lambda: attrs.asdict(item)),
        seen(lambda: weakref.ref(item)() is item),
        *[seen(functools.partial(getattr, item, field.name)) for field in attrs.fields(model)],
        *[seen(functools.partial(getattr, item, name)) for name in NAMES],
    ]


def differences(model, rows=ROWS):
    """Return the rows of which a stream makes something else than a plain converter."""
    structure, converter = structure_of(model), cattrs.Converter()
    found = []
    for row in rows:
        try:
            wanted = said_of(converter.structure(row, model), model)
        except Exception:  # noqa: BLE001  whatever ails it
            wanted = None
        try:
            (item,) = structure.items([json.dumps(row).encode()], [0], key="pods")
            got = said_of(item, model)
        except PayloadError:
            got = None
        if wanted != got:
            found.append((row, wanted, got))
    return found


# ---- one kind at a time --------------------------------------------------------------------------

KINDS = {}


def kind(make):
    """Note a function that makes a model."""
    KINDS[make.__name__.removeprefix("_")] = make
    return make


def model_of(*, define=attrs.define, bases=(), metaclass=type, options=None, **body):
    """Return an attrs class with `id`, `x` and `y`, and with these methods and fields."""
    said = {
        "__annotations__": {"id": str, "x": int, "y": int, **body.pop("annotations", {})},
        "x": 0,
        "y": 7,
        **body,
    }
    own = types.new_class(
        "Model", bases, {"metaclass": metaclass}, lambda names: names.update(said)
    )
    return define(**(options or {}))(own)


@kind
def _hash_that_is_cached():
    return model_of(define=attrs.frozen, options={"cache_hash": True})


@kind
def _hash_that_is_cached_without_slots():
    return model_of(define=attrs.frozen, options={"cache_hash": True, "slots": False})


@kind
def _hash_that_is_cached_of_a_class_that_changes():
    return model_of(options={"cache_hash": True, "unsafe_hash": True})


@kind
def _hash_that_is_cached_within():
    inner = model_of(define=attrs.frozen, options={"cache_hash": True})
    return model_of(define=attrs.frozen, annotations={"y": inner}, y=inner("inner"))


@kind
def _pre_init():
    def run(self):
        object.__setattr__(self, "x", 99)

    return model_of(__attrs_pre_init__=run)


@kind
def _pre_init_of_arguments():
    def run(self, id, x=0, y=7):  # noqa: A002  the field's name
        self.seen = (id, x, y)

    return model_of(options={"slots": False}, __attrs_pre_init__=run)


@kind
def _post_init():
    def run(self):
        self.x += 1
        self.seen = self.id

    return model_of(options={"slots": False}, __attrs_post_init__=run)


@kind
def _own_init():
    def init(self, id, x=0, y=7):  # noqa: A002  the field's name
        self.__attrs_init__(id + "!", x, y)

    return model_of(__init__=init)


@kind
def _own_new():
    def new(cls, *given, **named):
        made = object.__new__(cls)
        made.made = len(given) + len(named)
        return made

    return model_of(options={"slots": False}, __new__=new)


@kind
def _own_setattr():
    def change(self, name, value):
        object.__setattr__(self, name, value + 1 if name == "x" else value)

    return model_of(__setattr__=change)


@kind
def _setattr_of_a_base():
    class Base:
        def __setattr__(self, name, value):
            object.__setattr__(self, name, value + 1 if name == "x" else value)

    return model_of(bases=(Base,), options={"slots": False})


def magic(_, name):
    """Give any attribute."""
    if name.startswith("__") or name in NAMES:
        raise AttributeError(name)
    return "magic"


@kind
def _own_getattr():
    return model_of(__getattr__=magic)


@kind
def _own_getattr_without_slots():
    return model_of(__getattr__=magic, options={"slots": False})


@kind
def _own_getattribute():
    def read(self, name):
        return 5 if name == "y" else object.__getattribute__(self, name)

    return model_of(__getattribute__=read)


@kind
def _error():
    return model_of(bases=(Exception,))


@kind
def _error_without_slots():
    return model_of(bases=(Exception,), options={"slots": False})


@kind
def _list_with_fields():
    return model_of(bases=(list,), options={"slots": False})


@kind
def _text_with_fields():
    return model_of(bases=(str,), options={"slots": False, "eq": False})


@kind
def _abstract_class():
    class Base(abc.ABC):
        @abc.abstractmethod
        def method(self):
            """Do something."""

    return model_of(bases=(Base,), metaclass=abc.ABCMeta)


@kind
def _class_whose_class_is_called():
    class Meta(type):
        def __call__(cls, *given, **named):
            made = super().__call__(*given, **named)
            made.x += 1
            return made

    return model_of(metaclass=Meta)


@kind
def _converter():
    return model_of(x=attrs.field(default=0, converter=lambda value: value + 1))


@kind
def _validator():
    return model_of(x=attrs.field(default=0, validator=attrs.validators.lt(100)))


@kind
def _validator_that_looks_around():
    def check(item, _, value):
        if value > item.y:
            raise ValueError

    return model_of(x=attrs.field(default=0, validator=check))


@kind
def _alias():
    return model_of(x=attrs.field(default=0, alias="z"))


@kind
def _private_field():
    return model_of(annotations={"_z": int}, _z=3)


@kind
def _no_argument():
    return model_of(x=attrs.field(default=4, init=False))


@kind
def _factory_of_the_object():
    made = attrs.Factory(lambda self: len(self.id), takes_self=True)
    return model_of(x=attrs.field(default=made))


@kind
def _default_that_is_shared():
    return model_of(annotations={"more": Any}, more=[1])


@kind
def _hook_on_change():
    return model_of(x=attrs.field(default=0, on_setattr=lambda _, __, value: value + 1))


@kind
def _no_change():
    return model_of(options={"on_setattr": attrs.setters.frozen})


@kind
def _property_that_is_cached():
    def twice(self):
        return self.x * 2

    found = functools.cached_property(twice)
    return model_of(twice=found)


@kind
def _state():
    def refuse(_, __):
        raise RuntimeError

    return model_of(__setstate__=refuse, options={"unsafe_hash": True})


@kind
def _transformed_types():
    def change(_, fields):
        return [one.evolve(type=str) if one.name == "x" else one for one in fields]

    return model_of(options={"field_transformer": change})


@kind
def _transformed_converters():
    def change(_, fields):
        return [one.evolve(converter=lambda value: value) for one in fields]

    return model_of(options={"field_transformer": change})


@kind
def _annotation_that_is_not_the_type():
    model = model_of()
    model.__annotations__ = {"id": str, "x": str, "y": str}
    return model


@kind
def _old_style():
    return attr.s(
        type("Old", (), {"id": attr.ib(type=str), "x": attr.ib(type=int, default=0)}), hash=True
    )


@kind
def _subclass_without_attrs():
    class Plain(model_of()):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            self.x += 1

    return Plain


@kind
def _weak_references():
    return model_of(options={"weakref_slot": False, "unsafe_hash": True})


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_each_option_means_what_attrs_says(make):
    """An item has the hash, the text, the attributes and the hooks that calling its class gives."""
    assert [] == differences(make())


def test_items_with_a_cached_hash_may_stand_in_a_set():
    """Frozen classes that cache their hash are values as others are, in containers and pickles."""

    @attrs.frozen(cache_hash=True)
    class Cached:
        id: str
        x: int = 0

    structure = structure_of(Cached)
    rows = [b'{"id":"a"}', b'{"id":"a","x":0}', b'{"id":"b"}']
    items = structure.items(rows, range(3), key="pods")

    assert {Cached("a"), Cached("b")} == {*items}
    assert {Cached("a"): 1} == {items[1]: 1}


def test_usual_models_keep_the_fast_path():
    """What attrs does by itself is no reason to take the slow path."""
    usual = (
        "hook_on_change",
        "validator",
        "property_that_is_cached",
        "weak_references",
        "post_init",
    )
    for make in map(KINDS.get, usual):
        assert structure_of(make()).fast
    assert structure_of(model_of(define=attrs.frozen)).fast
    assert structure_of(model_of(options={"slots": False, "kw_only": True})).fast


# ---- together ------------------------------------------------------------------------------------


def drawn(chance):
    """Return a model with options that are drawn, some of them together."""
    options = {
        "slots": chance.choice([True, False]),
        "kw_only": chance.choice([True, False]),
        "frozen": chance.choice([True, False]),
        "weakref_slot": chance.choice([True, False]),
        "order": chance.choice([True, False]),
    }
    options["unsafe_hash"] = chance.choice([None, True])
    hashes = options["frozen"] or options["unsafe_hash"]
    options["cache_hash"] = bool(hashes) and chance.random() < 0.3
    body = {}
    if chance.random() < 0.3:
        made = KINDS[chance.choice(["converter", "validator", "alias", "no_argument"])]()
        field = attrs.fields(made).x
        body["x"] = attrs.field(
            default=0,
            converter=field.converter,
            validator=field.validator,
            init=field.init,
            alias=field.alias,
        )
    for name, make in {
        "__attrs_pre_init__": lambda: lambda self: object.__setattr__(self, "y", 99),
        "__attrs_post_init__": lambda: lambda self: object.__setattr__(self, "y", self.x + 1),
        "__getattr__": lambda: magic,
        "twice": lambda: functools.cached_property(lambda self: self.y),
    }.items():
        if chance.random() < 0.15:
            body[name] = make()
    if "twice" in body:
        body["twice"].__set_name__(None, "twice")
        if "__getattr__" in body and not options["slots"]:
            del body["twice"]
    return model_of(options=options, **body)


@pytest.mark.parametrize("seed", range(150))
def test_options_together_mean_what_attrs_says(seed):
    """Likewise of any of them in one class."""
    assert [] == differences(drawn(random.Random(seed)))
