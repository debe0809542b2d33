"""Checks the arguments of the Python interface against the annotations of its parameters.

A wrong argument is a UsageError that names the call, the argument, its value and what to use instead, as a wrong line
of a sweep file does. Knows nothing of what the calls do.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from producer.language.wording import kind, near, show
from shared.errors import SweepError, UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Class = TypeVar("_Class", bound=type)

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    Path: "a path",
    Mapping: "a mapping",
    Callable: "a function",
    type(None): "None",
}

#: What a parameter of this name is, where its type does not say it.
_MEANINGS = {
    "sweep": "text: a sweep's id, the start of it, or its name",
    "where": "a mapping of field to value, such as {'seed': 3}, or conditions, such as ['seed>=3']",
}

#: Parameters that take a sweep.
_SOURCES = ("source", "old")


@dataclass(frozen=True, slots=True)
class Between:
    """The least and the largest value of a number: `Annotated[int, Between(1, 10)]`."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"{self.least:g} or more" if self.most == math.inf else f"{self.least:g} to {self.most:g}"


def checked(function: Callable[_P, _R], name: str | None = None) -> Callable[_P, _R]:
    """Give a function arguments that are checked before it runs. Raises, when called: UsageError.

    Args:
        name: what the caller knows it by, where that is not its own name.
    """
    call_name = name or function.__name__

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        _check(call_name, function, args, kwargs)
        return function(*args, **kwargs)

    return call


def checked_methods(cls: _Class) -> _Class:
    """Give every public method of a class, and its constructor, checked arguments."""
    for name, value in list(vars(cls).items()):
        if inspect.isfunction(value) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, checked(value, cls.__name__ if name == "__init__" else name))
    return cls


def no_sweep(source: Any) -> SweepError:
    """Return what is wrong with something that is neither a sweep's file, nor its keys, nor a Sweep."""
    use = "use a sweep file's path, a mapping of its keys such as {'prompt': 'a cat'}, or a Sweep"
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        return SweepError(
            [f"this is a sweep file's text, not its path: {use} (yaml.safe_load makes a mapping)"]
        )
    if isinstance(source, str | Path):
        looks_like_file = isinstance(source, Path) or Path(source).suffix in (".yaml", ".yml")
        prompt = f"; to render this text as a prompt, write {{'prompt': {show(source)}}}"
        return SweepError([f"{source}: no such file{'' if looks_like_file else prompt}"])
    if isinstance(source, list | tuple) and source and all(isinstance(one, str) for one in source):
        return SweepError(
            [f"a list is no sweep: for several prompts, write {{'prompt': {show(list(source))}}}"]
        )
    if isinstance(source, list | tuple) and source and all(isinstance(one, Mapping) for one in source):
        return SweepError(
            ["a list is no sweep: for jobs one by one, write {'cases': [{'prompt': ...}, ...]}"]
        )
    return SweepError([f"{kind(source)} is no sweep: {use}"])


def plain_values(value: Any) -> Any:
    """Return a sweep's values as plain Python: what numpy and pandas hold becomes lists and numbers."""
    if isinstance(value, Mapping):
        return {key: plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain_values(one) for one in value) if type(value) in (list, tuple) else value
    if hasattr(value, "tolist") and not isinstance(value, type):
        return value.tolist()
    return value


def _check(name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    signature, hints = _signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(_unbound(name, signature, args, kwargs, str(error))) from None
    for parameter, value in bound.arguments.items():
        hint = hints.get(parameter, Any)
        if not _fits(value, hint):
            if parameter in _SOURCES:
                raise no_sweep(value)
            raise UsageError(f"{name}: {parameter}={show(value)}: use {_wanted(parameter, hint)}")


@functools.cache
def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return a function's signature and its parameters' types. What it returns may be known to type checkers only."""
    signature = inspect.signature(function)
    module = vars(sys.modules[function.__module__])
    hints: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if plain and isinstance(parameter.annotation, str):
            hints[parameter.name] = eval(parameter.annotation, module)  # noqa: S307 - an annotation of our own
        elif plain and parameter.annotation is not parameter.empty:
            hints[parameter.name] = parameter.annotation
    return signature, hints


def _unbound(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], error: str
) -> str:
    """Say which argument is unknown, missing or too much."""
    known = [p.name for p in signature.parameters.values() if p.name != "self" and p.kind != p.VAR_KEYWORD]
    for given in kwargs:
        if given not in known:
            return f"{name}: unknown argument {given!r}: {near(given, known)}"
    return f"{name}: {error}: it takes {', '.join(known) or 'nothing'}"


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Annotated:
        ranges = [one for one in arguments[1:] if isinstance(one, Between)]
        return _fits(value, arguments[0]) and all(one.least <= value <= one.most for one in ranges)
    if origin is Literal:
        return value in arguments
    if origin is Callable:
        return callable(value)
    return _is_a(value, origin or hint)


def _is_a(value: Any, wanted: Any) -> bool:
    if getattr(wanted, "_is_protocol", False) and wanted.__module__ not in ("typing", "collections.abc"):
        return True  # a port of ours, which a room fills, not a caller
    if isinstance(value, bool):
        return wanted in (bool, object)
    if wanted is int:
        return isinstance(value, numbers.Integral)
    if wanted is float:
        return isinstance(value, numbers.Real) and not math.isnan(value)
    if wanted in (list, tuple, Sequence, Iterable):
        return isinstance(value, wanted) and not isinstance(value, str | bytes)
    return isinstance(value, wanted)


def _wanted(parameter: str, hint: Any) -> str:
    if parameter in _MEANINGS:
        return _MEANINGS[parameter]
    return " or ".join(dict.fromkeys(_words(hint)))


def _words(hint: Any) -> list[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [word for one in arguments for word in _words(one)]
    if origin is Annotated:
        between = " and ".join(str(one) for one in arguments[1:] if isinstance(one, Between))
        return [f"{_words(arguments[0])[0]}, {between}"]
    if origin is Literal:
        return [", ".join(map(repr, arguments))]
    wanted = type(None) if hint is None else origin or hint
    return [_WORDS.get(wanted) or f"a {getattr(wanted, '__name__', wanted)}"]
