"""From rows of JSON to attrs objects: a fast path by msgspec, and a tolerant one by cattrs.

cattrs decides how JSON becomes objects; msgspec's decoder does the same faster.

1. `split` reads a whole body once: its count, the id of every row, and each row as raw bytes.
   A body that is not the documented envelope raises a typed error here.
2. `Structure.items` turns some of those rows into objects, so that a caller decides how many at a
   time: msgspec decodes them in one call. If it refuses, only the rows that it refuses go through
   the cattrs converter, whose hooks take the known contradictions of the service: numbers as
   strings and strings as numbers, null for lists, "" for "no number", "false" for False.
3. A row that cattrs refuses too raises a `PayloadError` that names the field and shows no value.

Both paths give equal objects. A string in the place of a number is read by msgspec's rules on
either path: "null" and "" are no number, "1e2" is 100, and "nan" and "inf" are floats. A key that
no field has is skipped unread on the fast path, even if its text is invalid UTF-8 or its number too
large for a float.
"""

import contextlib
import inspect
import types
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
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
import msgspec

from ief_async._errors import ConfigurationError, PayloadError
from ief_async._structure.envelope import (
    ADVICE,
    COUNT,
    SNIPPET_CHARACTERS,
    Row,
    Rows,
    RowsOfBody,
    flat_envelope,
    parse,
    split,
)
from ief_async._structure.kinds import SCALARS_AND_ANY, is_optional

T = TypeVar("T")

ATTRS_FILE = attrs.fields.__code__.co_filename
HASH_CACHE = "_attrs_cached_hash"  # set by the ``__init__`` of a class that has one
HEAP_TYPE = 1 << 9  # of `type.__flags__`: a class that Python code made, and no builtin


class Structure(Generic[T]):
    """How rows become objects of one attrs class. Made once per class: see `structure_of`.

    Attributes:
        model: the class.

    Raises:
        ConfigurationError: JSON can't hold the type of a field.
    """

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._page, self._row = _fast_decoders(model)
        self._scalars_alone = self.fast and _has_scalars_alone(model)
        if not self.fast:  # what msgspec takes cattrs takes, too
            _ = self._tolerant

    @cached_property
    def _tolerant(self) -> Callable[[Any, Any], Any]:
        """What structures a row by cattrs; made when it is needed, as most scans have no such row.

        Raises:
            ConfigurationError: JSON can't hold the type of a field.
        """
        import cattrs  # it and the hooks take longer than a scan of one page

        from ief_async._structure.converter import CONVERTER

        try:
            return CONVERTER.get_structure_hook(self.model)
        except (cattrs.StructureHandlerNotFoundError, NameError, TypeError) as error:
            why = (
                str(error).partition(" Register")[0].rstrip(".")
            )  # the rest is for users of cattrs
            problem = f"model must have fields of JSON's types, got {self.model.__name__}: {why}"
        raise ConfigurationError(problem)

    @property
    def fast(self) -> bool:
        """Whether msgspec builds the same objects as cattrs, which then gets unusual rows alone."""
        return self._page is not None

    def read(self, body: bytes, *, key: str, tolerate: bool = False) -> Rows:
        """Read an answer as `split` does; objects of scalars alone are made in the same pass.

        That costs less than taking the rows apart: a millisecond for a thousand of them.
        """
        if self._scalars_alone:
            with contextlib.suppress(Exception):  # then `split` or `items` says what is wrong
                envelope = flat_envelope(key, cast("Any", self.model)).decode(body)
                count = COUNT.decode(envelope.count)
                ids = [item.id for item in envelope.rows]
                if all(ids):
                    return Rows(None if count is None else int(count), ids, (), envelope.rows)
        return split(body, key=key, tolerate=tolerate)

    def first_items(
        self, rows: RowsOfBody, positions: Sequence[int], *, most_bytes: int
    ) -> list[T] | None:
        """Structure the first of these rows, about so many bytes, without taking all rows apart.

        Return None where that is not possible; `items` takes them then.
        """
        if self._page is None or not isinstance(positions, range):
            return None
        items = rows.decode_some(self._page.decode, positions.start, most_bytes)
        return items if items is None else items[: len(positions)]

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
                    _count_error(model_errors, own_error)
                    raise
                _count_error(model_errors, own_error)
            items.append(item)
        return items

    def for_target(self, _: object) -> Self:
        """Return the reader for the rows of a target: this one, as targets make no difference."""
        return self

    def from_item(self, item: T) -> T:
        """Return what an object of the model is in a stream: itself."""
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
        """Structure one row by cattrs alone.

        Raises:
            PayloadError: cattrs refuses it too.
        """
        failure: PayloadError
        try:
            document = parse(row)
        except (ValueError, RecursionError):
            failure = PayloadError(f"{path} is not valid JSON. {ADVICE}", path=path)
        else:
            try:
                structured: T = self._tolerant(document, self.model)
            except Exception as error:  # noqa: BLE001  a model's own validators may raise anything
                failure = _refusal(error, path, self.model)
                _drop_frames(error)
            else:
                return structured
        try:
            raise failure
        finally:
            del failure  # it holds this frame, which would hold it: a cycle


_cached = lru_cache(maxsize=128)(Structure)


def structure_of(model: type[T]) -> Structure[T]:
    """Return the `Structure` of an attrs class, made at most once.

    Raises:
        ConfigurationError: `model` is not an attrs class, or JSON can't hold a field's type.
    """
    if not isinstance(get_origin(model) or model, type) or not attrs.has(model):
        message = f"model must be an attrs class, got {model!r:.80}"
        raise ConfigurationError(message)
    return _cached(model)


def _drop_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and of its causes: cattrs leaves reference cycles there.

    Until they are collected they would keep all callers alive, up to the iterator of a stream.
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


def _count_error(model_errors: Counter[str] | None, own_error: str | None) -> None:
    if model_errors is not None and own_error is not None:
        model_errors[own_error] += 1


def _refusal(error: Exception, path: str, model: type) -> PayloadError:
    """Return an error that names the fields that cattrs refuses: three at most, and no value."""
    import cattrs
    from cattrs.v import transform_error

    if not isinstance(error, cattrs.BaseValidationError):
        return PayloadError(f"{path} is not {_type_name(model)}. {ADVICE}", path=path)
    problems = [
        problem.split(" @ ", 1)
        for problem in transform_error(error, path=path, format_exception=_describe)
    ]
    shown = "; ".join(
        f"{where[:SNIPPET_CHARACTERS]} {what[:SNIPPET_CHARACTERS]}" for what, where in problems[:3]
    )
    rest = problems[3:]
    more = f"; and {len(rest)} more" if rest else ""
    return PayloadError(f"{shown}{more}. {ADVICE}", path=problems[0][1][:SNIPPET_CHARACTERS])


def _describe(error: BaseException, expected: Any) -> str:
    if isinstance(error, KeyError) and expected is not None:
        return "is missing"
    if expected is None:  # of the object as a whole: its model raised
        return f"is refused by the model ({type(error).__name__})"
    return f"is not {_type_name(expected)}"


def _type_name(expected: Any) -> str:
    return str(getattr(expected, "__name__", expected)) if not get_args(expected) else str(expected)


def _fast_decoders(
    model: type[T],
) -> tuple[msgspec.json.Decoder[list[T]] | None, msgspec.json.Decoder[T] | None]:
    """Return decoders of many rows and of one, or None twice if msgspec builds other objects."""
    try:
        if not _msgspec_agrees(model, set()):
            return None, None
        many = msgspec.json.Decoder(list[model], strict=False)  # type: ignore[valid-type]  # a variable is a type here
        return many, msgspec.json.Decoder(model, strict=False)
    except (TypeError, NotImplementedError, NameError, KeyError):
        return None, None


def _msgspec_agrees(annotation: Any, seen: set[Any]) -> bool:
    """Tell whether msgspec builds this type as cattrs does.

    msgspec runs neither converters nor an ``__init__`` that attrs did not write; it sets fields
    that are not arguments; where a row lacks a field it takes the class attribute of that name; and
    it reads a time without a zone as naive. A class with any of these, or with a type that is not
    one of JSON's own, takes the cattrs path.
    """
    if annotation in seen or annotation in SCALARS_AND_ANY:
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
            and _msgspec_agrees(field.type, seen)
            for field in attrs.fields(annotation)
        )
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_optional(annotation):
        inner = tuple(member for member in inner if member is not types.NoneType)
    elif origin is dict and inner[:1] == (str,):
        inner = inner[1:]
    elif not (origin is list or (origin is tuple and inner[1:] == (...,))):
        return False
    return _msgspec_agrees(inner[0], seen)


def resolve_names(model: Any) -> None:
    """Replace forward references in the annotations of a model by the classes themselves.

    Only if it has some: `attrs.resolve_types` undoes what a ``field_transformer`` did to types.
    """
    if any(_has_forward_references(field.type) for field in attrs.fields(model)):
        attrs.resolve_types(model)


def _has_forward_references(annotation: Any) -> bool:
    if isinstance(annotation, str | ForwardRef):
        return True
    return get_origin(annotation) is not Literal and any(
        map(_has_forward_references, get_args(annotation))
    )


def _has_plain_init(model: Any) -> bool:
    """Tell whether creating an object only sets its fields.

    msgspec makes an empty object, sets fields past ``__setattr__``, reads those that a row lacks by
    ``getattr``, and calls ``__attrs_post_init__`` and validators: it runs nothing else of a class.
    """
    made_by = vars(model).get("__init__")
    if not _made_by_attrs(made_by) or HASH_CACHE in (
        *made_by.__code__.co_names,
        *made_by.__code__.co_consts,
    ):
        return False
    return (
        all(one is object or one.__flags__ & HEAP_TYPE for one in model.__mro__)
        and type(model).__call__ is type.__call__
        and model.__new__ is object.__new__
        and model.__getattribute__ is object.__getattribute__
        and (model.__setattr__ is object.__setattr__ or _made_by_attrs(model.__setattr__))
        and (not hasattr(model, "__getattr__") or _made_by_attrs(model.__getattr__))
        and not hasattr(model, "__attrs_pre_init__")
        and not inspect.isabstract(model)
    )


def _made_by_attrs(function: Any) -> bool:
    """Tell whether a method is part of attrs, or was generated by it."""
    code = getattr(function, "__code__", None)
    return code is not None and (
        code.co_filename.startswith("<attrs generated") or code.co_filename == ATTRS_FILE
    )


def _has_scalars_alone(model: type) -> bool:
    """Tell whether all fields of a class are scalars, and one of them is the row's id."""
    kinds = {field.name: field.type for field in attrs.fields(model)}
    scalars = SCALARS_AND_ANY - {Any}
    return kinds.get("id") is str and all(
        kind in scalars or (is_optional(kind) and {*get_args(kind)} <= scalars)
        for kind in kinds.values()
    )


def _has_own_default(model: type, field: "attrs.Attribute[Any]") -> bool:
    """Tell whether the class attribute of a field's name is its slot or its default."""
    found = getattr(model, field.name, field.default)
    return found is field.default or isinstance(found, types.MemberDescriptorType)
