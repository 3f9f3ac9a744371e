# SPDX-License-Identifier: Apache-2.0
"""The matrix as text: for a terminal, and as Markdown for the summary of a CI step."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_compilepool.matrix.environments import title
from pytest_compilepool.matrix.markdown import escaped, link
from pytest_compilepool.matrix.statuses import LETTERS, MEANINGS, UNEXPECTED
from pytest_compilepool.matrix.table import Column, Matrix, Square, evidence

_REASON = 160


def letter(square: Square, column: Column) -> str:
    """With how many of the column's cells say so, where there are several and they do not all."""
    text = LETTERS[square.status]
    return text if square.many == len(column.cells) else f"{text}{square.many}/{len(column.cells)}"


def terminal(matrix: Matrix) -> Iterator[str]:
    """Lines: what each cell is evidence for, then a row for each feature."""
    yield from notes(matrix)
    heads = [f"{column.name}{'!' if column.torn else ''}" for column in matrix.columns]
    texts = {
        feature: [letter(column.squares[feature], column) for column in matrix.columns]
        for feature in matrix.features
    }
    widths = [
        max(len(head), *(len(row[number]) for row in texts.values())) if texts else len(head)
        for number, head in enumerate(heads)
    ]
    _widen(matrix, widths)
    first = max(map(len, (*matrix.features, "feature")), default=7)
    yield ""
    yield " " * first + "  " + _lanes(matrix, widths)
    yield "  ".join(
        [f"{'feature':<{first}}", *(f"{head:<{width}}" for head, width in zip(heads, widths, strict=True))]
    )
    for group, features in matrix.groups.items():
        yield f"{group}:"
        for feature in features:
            row = (f"{text:<{width}}" for text, width in zip(texts[feature], widths, strict=True))
            yield "  ".join([f"{feature:<{first}}", *row]).rstrip()
    yield ""
    yield "; ".join(f"{LETTERS[status]} {meaning}" for status, meaning in MEANINGS.items())


def _widen(matrix: Matrix, widths: list[int]) -> None:
    """Until the name of each lane fits above its columns."""
    number = 0
    for lane, columns in matrix.lanes.items():
        number += len(columns)
        width = sum(widths[number - len(columns) : number]) + 2 * (len(columns) - 1)
        widths[number - 1] += max(0, len(lane) - width)


def _lanes(matrix: Matrix, widths: list[int]) -> str:
    parts, number = [], 0
    for lane, columns in matrix.lanes.items():
        width = sum(widths[number : number + len(columns)]) + 2 * (len(columns) - 1)
        number += len(columns)
        parts.append(f"{lane:<{width}}")
    return "  ".join(parts).rstrip()


def notes(matrix: Matrix) -> Iterator[str]:
    """What must be known of the cells before anybody looks at the table."""
    for column in matrix.columns:
        for cell in column.cells:
            told, every = evidence(cell)
            cut = "" if cell.complete else "; the run did not come to its end"
            part = f"; shard {cell.shard} only" if cell.shard else ""
            yield f"{title(cell)}: evidence for {told} of {every} features{part}{cut}"
    for column in matrix.columns:
        if column.torn:
            yield (
                f"! {column.lane}, {column.name}: cells of one environment disagree about "
                f"{len(column.torn)} features: {', '.join(column.torn)}"
            )


def markdown(matrix: Matrix) -> Iterator[str]:
    """Lines: rows that are not the same in all columns, or not as expected in one, and what stands behind their letters."""
    differ = {feature for feature in matrix.features if matrix.differs(feature)}
    unexpected = {
        feature
        for feature in matrix.features
        if any(column.squares[feature].status in UNEXPECTED for column in matrix.columns)
    }
    changed = [feature for feature in matrix.features if feature in differ | unexpected]
    yield (
        f"**{len(differ)} of {len(matrix.features)} features are not the same everywhere; "
        f"{len(unexpected)} are not as expected somewhere.**"
    )
    yield ""
    yield from (f"- {escaped(line)}" for line in notes(matrix))
    if not changed:
        return
    yield ""
    yield "| feature | " + " | ".join(escaped(f"{one.name} ({one.lane})") for one in matrix.columns) + " |"
    yield "| --- |" + " --- |" * len(matrix.columns)
    for feature in changed:
        row = (escaped(letter(column.squares[feature], column)) for column in matrix.columns)
        yield f"| {escaped(feature)} | " + " | ".join(row) + " |"
    yield ""
    yield from _reasons(matrix, changed)


def _reasons(matrix: Matrix, features: list[str]) -> Iterator[str]:
    for feature in features:
        told: dict[str, list[str]] = {}
        for column in matrix.columns:
            square = column.squares[feature]
            for one in square.found:
                if one.reason and one.status == square.status and one.status != "PASS":
                    reason = one.reason.strip().partition("\n")[0][:_REASON]
                    bug = f" ([bug]({link(one.bug)}))" if link(one.bug) else ""
                    told.setdefault(f"{one.status}: {escaped(reason)}{bug}", []).append(column.name)
                    break
        for text, columns in told.items():
            yield f"- {escaped(feature)}, {', '.join(map(escaped, columns))}: {text}"
