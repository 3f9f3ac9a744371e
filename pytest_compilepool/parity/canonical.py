# SPDX-License-Identifier: Apache-2.0
"""What of PTX and of a binary is the kernel, and what is only where and when it was compiled.

Line information holds the path of the kernel's text and the time when that file was written, so two
compiles into two folders never give the same bytes (seen: every cubin differs); everything else is compared.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_compilepool.parity.artifacts import UnreadableArtifact

_DEBUG_LINE = re.compile(r"^\s*\.(loc|file)\s|^\s*//|^\$L__(tmp|func_(begin|end))\w*:|^\s*$")
_DEBUG_SECTION = re.compile(r"^\s*\.section\s+\.debug_\w+")

# Sections that hold line information, or names and offsets that go with it.
_ASIDE = re.compile(
    r"^(\.nv\.merc)?\.(rela?\.)?(nv_)?debug"  # .nv.merc.*: of Blackwell's
    r"|^\.(shstrtab|strtab|symtab|symtab_shndx|comment)$|^\.note\.nv\.tkinfo$"
)

_REGISTERS, _FRAME = 0x2F, 0x11  # EIATTR_REGCOUNT, EIATTR_FRAME_SIZE in .nv.info (CUDA 11 to 13)


def ptx_lines(text: str) -> list[str]:
    """The lines of a PTX text that say what the kernel does."""
    kept: list[str] = []
    depth, inside = 0, False
    for line in text.splitlines():
        inside = inside or bool(_DEBUG_SECTION.match(line))
        if inside:
            # The section's brackets may stand on lines of their own.
            depth += line.count("{") - line.count("}")
            inside = depth > 0 or "}" not in line
        elif not _DEBUG_LINE.match(line):
            kept.append(re.sub(r"\s*//.*$", "", line).rstrip())
    return kept


@dataclass(frozen=True)
class Binary:
    """A cubin or hsaco without its line information.

    sections: bytes by name (an empty text for those without bytes, with their size); symbols: (name, section,
    value, size); registers: of a thread; spilled: bytes of local memory of a thread; None where not told.
    """

    sections: dict[str, bytes]
    symbols: tuple[tuple[str, str, int, int], ...]
    registers: int | None
    spilled: int | None


def read_binary(file: Path) -> Binary:
    """Read one. Raises UnreadableArtifact for what is no ELF file of a GPU kernel."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            elf = ELFFile(stream)
            found = _binary(elf)
    except (ELFError, OSError, ValueError, KeyError, struct.error, AttributeError, UnicodeError) as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise UnreadableArtifact(f"{file}: this is no readable binary of a kernel ({what})") from None
    if not any(name.startswith(".text") for name in found.sections):
        raise UnreadableArtifact(f"{file}: this binary of a kernel has no code in it ({size} bytes)")
    return found


def _binary(elf: object) -> Binary:
    names = [section.name for section in elf.iter_sections()]  # type: ignore[attr-defined]
    sections: dict[str, bytes] = {}
    symbols: list[tuple[str, str, int, int]] = []
    for section in elf.iter_sections():  # type: ignore[attr-defined]
        if section.name == ".symtab":
            for symbol in section.iter_symbols():
                home = symbol["st_shndx"]
                where = names[home] if isinstance(home, int) and home < len(names) else str(home)
                if not _ASIDE.match(where):
                    symbols.append((symbol.name, where, symbol["st_value"], symbol["st_size"]))
        if not section.name or _ASIDE.match(section.name):
            continue
        # .bss and shared memory have a size and no bytes.
        empty = section["sh_type"] == "SHT_NOBITS"
        sections[section.name] = f"{section['sh_size']} bytes".encode() if empty else section.data()
    registers, spilled = _resources(sections.get(".nv.info", b""))
    return Binary(sections, tuple(sorted(symbols)), registers, spilled)


def _resources(info: bytes) -> tuple[int | None, int | None]:
    """Registers and local memory of a CUDA kernel: the largest that is told of any function in it."""
    told: dict[int, int] = {}
    for attribute, payload in _attributes(info):
        if attribute in (_REGISTERS, _FRAME) and len(payload) == 8:
            told[attribute] = max(told.get(attribute, 0), struct.unpack("<II", payload)[1])
    return told.get(_REGISTERS), told.get(_FRAME)


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:  # the value follows; in the other forms it is in the four bytes themselves
            yield attribute, info[at : at + size]
            at += size


_AMD = re.compile(
    r"^\s*\.(vgpr_count|sgpr_count|agpr_count|vgpr_spill_count|sgpr_spill_count):\s*(\d+)", re.MULTILINE
)


def amd_resources(text: str) -> dict[str, int]:
    """Registers and spills of an AMD kernel, from its assembly (the ending `amdgcn`)."""
    return {name: int(number) for name, number in _AMD.findall(text)}
