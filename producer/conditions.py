"""Turns the text of a `where:` into a condition on a job's values. Knows neither plans nor YAML.

The text is read by Python's own parser, and what is allowed of it is listed here; nothing is ever evaluated by
Python itself. Text and numbers are never compared, for `seed == '5'` would be false for ever, without a word.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.wording import kind, near, show

#: Longest condition, characters: a list of five hundred long names.
CONDITION_MAX = 10_000

#: Deepest nesting. A written condition has five.
DEPTH_MAX = 50

_Values = Mapping[str, Any]
_Reading = Callable[[_Values], Any]

_LITERALS: Mapping[str, Any] = {"true": True, "false": False, "null": None}
_ORDERS: Mapping[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_ARITHMETIC: Mapping[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}
_FUNCTIONS = ("len", "lower", "startswith", "endswith")
_GRAMMAR = (
    "use and, or, not, == != < <= > >=, in, is null, + - * / // %, len(x), lower(x), startswith(x, 'a'), "
    "endswith(x, 'a')"
)
#: What other languages write -> what is written here.
_FOREIGN = (
    (re.compile(r"&&"), "write 'and' for '&&'"),
    (re.compile(r"\|\|"), "write 'or' for '||'"),
    (re.compile(r"<>"), "write '!=' for '<>'"),
    (re.compile(r"!(?!=)"), "write 'not' for '!'"),
    (re.compile(r"(?<![=!<>])=(?!=)"), "write '==' to compare"),
)


class ConditionInvalid(ValueError):
    """A condition says something it may not, or not of these values. The message names the column and the mend."""

    def __init__(self, text: str, *, column: int | None = None) -> None:
        super().__init__(text if column is None else f"column {column}: {text}")
        #: Where in the condition; 1 is its first character. None where it is the condition as a whole.
        self.column = column


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """An expression over the fields and variables of a job."""

    #: As it was written.
    text: str
    #: The fields and variables that it reads.
    names: frozenset[str]
    _read: _Reading = field(repr=False, compare=False)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Say whether it is true of a job's values, which are by name.

        Raises: ConditionInvalid where these values cannot be compared so: text with a number, null with anything.
        """
        found = self._read(values)
        if not isinstance(found, bool):
            raise ConditionInvalid(f"the condition is {kind(found)}: compare it with something")
        return found


def parse_condition(text: str, *, names: Collection[str]) -> Condition:
    """Read a condition.

    Args:  names: the fields and variables that it may read.
    Raises: ConditionInvalid with column and mend.
    """
    if not isinstance(text, str):
        raise ConditionInvalid(f"a condition is {kind(text)}: write an expression: 'seed < 10'")
    if not text.strip():
        raise ConditionInvalid("a condition is empty: write an expression: 'seed < 10'")
    if len(text) > CONDITION_MAX:
        raise ConditionInvalid(f"a condition of {len(text):,} characters: use at most {CONDITION_MAX:,}")
    # YAML's line ends are white space here; so are spaces at the start, which Python takes for an indent.
    line = re.sub(r"[\r\n\t]", " ", text)
    indent = len(line) - len(line.lstrip())
    compiler = _Compiler(line.strip(), indent=indent, known=names)
    read = compiler.compile()
    return Condition(text=text, names=frozenset(compiler.names), _read=read)


class _Compiler:
    """Turns the syntax tree of one condition into a function of values."""

    def __init__(self, text: str, *, indent: int, known: Collection[str]) -> None:
        self.names: set[str] = set()
        self._text = text
        self._indent = indent
        self._known = known

    def compile(self) -> _Reading:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a stray backslash in a string is only a warning to Python
                tree = ast.parse(self._text, mode="eval")
        except (SyntaxError, ValueError) as error:
            raise self._syntax(error) from error
        except (MemoryError, RecursionError) as error:
            raise ConditionInvalid(f"nested too deeply: use at most {DEPTH_MAX} levels") from error
        return self._node(tree.body, 0)

    def _node(self, node: ast.expr, depth: int) -> _Reading:
        if depth >= DEPTH_MAX:
            raise self._refusal(node, f"nested too deeply: use at most {DEPTH_MAX} levels")
        deeper = depth + 1
        match node:
            case ast.BoolOp():
                return self._logic(node, deeper)
            case ast.UnaryOp():
                return self._unary(node, deeper)
            case ast.Compare():
                return self._comparisons(node, deeper)
            case ast.BinOp():
                return self._arithmetic(node, deeper)
            case ast.Call():
                return self._call(node, deeper)
            case ast.Name():
                return self._name(node)
            case ast.Constant():
                return self._constant(node)
            case ast.List() | ast.Tuple():
                raise self._refusal(node, "a list stands only after 'in': seed in [1, 2]")
            case ast.Attribute():
                raise self._refusal(node, f"'.{node.attr}' is not part of a condition: {_GRAMMAR}")
        raise self._refusal(node, f"{show(self._source(node))} is not part of a condition: {_GRAMMAR}")

    def _logic(self, node: ast.BoolOp, depth: int) -> _Reading:
        parts = [self._truth(part, depth) for part in node.values]
        if isinstance(node.op, ast.And):
            return lambda values: all(part(values) for part in parts)
        return lambda values: any(part(values) for part in parts)

    def _truth(self, node: ast.expr, depth: int) -> _Reading:
        """Return a reading that is true or false, or refuses."""
        read, source = self._node(node, depth), self._source(node)

        def truth(values: _Values) -> bool:
            found = read(values)
            if not isinstance(found, bool):
                raise self._refusal(
                    node, f"{source} is {kind(found)}, not true or false: compare it with something"
                )
            return found

        return truth

    def _unary(self, node: ast.UnaryOp, depth: int) -> _Reading:
        if isinstance(node.op, ast.Not):
            truth = self._truth(node.operand, depth)
            return lambda values: not truth(values)
        if isinstance(node.op, ast.USub | ast.UAdd):
            number = self._number(node.operand, "-" if isinstance(node.op, ast.USub) else "+", depth)
            return (lambda values: -number(values)) if isinstance(node.op, ast.USub) else number
        raise self._refusal(node, f"'~' is not part of a condition: {_GRAMMAR}")

    def _arithmetic(self, node: ast.BinOp, depth: int) -> _Reading:
        if type(node.op) not in _ARITHMETIC:
            raise self._refusal(node, f"{show(self._source(node))} is not part of a condition: {_GRAMMAR}")
        sign, combine = _ARITHMETIC[type(node.op)]
        left, right = self._number(node.left, sign, depth), self._number(node.right, sign, depth)

        def result(values: _Values) -> Any:
            try:
                return combine(left(values), right(values))
            except ZeroDivisionError as error:
                source = self._source(node.right)
                raise self._refusal(node.right, f"this divides by 0: add '{source} != 0 and'") from error
            except OverflowError as error:
                raise self._refusal(node, "the numbers grow too large: use smaller ones") from error

        return result

    def _number(self, node: ast.expr, sign: str, depth: int) -> _Reading:
        read, source = self._node(node, depth), self._source(node)

        def number(values: _Values) -> Any:
            found = read(values)
            if isinstance(found, bool) or not isinstance(found, int | float):
                raise self._refusal(node, f"{source} is {_kind(found)}: '{sign}' takes numbers")
            return found

        return number

    def _comparisons(self, node: ast.Compare, depth: int) -> _Reading:
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        parts = [self._comparison(left, sign, right, depth) for left, sign, right in pairs]
        return lambda values: all(part(values) for part in parts)

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr, depth: int) -> _Reading:
        if isinstance(sign, ast.In | ast.NotIn):
            return self._membership(left, isinstance(sign, ast.In), right, depth)
        read_left, read_right = self._node(left, depth), self._node(right, depth)
        if isinstance(sign, ast.Is | ast.IsNot):
            if not _is_null(right):
                raise self._refusal(right, "'is' stands only before null: write '==' to compare")
            wanted = isinstance(sign, ast.Is)
            return lambda values: (read_left(values) is None) is wanted
        if isinstance(sign, ast.Eq | ast.NotEq):
            equal = isinstance(sign, ast.Eq)
            return lambda values: self._equal(left, read_left(values), right, read_right(values)) is equal
        name, compare = _ORDERS[type(sign)]

        def order(values: _Values) -> bool:
            one, other = read_left(values), read_right(values)
            self._check_order(left, one, name, right, other)
            return bool(compare(one, other))

        return order

    def _equal(self, left: ast.expr, one: Any, right: ast.expr, other: Any) -> bool:
        if one is not None and other is not None and _sort(one) != _sort(other):
            raise self._refusal(left, self._unlike(left, one, right, other))
        return bool(one == other)

    def _check_order(self, left: ast.expr, one: Any, sign: str, right: ast.expr, other: Any) -> None:
        for node, found in ((left, one), (right, other)):
            if found is None:
                source = self._source(node)
                raise self._refusal(
                    node, f"{source} is null, and '{sign}' takes none: add '{source} is not null and'"
                )
            if isinstance(found, bool):
                raise self._refusal(
                    node, f"{self._source(node)} is {show(found)}: '{sign}' takes numbers or texts"
                )
        if _sort(one) != _sort(other):
            raise self._refusal(left, self._unlike(left, one, right, other))

    def _unlike(self, left: ast.expr, one: Any, right: ast.expr, other: Any) -> str:
        sides = [self._said(left, one), self._said(right, other)]
        return f"{sides[0]} and {sides[1]}: compare a number with a number, and text with text"

    def _said(self, node: ast.expr, found: Any) -> str:
        source = self._source(node)
        shown = "" if isinstance(node, ast.Constant) else f" ({show(found)})"
        return f"{source} is {_sort(found)}{shown}"

    def _membership(self, left: ast.expr, wanted: bool, right: ast.expr, depth: int) -> _Reading:
        read_left = self._node(left, depth)
        if isinstance(right, ast.List | ast.Tuple):
            items = [(item, self._node(item, depth + 1)) for item in right.elts]

            def listed(values: _Values) -> bool:
                found = read_left(values)
                return any(self._equal(left, found, item, read(values)) for item, read in items) is wanted

            return listed
        read_right = self._node(right, depth)

        def contained(values: _Values) -> bool:
            part, whole = read_left(values), read_right(values)
            return (whole is not None and self._text_of(left, part) in self._text_of(right, whole)) is wanted

        return contained

    def _text_of(self, node: ast.expr, found: Any) -> str:
        if not isinstance(found, str):
            source = self._source(node)
            raise self._refusal(
                node, f"{source} is {_kind(found)}: text is looked for in text, or in a list: [1, 2]"
            )
        return found

    def _call(self, node: ast.Call, depth: int) -> _Reading:
        if isinstance(node.func, ast.Attribute):
            raise self._refusal(node, f"'.{node.func.attr}' is not part of a condition: {_GRAMMAR}")
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            shown = show(name or self._source(node.func))
            raise self._refusal(node, f"unknown function {shown}: {near(name, _FUNCTIONS)}")
        wanted = 2 if name.endswith("with") else 1
        if len(node.args) != wanted or node.keywords:
            example = f"{name}(prompt, 'a')" if wanted == 2 else f"{name}(prompt)"
            raise self._refusal(node, f"{name} takes {wanted} value{'s' * (wanted > 1)}: write {example}")
        return self._function(name, node.args, depth)

    def _function(self, name: str, arguments: Sequence[ast.expr], depth: int) -> _Reading:
        reads = [self._node(argument, depth) for argument in arguments]

        def result(values: _Values) -> Any:
            found = [read(values) for read in reads]
            if found[0] is None and name != "len":
                return None if name == "lower" else False  # null has no start, no end and no letters
            texts = [self._argument(name, node, one) for node, one in zip(arguments, found, strict=True)]
            match name:
                case "len":
                    return len(texts[0])
                case "lower":
                    return texts[0].lower()
                case "startswith":
                    return texts[0].startswith(texts[1])
            return texts[0].endswith(texts[1])

        return result

    def _argument(self, name: str, node: ast.expr, found: Any) -> str:
        if not isinstance(found, str):
            source = self._source(node)
            mend = f": add '{source} is not null and'" if found is None else ""
            raise self._refusal(node, f"{source} is {_kind(found)}: {name} takes text{mend}")
        return found

    def _name(self, node: ast.Name) -> _Reading:
        name = node.id
        if name in self._known:
            self.names.add(name)
            return lambda values: values[name]
        if name in _LITERALS:
            literal = _LITERALS[name]
            return lambda values: literal
        if name in _FUNCTIONS:
            raise self._refusal(
                node, f"{name} is a function: write {name}(prompt{', ' * name.endswith('with')}...)"
            )
        quoted = f"; quote text: {name!r}"
        raise self._refusal(node, f"unknown name {name!r}: {near(name, self._known)}{quoted}")

    def _constant(self, node: ast.Constant) -> _Reading:
        value = node.value
        if value is not None and not isinstance(value, bool | int | float | str):
            raise self._refusal(node, f"{self._source(node)} is not part of a condition: {_GRAMMAR}")
        return lambda values: value

    def _source(self, node: ast.expr) -> str:
        found = ast.get_source_segment(self._text, node) or ""
        return found if len(found) <= 60 else f"{found[:59]}…"

    def _refusal(self, node: ast.expr, text: str) -> ConditionInvalid:
        before = self._text.encode()[: node.col_offset].decode()
        return ConditionInvalid(text, column=self._indent + len(before) + 1)

    def _syntax(self, error: Exception) -> ConditionInvalid:
        """Say where Python's grammar was broken, and what usually mends it."""
        bare = _blank_strings(self._text)
        for pattern, mend in _FOREIGN:
            if found := pattern.search(bare):
                return ConditionInvalid(mend, column=self._indent + found.start() + 1)
        if "\\" in self._text:
            column = self._indent + self._text.index("\\") + 1
            return ConditionInvalid("a backslash stands twice in text: '\\\\'", column=column)
        # Python counts no column where the text ends too early.
        offset = getattr(error, "offset", None) or len(self._text) + 1
        column = self._indent + min(offset, len(self._text) + 1)
        reason = getattr(error, "msg", None) or str(error)
        return ConditionInvalid(f"not a condition ({reason}): {_GRAMMAR}", column=column)


def _is_null(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    return isinstance(node, ast.Name) and node.id == "null"


def _sort(value: Any) -> str:
    """Return which values it may be compared with."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else kind(value)


def _kind(value: Any) -> str:
    return "null" if value is None else _sort(value)


def _blank_strings(text: str) -> str:
    """Return the text with what stands in quotes blanked out, as long as before."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", lambda found: "_" * len(found[0]), text)
