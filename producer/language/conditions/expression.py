"""Turns the text of a condition into a test of values: of a sweep's `where` and `skip`, and of `--where`. One language.

What Python would say of the same words is said here, read by a parser of our own; nothing is ever evaluated by Python.
Text and numbers are never compared, for `seed == '5'` would be false for ever, without a word. Knows neither plans nor
rows nor YAML.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from producer.language.conditions.comparisons import (
    SIGNS,
    WITHIN,
    ConditionInvalid,
    LabelText,
    compares,
    is_number,
    matches,
)
from producer.language.conditions.tokens import Token, tokenize
from producer.language.wording import kind, near, show
from shared.labels import number_of

#: Longest condition, characters: a list of five hundred long names.
CONDITION_MAX = 10_000

#: Deepest nesting. A written condition has five.
CONDITION_DEPTH_MAX = 50

_Values = Mapping[str, Any]
_Reading = Callable[[_Values], Any]

_LITERALS: Mapping[str, Any] = {
    "true": True, "false": False, "null": None, "True": True, "False": False, "None": None,
}  # fmt: skip
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_FUNCTIONS = ("len", "lower", "startswith", "endswith")
_WORDS = ("and", "or", "not", "in", "is")
_GRAMMAR = (
    "use and, or, not, = == != < <= > >=, ~ !~ =~, in, is null, + - * / // %, len(x), lower(x), startswith(x, 'a'), "
    "endswith(x, 'a')"
)
#: What other languages write -> what is written here.
_FOREIGN = (
    (re.compile(r"&&"), "write 'and' for '&&'"),
    (re.compile(r"\|\|"), "write 'or' for '||'"),
    (re.compile(r"<>"), "write '!=' for '<>'"),
    (re.compile(r"~="), "write '=~' for '~='"),
    (re.compile(r"!(?![=~])"), "write 'not' for '!'"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """An expression over fields and labels."""

    #: As it was written.
    text: str
    #: The names that it reads.
    names: frozenset[str]
    _read: _Reading = field(repr=False, compare=False)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Say whether it is true of values, which are by name.

        Raises: ConditionInvalid where these values cannot be compared so: text with a number, null with anything.
        """
        found = self._read(values)
        if not isinstance(found, bool):
            raise ConditionInvalid(f"the condition is {kind(found)}: compare it with something")
        return found


def parse_condition(
    text: str,
    *,
    names: Collection[str],
    has_gaps: bool = False,
    readings: Mapping[str, Callable[[str], Any]] | None = None,
) -> Condition:
    """Read a condition.

    Args:
        names: what it may read.
        has_gaps: whether null and a label that is no number meet no comparison, as in rows, instead of being refused.
        readings: name -> how a text that is compared with it is read: a rule may be written in several ways.

    Raises: ConditionInvalid with column and fix.
    """
    if not isinstance(text, str):
        raise ConditionInvalid(f"a condition is {kind(text)}: write an expression: 'seed < 10'")
    if not text.strip():
        raise ConditionInvalid("a condition is empty: write an expression: 'seed < 10'")
    if len(text) > CONDITION_MAX:
        raise ConditionInvalid(f"a condition of {len(text):,} characters: use at most {CONDITION_MAX:,}")
    parser = _Parser(text, known=names, has_gaps=has_gaps, readings=readings or {})
    read = parser.parse()
    return Condition(text=text, names=frozenset(parser.names), _read=read)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Node:
    """A part of a condition that has a value."""

    start: int
    stop: int
    read: _Reading
    depth: int = 0
    #: What stands in a list; None for everything else.
    items: tuple[_Node, ...] | None = None
    #: Whether it is written out, and its text where it is one.
    is_literal: bool = False
    text: str | None = None
    #: The name that it is.
    name: str | None = None


class _Parser:
    """Turns one condition into a function of values. The grammar and its order are Python's."""

    def __init__(
        self,
        text: str,
        *,
        known: Collection[str],
        has_gaps: bool,
        readings: Mapping[str, Callable[[str], Any]],
    ) -> None:
        self.names: set[str] = set()
        self._text = text
        self._known = known
        self._has_gaps = has_gaps
        self._readings = readings
        self._level = 0
        self._tokens = self._tokenize()
        self._at = 0

    def parse(self) -> _Reading:
        """Return the whole condition as a function."""
        node = self._plain(self._or())
        if self._next.kind:
            self._stop_syntax(self._next.start, f"{show(self._next.text)} is not expected here")
        return node.read

    # Tokens.

    def _tokenize(self) -> list[Token]:
        try:
            return list(tokenize(self._text, self._known))
        except ConditionInvalid as error:
            self._stop_syntax((error.column or 1) - 1, error.reason)

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self, *texts: str) -> Token | None:
        """Return the next sign or word where it is one of these, and go on."""
        token = self._next
        if token.kind not in ("sign", "name") or token.text not in texts:
            return None
        self._at += 1
        return token

    def _expect(self, text: str, opening: Token) -> Token:
        token = self._take(text)
        if token is None:
            self._stop_syntax(opening.start, f"{show(opening.text)} is never closed")
        return token

    # The grammar, from what binds least to what binds most.

    def _or(self) -> _Node:
        return self._logic("or", any, self._and)

    def _and(self) -> _Node:
        return self._logic("and", all, self._not)

    def _logic(
        self, word: str, combine: Callable[[Iterator[bool]], bool], part: Callable[[], _Node]
    ) -> _Node:
        nodes = [part()]
        while self._take(word):
            nodes.append(part())
        if len(nodes) == 1:
            return nodes[0]
        truths = [self._truth(node) for node in nodes]
        return self._over(nodes, lambda values: combine(truth(values) for truth in truths))

    def _not(self) -> _Node:
        word = self._take("not")
        if word is None:
            return self._comparison()
        node = self._nested(self._not, word)
        truth = self._truth(node)
        return self._over([node], lambda values: not truth(values), start=word.start)

    def _comparison(self) -> _Node:
        sides = [self._sum()]
        tests: list[_Reading] = []
        while (sign := self._comparing()) is not None:
            sides.append(self._pattern() if sign == "=~" else self._sum())
            tests.append(self._test(sides[-2], sign, sides[-1]))
        if not tests:
            return sides[0]
        return self._over(sides, lambda values: all(test(values) for test in tests))

    def _comparing(self) -> str | None:
        """Return the comparison that follows, as it is called here."""
        if token := self._take("==", *SIGNS, "in"):
            return "=" if token.text == "==" else token.text
        if self._take("is"):
            return "is not" if self._take("not") else "is"
        if self._next.text == "not" and self._tokens[self._at + 1].text == "in":
            self._at += 2
            return "not in"
        return None

    def _pattern(self) -> _Node:
        """Read a regular expression: a text whose backslashes are its own."""
        token = self._next
        if token.kind != "text" or token.text[0] not in "'\"":
            self._stop(token.start, "a regular expression stands in quotes: prompt =~ '^a .*cat$'")
        self._at += 1
        pattern = token.text[1:-1]
        if token.text[:3] in ("'''", '"""') and len(token.text) >= 6:
            pattern = pattern[2:-2]
        try:
            matches("", pattern)
        except ConditionInvalid as error:
            self._stop(token.start + token.text.index(pattern) + (error.column or 1) - 1, error.reason)
        return self._literal(token, pattern)

    def _sum(self) -> _Node:
        return self._operation(("+", "-"), self._product)

    def _product(self) -> _Node:
        return self._operation(("*", "/", "//", "%"), self._unary)

    def _operation(self, signs: Sequence[str], part: Callable[[], _Node]) -> _Node:
        node = part()
        while sign := self._take(*signs):
            node = self._arithmetic(node, sign.text, part())
        return node

    def _unary(self) -> _Node:
        sign = self._take("-", "+")
        if sign is None:
            return self._power()
        node = self._nested(self._unary, sign)
        number = self._number(node, sign.text)
        if sign.text == "+":
            return self._over([node], number, start=sign.start)
        return self._over([node], lambda values: _but_null(operator.neg, number(values)), start=sign.start)

    def _power(self) -> _Node:
        node = self._primary()
        if self._take("**"):
            whole = self._text[node.start : self._unary().stop]
            self._stop(node.start, f"{show(whole)} is not part of a condition: {_GRAMMAR}")
        return node

    def _primary(self) -> _Node:
        token = self._next
        self._at += 1
        match token.kind:
            case "number":
                node = self._number_of(token)
            case "text":
                node = self._text_of(token)
            case "name" if token.text not in _WORDS:
                node = self._call(token) if self._next.text == "(" else self._name(token)
            case "sign" if token.text in "([":
                node = self._group(token)
            case _:
                self._at -= 1
                if token.text == "~":
                    self._stop(token.start, f"'~' stands between two values: prompt ~ 'cat': {_GRAMMAR}")
                said = f"{show(token.text)} is not expected here" if token.kind else "it ends too early"
                self._stop_syntax(token.start, said)
        self._refuse_reaching_in(node)
        return node

    def _group(self, opening: Token) -> _Node:
        """Read what stands in brackets: an expression, or a list."""
        closing = ")" if opening.text == "(" else "]"
        items: list[_Node] = []
        is_list = opening.text == "["
        while self._next.text != closing or self._next.kind != "sign":
            items.append(self._plain(self._nested(self._or, opening)))
            if not self._take(","):
                break
            is_list = True
        end = self._expect(closing, opening)
        if items and not is_list:
            return items[0]
        return _Node(
            start=opening.start,
            stop=end.stop,
            read=lambda values: None,
            depth=max((item.depth for item in items), default=0),
            items=tuple(items),
        )

    def _refuse_reaching_in(self, node: _Node) -> None:
        """Refuse what reaches into a value: an attribute, an item."""
        token = self._next
        if token.kind == "sign" and token.text == ".":
            name = self._tokens[self._at + 1].text
            self._stop(node.start, f"'.{name}' is not part of a condition: {_GRAMMAR}")
        if token.kind == "sign" and token.text == "[" and token.start == node.stop:
            whole = self._text[node.start : self._text.find("]", token.start) + 1 or None]
            self._stop(node.start, f"{show(whole)} is not part of a condition: {_GRAMMAR}")

    # Values.

    def _number_of(self, token: Token) -> _Node:
        text = token.text.replace("_", "")
        if text[-1] in "jJ":
            self._stop(token.start, f"{token.text} is not part of a condition: {_GRAMMAR}")
        try:
            value = float(text) if re.search(r"\A[^xX]*[.eE]", text) else int(text, 0)
        except ValueError:
            self._stop(token.start, f"{show(token.text)} is no number that can be read here")
        return self._literal(token, value)

    def _text_of(self, token: Token) -> _Node:
        """Read a text, and those that follow it at once, as one."""
        value, last = self._unquoted(token), token
        while self._next.kind == "text":
            last = self._next
            value += self._unquoted(last)
            self._at += 1
        return _Node(
            start=token.start, stop=last.stop, read=lambda values: value, is_literal=True, text=value
        )

    def _unquoted(self, token: Token) -> str:
        prefix = token.text[: min(token.text.find(sign) % 10_001 for sign in "'\"")].casefold()
        if "f" in prefix:
            self._stop(token.start, f"{show(token.text)} is not part of a condition: {_GRAMMAR}")
        if "b" in prefix:
            self._stop(token.start, f"{token.text} is not part of a condition: {_GRAMMAR}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a stray backslash in a string is only a warning to Python
                return str(ast.literal_eval(re.sub(r"[\r\n\t]", " ", token.text)))
        except (SyntaxError, ValueError):
            if "\\" in token.text:
                self._stop(token.start + token.text.index("\\"), "a backslash stands twice in text: '\\\\'")
            self._stop_syntax(token.start, "this is no text that can be read")

    def _literal(self, token: Token, value: Any) -> _Node:
        text = value if isinstance(value, str) else None
        return _Node(
            start=token.start, stop=token.stop, read=lambda values: value, is_literal=True, text=text
        )

    def _name(self, token: Token) -> _Node:
        name = token.text.replace("`", "")
        if name in self._known or name.startswith("label:"):
            self.names.add(name)
            return _Node(start=token.start, stop=token.stop, read=lambda values: values[name], name=name)
        if name in _LITERALS:
            literal = _LITERALS[name]
            is_constant = name[0].isupper()
            return _Node(
                start=token.start, stop=token.stop, read=lambda values: literal, is_literal=is_constant
            )
        if name in _FUNCTIONS:
            self._stop(
                token.start,
                f"{name} is a function: write {name}(prompt{', ' * name.endswith('with')}...)",
            )
        quoted = f"; quote text: {name!r}"
        raise self._refusal(token.start, f"unknown name {name!r}: {near(name, self._known)}{quoted}")

    def _call(self, token: Token) -> _Node:
        name = token.text
        if name not in _FUNCTIONS:
            self._stop(token.start, f"unknown function {show(name)}: {near(name, _FUNCTIONS)}")
        opening = self._next
        self._at += 1
        arguments: list[_Node] = []
        while self._next.text != ")" or self._next.kind != "sign":
            arguments.append(self._plain(self._nested(self._or, opening)))
            if not self._take(","):
                break
        end = self._expect(")", opening)
        wanted = 2 if name.endswith("with") else 1
        if len(arguments) != wanted:
            example = f"{name}(prompt, 'a')" if wanted == 2 else f"{name}(prompt)"
            self._stop(token.start, f"{name} takes {wanted} value{'s' * (wanted > 1)}: write {example}")
        return self._over(arguments, self._function(name, arguments), start=token.start, stop=end.stop)

    # What they come to.

    def _over(
        self, nodes: Sequence[_Node], read: _Reading, *, start: int | None = None, stop: int | None = None
    ) -> _Node:
        """Return a node that is made of others."""
        depth = 1 + max(node.depth for node in nodes)
        first = nodes[0].start if start is None else start
        if depth >= CONDITION_DEPTH_MAX:
            self._stop(first, f"nested too deeply: use at most {CONDITION_DEPTH_MAX} levels")
        return _Node(start=first, stop=nodes[-1].stop if stop is None else stop, read=read, depth=depth)

    def _nested(self, part: Callable[[], _Node], opening: Token) -> _Node:
        """Read a part that may have itself within."""
        self._level += 1
        if self._level >= CONDITION_DEPTH_MAX:
            self._stop(opening.start, f"nested too deeply: use at most {CONDITION_DEPTH_MAX} levels")
        node = part()
        self._level -= 1
        return node

    def _plain(self, node: _Node) -> _Node:
        if node.items is not None:
            self._stop(node.start, "a list stands only after 'in': seed in [1, 2]")
        return node

    def _truth(self, node: _Node) -> _Reading:
        """Return a reading that is true or false, or refuses."""
        read, source = self._plain(node).read, self._source(node)

        def truth(values: _Values) -> bool:
            found = read(values)
            if not isinstance(found, bool):
                self._stop(
                    node.start, f"{source} is {kind(found)}, not true or false: compare it with something"
                )
            return found

        return truth

    def _arithmetic(self, left: _Node, sign: str, right: _Node) -> _Node:
        combine = _ARITHMETIC[sign]
        one, other = self._number(left, sign), self._number(right, sign)

        def result(values: _Values) -> Any:
            try:
                return _but_null(combine, one(values), other(values))
            except ZeroDivisionError:
                source = self._source(right)
                self._stop(right.start, f"this divides by 0: add '{source} != 0 and'")
            except OverflowError:
                self._stop(left.start, "the numbers grow too large: use smaller ones")

        return self._over([left, right], result)

    def _number(self, node: _Node, sign: str) -> _Reading:
        read, source = self._plain(node).read, self._source(node)

        def number(values: _Values) -> Any:
            found = read(values)
            if isinstance(found, LabelText) and (self._has_gaps or number_of(found) is not None):
                return number_of(found)
            if (found is None and self._has_gaps) or is_number(found):
                return found
            raise self._refusal(node.start, f"{source} is {_kind(found)}: '{sign}' takes numbers")

        return number

    def _test(self, left: _Node, sign: str, right: _Node) -> _Reading:
        """Return whether a comparison holds."""
        self._plain(left)
        if sign in ("in", "not in"):
            return self._membership(left, sign == "in", right)
        self._plain(right)
        if sign in ("is", "is not"):
            if self._source(right) not in ("null", "None"):
                self._stop(right.start, "'is' stands only before null: write '==' to compare")
            return lambda values: (left.read(values) is None) is (sign == "is")
        left, right = self._read_beside(left, right), self._read_beside(right, left)
        if sign in ("=", "!="):
            return lambda values: (
                self._equal(left, left.read(values), right, right.read(values)) is (sign == "=")
            )
        check = self._check_within if sign in WITHIN else self._check_order

        def test(values: _Values) -> bool:
            one, other = left.read(values), right.read(values)
            check(left, one, sign, right, other)
            return compares(sign, one, other)

        return test

    def _read_beside(self, node: _Node, other: _Node) -> _Node:
        """Return a text that is compared with a name as values of the name are written."""
        reading = self._readings.get(other.name or "")
        if reading is None or node.text is None:
            return node
        try:
            value = reading(node.text)
        except ValueError as error:
            self._stop(node.start, str(error))
        return _Node(start=node.start, stop=node.stop, read=lambda values: value, is_literal=True)

    def _equal(self, left: _Node, one: Any, right: _Node, other: Any) -> bool:
        if one is not None and other is not None and not self._are_alike(one, other):
            self._stop(left.start, self._unlike(left, one, right, other))
        return compares("=", one, other)

    def _check_order(self, left: _Node, one: Any, sign: str, right: _Node, other: Any) -> None:
        for node, found in ((left, one), (right, other)):
            if found is None and not self._has_gaps:
                source = self._source(node)
                said = f"{source} is null, and '{sign}' takes none: add '{source} is not null and'"
                self._stop(node.start, said)
            if isinstance(found, bool):
                said = f"{self._source(node)} is {show(found)}: '{sign}' takes numbers or texts"
                self._stop(node.start, said)
        if one is not None and other is not None and not self._are_alike(one, other):
            self._stop(left.start, self._unlike(left, one, right, other))

    def _check_within(self, left: _Node, one: Any, sign: str, right: _Node, other: Any) -> None:
        for node, found in ((left, one), (right, other)):
            if found is not None and not isinstance(found, str):
                self._stop(
                    node.start, f"{self._source(node)} is {_kind(found)}: '{sign}' looks for text in text"
                )

    def _are_alike(self, one: Any, other: Any) -> bool:
        """Say whether two values are of one sort, or one is a label that may be the number it is held against."""
        for label, number in ((one, other), (other, one)):
            if isinstance(label, LabelText) and is_number(number):
                return self._has_gaps or number_of(label) is not None
        return _sort(one) == _sort(other)

    def _unlike(self, left: _Node, one: Any, right: _Node, other: Any) -> str:
        sides = [self._said(left, one), self._said(right, other)]
        return f"{sides[0]} and {sides[1]}: compare a number with a number, and text with text"

    def _said(self, node: _Node, found: Any) -> str:
        shown = "" if node.is_literal else f" ({show(found)})"
        return f"{self._source(node)} is {_sort(found)}{shown}"

    def _membership(self, left: _Node, wanted: bool, right: _Node) -> _Reading:
        if right.items is not None:
            items = [self._read_beside(item, left) for item in right.items]

            def listed(values: _Values) -> bool:
                found = left.read(values)
                return any(self._equal(left, found, item, item.read(values)) for item in items) is wanted

            return listed

        def contained(values: _Values) -> bool:
            part, whole = left.read(values), right.read(values)
            return (
                whole is not None and self._looked_for(left, part) in self._looked_for(right, whole)
            ) is wanted

        return contained

    def _looked_for(self, node: _Node, found: Any) -> str:
        if found is None and self._has_gaps:
            return "\0"  # which stands in no text
        if not isinstance(found, str):
            source = self._source(node)
            self._stop(
                node.start, f"{source} is {_kind(found)}: text is looked for in text, or in a list: [1, 2]"
            )
        return found

    def _function(self, name: str, arguments: Sequence[_Node]) -> _Reading:
        def result(values: _Values) -> Any:
            found = [node.read(values) for node in arguments]
            if found[0] is None and (name != "len" or self._has_gaps):
                return False if name.endswith("with") else None  # null has no start, no end and no letters
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

    def _argument(self, name: str, node: _Node, found: Any) -> str:
        if not isinstance(found, str):
            source = self._source(node)
            fix = f": add '{source} is not null and'" if found is None else ""
            self._stop(node.start, f"{source} is {_kind(found)}: {name} takes text{fix}")
        return found

    # Refusals.

    def _source(self, node: _Node) -> str:
        found = self._text[node.start : node.stop]
        return found if len(found) <= 60 else f"{found[:59]}…"

    def _refusal(self, position: int, text: str) -> ConditionInvalid:
        return ConditionInvalid(text, column=position + 1)

    def _stop(self, position: int, text: str) -> NoReturn:
        raise self._refusal(position, text)

    def _stop_syntax(self, position: int, reason: str) -> NoReturn:
        """Say where the grammar was broken, and what usually fixes it."""
        bare = _blank_strings(self._text)
        for pattern, fix in _FOREIGN:
            if found := pattern.search(bare):
                self._stop(found.start(), fix)
        self._stop(position, f"not a condition ({reason}): {_GRAMMAR}")


def _but_null(combine: Callable[..., Any], *values: Any) -> Any:
    return None if None in values else combine(*values)


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
