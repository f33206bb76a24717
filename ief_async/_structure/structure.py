"""From the bytes of an answer to attrs objects. Pure: no clock, no loop, no socket.

cattrs is the authority on how JSON becomes objects; msgspec's decoder is its fast path.

1. `split` reads a whole body once: its count, the id of every row, and each row as raw bytes.
   A body that is not the documented envelope ends here, as a typed error.
2. `Structure.items` turns some of those rows into objects, so that a caller decides how many at a
   time: msgspec decodes them in one call. If it refuses something, only the rows that it refuses
   go through the cattrs converter, whose hooks bring the known contradictions of the service
   together: numbers for strings and back, null for lists, "" for "no number", "false" for False.
3. What that refuses too is a `PayloadError` that names the field and never shows a value.

Both paths mean the same. A text that stands for a number is read by msgspec's rules on either: so
"null" is no number as "" is, "1e2" is 100, and "nan" and "inf" are floats. What no field takes is
skipped unread on the fast path, even if its text is no UTF-8 or its number is no float.
"""

import contextlib
import inspect
import types
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import (
    Any,
    ForwardRef,
    Generic,
    Literal,
    Self,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
import cattrs
import msgspec
from cattrs.v import transform_error

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._structure.converter import CONVERTER, PLAIN, is_optional
from ief_async._structure.envelope import (
    ADVICE,
    COUNT,
    SNIPPET_CHARACTERS,
    Row,
    Rows,
    flat_envelope,
    parse,
    split,
)

T = TypeVar("T")

ATTRS_FILE = attrs.fields.__code__.co_filename
HASH_CACHE = "_attrs_cached_hash"  # set by the ``__init__`` of a class that has one
HEAP_TYPE = 1 << 9  # of `type.__flags__`: a class that Python code made, and no builtin


class Structure(Generic[T]):
    """How rows become objects of one attrs class. Made once per class: see `structure_of`."""

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._page, self._row = _fast_decoders(model)
        self._flat = self.fast and _is_flat(model)
        try:
            self._tolerant = CONVERTER.get_structure_hook(model)
        except (cattrs.StructureHandlerNotFoundError, NameError, TypeError) as error:
            problem = f"model={model.__name__}: {error}; use fields of types that JSON can hold"
        else:
            return
        raise ConfigurationError(problem)

    @property
    def fast(self) -> bool:
        """Whether msgspec builds what cattrs would, so that cattrs has the odd rows alone."""
        return self._page is not None

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Read an answer as `split` does, but make objects that hold plain values alone at once.

        That costs less than taking the rows apart, and a millisecond for a thousand of them.
        """
        if self._flat:
            with contextlib.suppress(Exception):  # whatever it is, `split` says so, or the odd row
                envelope = flat_envelope(key, cast("Any", self.model)).decode(body)
                count = COUNT.decode(envelope.count)
                ids = [item.id for item in envelope.rows]
                if all(ids):
                    return Rows(None if count is None else int(count), ids, (), envelope.rows)
        return split(body, key=key, tolerate=tolerate)

    def items(
        self,
        rows: Sequence[Row],
        positions: Sequence[int],
        *,
        key: str,
        model_errors: Counter[str] | None = None,
    ) -> list[T]:
        """Structure the rows at these positions, as far as they can be.

        A row that can't be structured ends the list before it; the next call, which begins with
        that row, raises the `PayloadError` that names the field. So no row before it is lost.

        Args:
            rows: all rows of a page.
            positions: which of them to structure, in this order.
            key: the name of the list in the body, for the paths in errors.
            model_errors: counts, by the class of the exception, each row at which the model itself
                raised (a validator, ``__attrs_post_init__``) while msgspec built the object. Such
                a row is built again by cattrs, and the page loses its fast path. A row is counted
                in the call that gives its item or raises its error, and so only once.

        Raises:
            PayloadError: the first of these rows can't be structured.
        """
        if self._page is not None:
            try:
                return self._page.decode(b"[%b]" % b",".join([rows[at] for at in positions]))
            except Exception:  # noqa: BLE001, S110  a model's own validators may raise anything
                pass  # one of them needs the tolerant path; the others keep the fast one
        items: list[T] = []
        for at in positions:
            item, own_error = self._decoded(rows[at])
            if item is None:
                try:
                    item = self.item_tolerantly(bytes(rows[at]), f"{key}[{at}]")
                except PayloadError:
                    if items:
                        break  # the next call begins with this row
                    _count(model_errors, own_error)
                    raise
                _count(model_errors, own_error)
            items.append(item)
        return items

    def of(self, _: object) -> Self:
        """Return what makes the items of a target: nothing here depends on it."""
        return self

    def given(self, item: T) -> T:
        """Return what an item that was made elsewhere is here."""
        return item

    def _decoded(self, row: Row) -> tuple[T | None, str | None]:
        """Return what the fast path makes of a row, or None.

        If the model itself raised, the second is the class of its exception.
        """
        if self._row is None:
            return None, None
        try:
            return self._row.decode(row), None
        except Exception as error:  # noqa: BLE001  a model's own validators may raise anything
            return None, _own_error(error)

    def item_tolerantly(self, row: bytes, path: str) -> T:
        """Structure one row by cattrs alone: what it takes, and how, is what the library means."""
        failure: PayloadError
        try:
            document = parse(row)
        except (ValueError, RecursionError):
            failure = PayloadError(f"{path} is no JSON. {ADVICE}", path=path)
        else:
            try:
                structured: T = self._tolerant(document, self.model)
            except Exception as error:  # noqa: BLE001  a model's own validators may raise anything
                failure = _unstructured(error, path, self.model)
                _forget_frames(error)
            else:
                return structured
        try:
            raise failure
        finally:
            del failure  # it holds this frame, which would hold it: a cycle


_cached = lru_cache(maxsize=128)(Structure)


def structure_of(model: type[T]) -> Structure[T]:
    """Return the `Structure` of an attrs class, made at most once."""
    if not isinstance(get_origin(model) or model, type) or not attrs.has(model):
        message = f"model takes an attrs class, but was given {model!r:.80}"
        raise ConfigurationError(message)
    return _cached(model)


def _forget_frames(error: BaseException) -> None:
    """Cut what was raised from the frames it came through: cattrs leaves cycles of both.

    Until they are collected they would hold whoever called, up to the iterator of a stream.
    """
    left: list[BaseException | None] = [error]
    while left:
        if (one := left.pop()) is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _own_error(error: Exception) -> str | None:
    """Return the class of what a model raised while msgspec built it; None if msgspec refused.

    msgspec makes a `ValidationError` of a ValueError or TypeError of the model, and lets all else
    through. A RecursionError is its own where a row is nested too deeply.
    """
    if isinstance(error, msgspec.ValidationError):
        return None if error.__cause__ is None else type(error.__cause__).__name__
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        return None
    return type(error).__name__


def _count(model_errors: Counter[str] | None, own_error: str | None) -> None:
    if model_errors is not None and own_error is not None:
        model_errors[own_error] += 1


def _unstructured(error: Exception, path: str, model: type) -> PayloadError:
    """Name the fields that cattrs refuses: three of them at most, and none of their values."""
    if not isinstance(error, cattrs.BaseValidationError):
        return PayloadError(f"{path} is not {_name(model)}. {ADVICE}", path=path)
    problems = [
        problem.split(" @ ", 1)
        for problem in transform_error(error, path=path, format_exception=_problem)
    ]
    shown = "; ".join(
        f"{where[:SNIPPET_CHARACTERS]} {what[:SNIPPET_CHARACTERS]}" for what, where in problems[:3]
    )
    rest = problems[3:]
    more = f"; and {len(rest)} more" if rest else ""
    return PayloadError(f"{shown}{more}. {ADVICE}", path=problems[0][1][:SNIPPET_CHARACTERS])


def _problem(error: BaseException, expected: Any) -> str:
    if isinstance(error, KeyError) and expected is not None:
        return "is missing"
    return "is not what the model takes" if expected is None else f"is not {_name(expected)}"


def _name(expected: Any) -> str:
    return str(getattr(expected, "__name__", expected)) if not get_args(expected) else str(expected)


def _fast_decoders(
    model: type[T],
) -> tuple[msgspec.json.Decoder[list[T]] | None, msgspec.json.Decoder[T] | None]:
    """Return decoders of many rows and of one, or None twice where msgspec means something else."""
    try:
        if not _means_the_same(model, set()):
            return None, None
        many = msgspec.json.Decoder(list[model], strict=False)  # type: ignore[valid-type]  # a variable is a type here
        return many, msgspec.json.Decoder(model, strict=False)
    except (TypeError, NotImplementedError, NameError, KeyError):
        return None, None


def _means_the_same(annotation: Any, seen: set[Any]) -> bool:
    """Tell whether msgspec builds this type as cattrs does.

    It runs no converters of attrs and no ``__init__`` but attrs' own, fills in fields that are no
    arguments, takes what a class has by a field's name for the field's value in a row that lacks
    it, and reads a time without a zone as naive. Whatever holds such a thing, or any type
    but the plain ones of JSON, takes the cattrs path.
    """
    if annotation in seen or annotation in PLAIN:
        return True
    seen.add(annotation)
    if isinstance(annotation, type) and attrs.has(annotation):
        resolve_names(annotation)
        hints = get_type_hints(annotation, include_extras=True)  # what msgspec goes by
        return _has_plain_init(annotation) and all(
            field.init
            and field.converter is None
            and hints.get(field.name, field) == field.type
            and _has_own_default(annotation, field)
            and _means_the_same(field.type, seen)
            for field in attrs.fields(annotation)
        )
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_optional(annotation):
        inner = tuple(member for member in inner if member is not types.NoneType)
    elif origin is dict and inner[:1] == (str,):
        inner = inner[1:]
    elif not (origin is list or (origin is tuple and inner[1:] == (...,))):
        return False
    return _means_the_same(inner[0], seen)


def resolve_names(model: Any) -> None:
    """Put classes in the place of their names in annotations.

    Only where there are names: it also forgets what a ``field_transformer`` made of the types.
    """
    if any(_has_names(field.type) for field in attrs.fields(model)):
        attrs.resolve_types(model)


def _has_names(annotation: Any) -> bool:
    if isinstance(annotation, str | ForwardRef):
        return True
    return get_origin(annotation) is not Literal and any(map(_has_names, get_args(annotation)))


def _has_plain_init(model: Any) -> bool:
    """Tell whether to set the fields of an empty object is all that making one comes to.

    msgspec makes an empty object, sets fields past ``__setattr__``, asks for those that a row lacks
    by ``getattr``, and calls ``__attrs_post_init__``: nothing else of a class is run.
    """
    made_by = vars(model).get("__init__")
    if not _is_of_attrs(made_by) or HASH_CACHE in (
        *made_by.__code__.co_names,
        *made_by.__code__.co_consts,
    ):
        return False
    return (
        all(one is object or one.__flags__ & HEAP_TYPE for one in model.__mro__)
        and type(model).__call__ is type.__call__
        and model.__new__ is object.__new__
        and model.__getattribute__ is object.__getattribute__
        and (model.__setattr__ is object.__setattr__ or _is_of_attrs(model.__setattr__))
        and (not hasattr(model, "__getattr__") or _is_of_attrs(model.__getattr__))
        and not hasattr(model, "__attrs_pre_init__")
        and not inspect.isabstract(model)
    )


def _is_of_attrs(function: Any) -> bool:
    """Tell whether attrs made a method, or wrote it."""
    code = getattr(function, "__code__", None)
    return code is not None and (
        code.co_filename.startswith("<attrs generated") or code.co_filename == ATTRS_FILE
    )


def _is_flat(model: type) -> bool:
    """Tell whether objects hold plain values alone, one of them the row's id."""
    kinds = {field.name: field.type for field in attrs.fields(model)}
    plain = PLAIN - {Any}
    return kinds.get("id") is str and all(
        kind in plain or (is_optional(kind) and {*get_args(kind)} <= plain)
        for kind in kinds.values()
    )


def _has_own_default(model: type, field: "attrs.Attribute[Any]") -> bool:
    """Tell whether the class has no more by that name than a slot, or the default itself."""
    found = getattr(model, field.name, field.default)
    return found is field.default or isinstance(found, types.MemberDescriptorType)
