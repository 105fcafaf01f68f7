"""Documents out of text files: compressed or not, lines of JSON or cut at a separator, UTF-8 checked."""

from __future__ import annotations

import functools
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.core.files import sha256
from workbench.data.storage import DataError
from workbench.data.workers import cores

PLAIN = (".txt", ".text", ".md")
LINES_OF_JSON = (".jsonl", ".ndjson")
PACKED = (".gz", ".zst")
BLOCK = 1 << 20
PACKED_BLOCK = 1 << 16
"""Compressed bytes unpacked at once: little, because text may be a thousand times longer."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TWICE = ("â€", "Ã©", "Â\xa0")
"""What UTF-8 looks like that was taken for Latin-1 and encoded again."""


@dataclass(frozen=True)
class TextFormat:
    """How a file's bytes become documents: see the settings of the corpus ``text``."""

    separator: str | None = None
    field: str = "text"
    errors: str = "strict"

    def as_data(self) -> dict[str, Any]:
        """As plain data, for a content hash."""
        return asdict(self)

    def reading(self, path: Path) -> str:
        """How a file is read, by its endings: ``jsonl`` or ``plain``, then the compression."""
        packed = path.suffix if path.suffix in PACKED else ""
        inner = Path(path.stem).suffix if packed else path.suffix
        return ("jsonl" if inner in LINES_OF_JSON else "plain") + packed


def find_files(paths: Sequence[str]) -> list[Path]:
    """Files that the paths name, each once; a folder's in order of their paths, hidden ones left out.

    Raises:
        DataError: a path does not exist, or a folder holds no text file.
    """
    found: dict[Path, Path] = {}
    for name in paths:
        path = Path(name).expanduser()
        if path.is_dir():
            below = sorted((file.relative_to(path) for file in path.rglob("*")), key=Path.as_posix)
            files = [path / name for name in below if _is_text(name) and (path / name).is_file()]
            if not files:
                raise DataError(f"folder {name} holds no {', '.join(PLAIN + LINES_OF_JSON)} file (or .gz, .zst of one)")
        elif path.is_file():
            files = [path]
        else:
            raise DataError(
                f"no file or folder {name!r} (looked for it at {path.absolute()}; a relative path starts where the "
                "command runs)"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_documents(path: Path, form: TextFormat) -> Iterator[str]:
    """The documents of one file, in order; empty ones are left out.

    Raises:
        DataError: not UTF-8 (names file and byte offset, in the unpacked text), not JSON, no such field,
            damaged compression, a compression that cannot be read here.
    """
    with _opened(path) as stream:
        try:
            if form.reading(path).startswith("jsonl"):
                pieces = _json_lines(path, stream, form)
            elif form.separator is None:
                pieces = iter([_decode(path, stream.read(), 0, form.errors)])
            else:
                pieces = _separated(path, stream, form.separator.encode(), form.errors)
            yield from filter(None, pieces)
        except _broken() as error:
            raise DataError(f"{path}: the compressed file is damaged or cut off ({error})") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes; read again only when its size or time of change is another.

    Raises:
        DataError: it cannot be read.
    """
    try:
        stat = path.stat()
        return _hash(str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def hash_files(paths: Sequence[Path]) -> list[str]:
    """`hash_file` of each, on all cores."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(hash_file, paths))


@functools.cache
def _hash(path: str, size: int, changed: int) -> str:
    return sha256(Path(path))


def _is_text(below: Path) -> bool:
    """Whether a path below a named folder counts: by its ending, and not hidden."""
    if any(part.startswith(".") for part in below.parts):
        return False
    name = below.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return name.endswith(PLAIN + LINES_OF_JSON)


def _opened(path: Path) -> BinaryIO:
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path, "rb"))
        if path.suffix == ".zst":
            return _zstd_open(path)
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _zstd_open(path: Path) -> BinaryIO:
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{path}: reading .zst needs `pip install zstandard`") from error
    return io.BufferedReader(_Frames(path, zstandard.ZstdDecompressor()), BLOCK)


class _Frames(io.RawIOBase):
    """The unpacked bytes of a .zst file, frame by frame. The library's own reader takes a file that is cut off
    for one that ends there; this one raises EOFError."""

    def __init__(self, path: Path, unpacker: Any) -> None:
        self.file, self.unpacker = path.open("rb"), unpacker
        self.frame: Any = None
        self.packed = self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            self.packed = self.packed or self.file.read(PACKED_BLOCK)
            if not self.packed:
                if self.frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self.frame = self.frame or self.unpacker.decompressobj()
            self.ready = self.frame.decompress(self.packed)
            self.packed = self.frame.unused_data
            if self.frame.eof:
                self.frame = None
        part, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.file.close()
        super().close()


def _broken() -> tuple[type[Exception], ...]:
    """What the decompressors raise on damaged files."""
    known: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    try:
        import zstandard
    except ImportError:
        return known
    return (*known, zstandard.ZstdError)


def _decode(path: Path, data: bytes, offset: int, errors: str) -> str:
    """Text of bytes that begin at ``offset`` of the (unpacked) file; a byte-order mark at 0 is dropped."""
    if offset == 0 and data.startswith(BYTE_ORDER_MARK):
        data, offset = data[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
    try:
        return data.decode("utf-8", errors=errors)
    except UnicodeDecodeError as error:
        place = offset + error.start
        raise DataError(
            f"{path}: byte {place} (0x{data[error.start]:02x}) is no UTF-8; convert the file, or set "
            "`errors: replace` to read U+FFFD there"
        ) from error


def _separated(path: Path, stream: BinaryIO, separator: bytes, errors: str) -> Iterator[str]:
    """Pieces between separators, never more than one piece and a block in memory. UTF-8 may be cut as
    bytes."""
    held, offset = b"", 0
    looked = 0
    while block := stream.read(BLOCK):
        held += block
        begin = 0
        while (end := held.find(separator, max(begin, looked))) >= 0:
            yield _decode(path, held[begin:end], offset + begin, errors)
            begin = end + len(separator)
        held, offset = held[begin:], offset + begin
        looked = max(0, len(held) - len(separator) + 1)
    yield _decode(path, held, offset, errors)


def _json_lines(path: Path, stream: BinaryIO, form: TextFormat) -> Iterator[str]:
    """The texts of a file of JSON objects, one a line; blank lines are skipped."""
    offset = 0
    for number, line in enumerate(_lines(stream), start=1):
        text = _decode(path, line, offset, form.errors)
        offset += len(line)
        if text.strip():
            yield _field(text, form, f"{path}, line {number}")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; the decompressors' own line readers differ."""
    held: list[bytes] = []
    while block := stream.read(BLOCK):
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield b"".join([*held, line, b"\n"])
            held = []
        held.append(rest)
    yield b"".join(held)


def _field(line: str, form: TextFormat, place: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get(form.field), str):
        known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"{place}: no text under {form.field!r} (setting `field`); it holds: {known}")
    text: str = record[form.field]
    if form.errors == "replace":  # "\ud800" in JSON makes half a surrogate pair, which has no UTF-8
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {text[error.start]!r} is half a surrogate pair; try `errors: replace`") from error
    return text
