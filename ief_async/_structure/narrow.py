"""A model with some of the fields of another."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import attrs

from ief_async._errors import ConfigurationError
from ief_async._structure.structure import resolve_names, structure_of


def narrowed(model: type, fields: Sequence[str]) -> type[Any]:
    """Return an attrs class with some of a model's fields, for ``model=``.

    Only these fields are decoded then, which is faster and takes less memory.

    Args:
        model: an attrs class.
        fields: the names of the fields, in the order that the class is to have.

    Returns:
        The class. The same model and fields give the same class.

    Raises:
        ConfigurationError: `fields` is empty, has a name twice, or one that is no field.

    Example:
        ::

            from ief_async import Pod
            from ief_async.sinks import narrowed

            State = narrowed(Pod, ["id", "state"])
            async for pod in ief.iter_pods(ids, model=State):
                print(pod.id, pod.state)
    """
    structure_of(model)
    known = attrs.fields_dict(model)
    given = [fields] if isinstance(fields, str) else list(fields)
    wrong = [name for name in given if name not in known]
    if wrong or not given or len(set(given)) < len(given):
        problem = f"got {given!r:.80}"
        if wrong:
            problem = f"and {model.__name__} has no {', '.join(map(str, wrong))}"
        message = (
            f"fields must be names of fields, each once, {problem}; its fields are "
            f"{', '.join(known)}"
        )
        raise ConfigurationError(message)
    return _narrowed(model, tuple(given))


@lru_cache(maxsize=128)
def _narrowed(model: type, names: tuple[str, ...]) -> type[Any]:
    resolve_names(model)
    fields = attrs.fields_dict(model)
    made = attrs.make_class(
        model.__name__,
        {
            name: attrs.field(
                default=fields[name].default,
                type=fields[name].type,
                repr=fields[name].repr,
                hash=fields[name].hash,
                validator=fields[name].validator,
                converter=fields[name].converter,
                metadata=fields[name].metadata,
            )
            for name in names
        },
        frozen=True,
        kw_only=True,
    )
    return cast("type[Any]", made)
