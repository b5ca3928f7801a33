"""Image files read where they lie, also inside the archive in which they were downloaded.

A zip, or a tar that is not compressed, is indexed once and its entries are then
read by position: one descriptor serves all threads, and nothing is unpacked.
No name of an entry ever becomes a path on disk. Even so an archive with an entry
that leaves its folder is refused whole: whoever made it meant harm or made a mistake.
"""

import dataclasses
import os
import pathlib
import shlex
import stat
import struct
import tarfile
import weakref
import zipfile
import zlib

from attr_jax.data import images
from attr_jax.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")  # the first one that is there is taken
MAX_BYTES = 200_000_000  # of one entry, packed or not
# A larger entry that shrinks more than this is made to fill the memory: deflate hardly shrinks an image at all.
BOMB_BYTES = 50_000_000
BOMB_RATIO = 200
_LOCAL_HEADER = b"PK\3\4"
_LOCAL_HEADER_BYTES = 30  # two lengths of what follows it before the data stand at its end


def inside(name: str) -> pathlib.PurePosixPath | None:
  """The relative path that a name spells, or None where it is empty, absolute or may leave its folder."""
  path = pathlib.PurePosixPath(name)
  return None if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name else path


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
  """Where a file lies in its archive.

  Attributes:
    start: Of its local header (zip) or of its data (tar), in bytes.
    size: Of the file.
    packed: Bytes in the archive.
    deflated: Compressed.
    check_sum: CRC-32 of the file; None in a tar, which has none.
  """

  start: int
  size: int
  packed: int
  deflated: bool = False
  check_sum: int | None = None


class Archive:
  """The files of one archive, readable from several threads at a time."""

  def __init__(self, path: pathlib.Path):
    """Reads and checks the table of contents.

    Raises:
      InputError: No archive that can be read, or an entry, which is named, is not to be trusted.
    """
    self.path = path
    try:
      self._entries = _index_zip(path) if path.suffix == ".zip" else _index_tar(path)
      self._descriptor = os.open(path, os.O_RDONLY)
    except InputError:
      raise
    except Exception as error:  # both modules raise half a dozen types for foreign or damaged files
      raise InputError(f"{path}: not a readable {path.suffix[1:]} archive ({' '.join(str(error).split())})") from None
    weakref.finalize(self, os.close, self._descriptor)

  def __contains__(self, name: str) -> bool:
    return name in self._entries

  def has_folder(self, name: str) -> bool:
    """Whether a file lies below that folder; "" is the whole archive."""
    return not name or any(entry.startswith(f"{name}/") for entry in self._entries)

  def list_folder(self, name: str) -> list[str]:
    """Names of the files and folders right in a folder ("": the whole), in order; [] where there is none."""
    start = f"{name}/" if name else ""
    return sorted({entry[len(start):].partition("/")[0] for entry in self._entries if entry.startswith(start)})

  def read(self, name: str) -> bytes:
    """Returns the content of a file.

    Raises:
      ImageError: It is damaged.
      FileNotFoundError: There is no such file.
      OSError: The archive cannot be read.
    """
    if name not in self._entries:
      raise FileNotFoundError(f"not in {self.path.name}")
    entry = self._entries[name]
    start = entry.start if entry.check_sum is None else self._data_start(entry)
    data = os.pread(self._descriptor, entry.packed, start)
    try:
      if entry.deflated:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)  # one more than stated shows that it lied
    except zlib.error:
      raise images.ImageError(f"damaged in {self.path.name}") from None
    if len(data) != entry.size or entry.check_sum not in (None, zlib.crc32(data)):
      raise images.ImageError(f"damaged in {self.path.name}")
    return data

  def _data_start(self, entry: _Entry) -> int:
    """Where the data of a zip's entry begin: behind a second header, whose length the table of contents does not tell."""
    header = os.pread(self._descriptor, _LOCAL_HEADER_BYTES, entry.start)
    if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_HEADER):
      raise images.ImageError(f"damaged in {self.path.name}")
    return entry.start + _LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", header, _LOCAL_HEADER_BYTES - 4))


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
  """A file or folder of an archive; has what the readers of data sets use of `pathlib.Path`.

  Attributes:
    archive: Its archive.
    inner: Path in the archive, "/" between its parts; "" = the whole.
  """

  archive: Archive
  inner: str = ""

  def __truediv__(self, name: str | pathlib.PurePosixPath) -> "Member":
    return Member(self.archive, f"{self.inner}/{name}" if self.inner else str(name))

  def __str__(self) -> str:
    return str(self.archive.path / self.inner)

  @property
  def name(self) -> str:
    """Its last part; of the whole that of the archive."""
    return (self.inner or self.archive.path.name).rpartition("/")[2]

  @property
  def suffix(self) -> str:
    """Of its name, with the dot; "" where it has none."""
    return pathlib.PurePosixPath(self.name).suffix

  def exists(self) -> bool:
    """Whether there is such a file or folder."""
    return self.is_file() or self.is_dir()

  def iterdir(self) -> list["Member"]:
    """What lies right in it, in order."""
    return [self / name for name in self.archive.list_folder(self.inner)]

  def is_dir(self) -> bool:
    """Whether it is a folder with a file in it."""
    return self.archive.has_folder(self.inner)

  def is_file(self) -> bool:
    """Whether it is a file."""
    return self.inner in self.archive

  def read_bytes(self) -> bytes:
    """See `Archive.read`."""
    return self.archive.read(self.inner)

  def read_text(self, encoding: str) -> str:
    """See `Archive.read`; also raises UnicodeDecodeError."""
    return self.read_bytes().decode(encoding)


File = pathlib.Path | Member


def find(folder: pathlib.Path) -> pathlib.Path | None:
  """The archive that stands for a folder: it lies beside it and has its name and one of `SUFFIXES`."""
  return next((path for suffix in SUFFIXES if (path := folder.with_name(folder.name + suffix)).is_file()), None)


def folder(path: pathlib.Path) -> File:
  """A folder of images, unpacked or not.

  Args:
    path: Of the folder on disk.

  Returns:
    `path` where there is such a folder, or no archive of its name either. Else the inside of that archive: its folder of
    the same name, or all of it where it has none.

  Raises:
    InputError: The archive cannot be read by position, is damaged or has an entry that is not to be trusted.
  """
  found = None if path.is_dir() else find(path)
  if found is None:
    return path
  if found.suffix in (".gz", ".tgz"):
    quoted = shlex.quote(str(found))
    raise InputError(f"{found}: a compressed tar cannot be read in place; make it a plain one (gunzip {quoted}) or unpack it "
                     f"(tar -xzf {quoted} -C {shlex.quote(str(found.parent))})")
  root = Member(Archive(found))
  return root / path.name if (root / path.name).is_dir() else root


def _index_zip(path: pathlib.Path) -> dict[str, _Entry]:
  """Path in the archive -> its entry, of all files."""
  entries = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made where files have no such mode
      name = _check(path, info.filename, info.file_size, info.compress_size, plain)
      if info.is_dir():
        continue
      if info.flag_bits & 1:
        raise InputError(f"{path}: entry {info.filename!r} is encrypted; unpack the archive")
      if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: entry {info.filename!r} is packed by method {info.compress_type}, only 0 and 8 can be read in "
                         "place; unpack the archive")
      _add(entries, path, name, _Entry(info.header_offset, info.file_size, info.compress_size,
                                       info.compress_type == zipfile.ZIP_DEFLATED, info.CRC))
  return entries


def _index_tar(path: pathlib.Path) -> dict[str, _Entry]:
  """Path in the archive -> its entry, of all files."""
  entries, end = {}, path.stat().st_size
  with tarfile.open(path, "r:") as archive:
    for info in archive:
      if info.isdir() and not pathlib.PurePosixPath(info.name).parts:
        continue  # "./", which many archives begin with
      name = _check(path, info.name, info.size, info.size, info.isdir() or info.isreg() and not info.issparse())
      if info.isdir():
        continue
      if info.offset_data + info.size > end:
        raise InputError(f"{path}: truncated at entry {info.name!r}")
      _add(entries, path, name, _Entry(info.offset_data, info.size, info.size))
  return entries


def _check(path: pathlib.Path, name: str, size: int, packed: int, plain: bool) -> str:
  """Returns the name of an entry in one spelling, or raises InputError where it is not to be trusted."""
  relative = inside(name)
  if relative is None:
    raise InputError(f"{path}: entry {name!r} leaves its folder; expected a relative path without '..'")
  if not plain:
    raise InputError(f"{path}: entry {name!r} is a link or of another special kind; expected files and folders")
  if max(size, packed) > MAX_BYTES:
    raise InputError(f"{path}: entry {name!r} has {max(size, packed):,} bytes, more than the limit of {MAX_BYTES:,}")
  if size > BOMB_BYTES and size > BOMB_RATIO * packed:
    raise InputError(f"{path}: entry {name!r} unpacks {packed:,} to {size:,} bytes, more than {BOMB_RATIO} times as many: a bomb")
  return str(relative)


def _add(entries: dict[str, _Entry], path: pathlib.Path, name: str, entry: _Entry) -> None:
  if name in entries:
    raise InputError(f"{path}: entry {name!r} comes twice")
  entries[name] = entry
