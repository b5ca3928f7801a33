"""Encoded images to pixels and back, strict about damage and mild about odd formats.

`decode_image` is for foreign files: it checks the container before any pixel is
decoded. `decode_jpeg` and `decode_mask` are for bytes that `prepare` has written.
"""

import dataclasses
import struct
import zlib

import cv2
import numpy as np
import simplejpeg

MAX_PIXELS = 100_000_000

# All callers decode in threads of their own; OpenCV's pool would only fight with them.
cv2.setNumThreads(1)

_LEAST_FACTOR = 1.5  # a smaller image that is little smaller takes the decoder as long
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = {0: "grey", 2: "rgb", 3: "palette", 4: "grey+alpha", 6: "rgb+alpha"}
# Start-of-frame markers; C4, C8 and CC in the same range mean something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageError(Exception):
  """An image that cannot be used; the message is the plain reason."""


@dataclasses.dataclass(frozen=True)
class ImageHeader:
  """What the container says before decoding.

  Attributes:
    format: "jpeg", "png", "bmp" or "webp".
    height: Stored rows, before any EXIF rotation.
    width: Stored columns.
    channels: Stored colour channels of a JPEG (1, 3, 4); 0 where unknown.
    orientation: EXIF orientation 1..8; 1 = as stored.
    oddities: What makes it differ from a plain 8-bit RGB JPEG, in words.
  """

  format: str
  height: int
  width: int
  channels: int
  orientation: int
  oddities: tuple[str, ...]


def format_of(data: bytes) -> str | None:
  """"jpeg", "png", "bmp" or "webp" by how the file begins; None where it is none of them."""
  if data[:2] == b"\xff\xd8":
    return "jpeg"
  if data[:8] == _PNG_SIGNATURE:
    return "png"
  if data[:2] == b"BM" and len(data) >= 26:
    return "bmp"
  return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
  """Reads the container of an encoded image without decoding pixels.

  Args:
    data: The whole file.
    max_pixels: Larger images are refused.

  Returns:
    Format, size in pixels and oddities.

  Raises:
    ImageError: Empty, no image, truncated, damaged, zero-sized or too large.
  """
  if not data:
    raise ImageError("empty file")
  if (kind := format_of(data)) is not None:
    header = _READERS[kind](data)
  elif data.lstrip()[:1] == b"<":
    raise ImageError("text (HTML or XML) instead of an image")
  else:
    raise ImageError("not a JPEG, PNG, WebP or BMP image")
  if header.height <= 0 or header.width <= 0:
    raise ImageError(f"zero-sized image ({header.width}x{header.height})")
  if header.height * header.width > max_pixels:
    raise ImageError(f"{header.width}x{header.height} pixels, more than the limit of {max_pixels:,}")
  return header


def _read_jpeg_header(data: bytes) -> ImageHeader:
  """Walks the segments up to the first scan and looks for the end marker behind it."""
  position, frame, orientation = 2, None, 1
  while True:
    position = data.find(b"\xff", position)
    while 0 <= position < len(data) and data[position] == 0xFF:  # fill bytes may precede a marker
      position += 1
    if position < 0 or position + 3 > len(data):
      raise ImageError("truncated JPEG (no image data)")
    marker, (length,) = data[position], struct.unpack_from(">H", data, position + 1)
    body = data[position + 3:position + 1 + length]
    if marker in _JPEG_FRAMES:
      if len(body) < 6:
        raise ImageError("damaged JPEG header")
      frame = struct.unpack_from(">BHHB", body)
    elif marker == 0xE1:
      orientation = _exif_orientation(body)
    elif marker == 0xD9:
      raise ImageError("JPEG without image data")
    elif marker == 0xDA:
      break
    position += 1 + length
  if frame is None:
    raise ImageError("damaged JPEG header")
  # Entropy-coded data never holds FF D9 (FF is followed by a stuffed 00), so
  # the marker behind the scan is the end; a thumbnail's end lies before it.
  if data.find(b"\xff\xd9", position) < 0:
    raise ImageError("truncated JPEG (no end marker)")
  bits, height, width, channels = frame
  oddities = []
  if bits != 8:
    oddities.append(f"{bits}-bit jpeg")
  if channels != 3:
    oddities.append({1: "grey", 4: "cmyk"}.get(channels, f"{channels} channels"))
  if orientation != 1:
    oddities.append("rotated by EXIF")
  return ImageHeader("jpeg", height, width, channels, orientation, tuple(oddities))


def _exif_orientation(segment: bytes) -> int:
  """Orientation 1..8 of an APP1 segment; 1 where there is none."""
  if segment[:6] != b"Exif\0\0" or len(segment) < 14:
    return 1
  tiff = segment[6:]
  order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
  if order is None:
    return 1
  start, = struct.unpack_from(order + "I", tiff, 4)
  if start + 2 > len(tiff):
    return 1
  count, = struct.unpack_from(order + "H", tiff, start)
  for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
    tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
    if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
      return value
  return 1


def _read_png_header(data: bytes) -> ImageHeader:
  """Walks all chunks: size, kind, check sums, end chunk."""
  position, header, transparent = 8, None, False
  while True:
    if position + 12 > len(data):
      raise ImageError("truncated PNG (no end chunk)")
    length, kind = struct.unpack_from(">I4s", data, position)
    end = position + 12 + length
    if end > len(data):
      raise ImageError("truncated PNG")
    if struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(memoryview(data)[position + 4:end - 4]):
      raise ImageError(f"damaged PNG (check sum of chunk {kind.decode('latin1')!r})")
    if (kind == b"IHDR") != (header is None) or (header is None and length != 13):  # decoders go by the first of several
      raise ImageError("damaged PNG header")
    if header is None:
      header = struct.unpack_from(">IIBB", data, position + 8)
    transparent |= kind == b"tRNS"
    if kind == b"IEND":
      break
    position = end
  width, height, bits, colour = header
  oddities = ["png"]
  if (name := _PNG_KINDS.get(colour, "unknown colour")) != "rgb":
    oddities.append(name)
  if transparent:
    oddities.append("transparent colour")
  if bits == 16:
    oddities.append("16-bit")
  return ImageHeader("png", height, width, 0, 1, tuple(oddities))


def _read_bmp_header(data: bytes) -> ImageHeader:
  """Size of the usual layout; a negative height only says that rows are stored from the top."""
  size, header_bytes = struct.unpack_from("<I8xI", data, 2)
  if size > len(data):
    raise ImageError("truncated BMP")
  if header_bytes < 40:  # OS/2's, with sides of 16 bits; the decoder loses its colours
    raise ImageError("BMP with a header of an old kind")
  width, height = struct.unpack_from("<ii", data, 18)
  return ImageHeader("bmp", abs(height), width, 0, 1, ("bmp",))


def _read_webp_header(data: bytes) -> ImageHeader:
  """Size of the three WebP layouts (lossy, lossless, extended)."""
  if len(data) < 30 or struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
    raise ImageError("truncated WebP")
  kind = data[12:16]
  if kind == b"VP8 ":
    width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
  elif kind == b"VP8L":
    bits, = struct.unpack_from("<I", data, 21)
    width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
  elif kind == b"VP8X":
    width, height = (int.from_bytes(data[start:start + 3], "little") + 1 for start in (24, 27))
  else:
    raise ImageError("damaged WebP header")
  return ImageHeader("webp", height, width, 0, 1, ("webp",))


_READERS = {"jpeg": _read_jpeg_header, "png": _read_png_header, "bmp": _read_bmp_header, "webp": _read_webp_header}


def decode_image(data: bytes, *, where: str = "image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Decodes any supported image file to upright RGB, or says why not.

  Grey becomes three equal channels, CMYK (with the inversion that Adobe and
  every known writer use) and palettes become RGB, 16 bits become 8, transparent
  pixels are laid over white, EXIF orientation is applied.

  Args:
    data: The whole file.
    where: File name for the error message.
    max_pixels: Larger images are refused before decoding.

  Returns:
    uint8 [H, W, 3], RGB.

  Raises:
    ImageError: "<where>: <reason>". A JPEG that the decoder can only repair by
      guessing (missing or damaged data) counts as unusable.
  """
  try:
    header = read_header(data, max_pixels=max_pixels)
    if header.format != "jpeg":
      return _decode_other(data, header)
    if simplejpeg.decode_jpeg_header(data)[:2] != (header.height, header.width):  # two sizes in one file: the limit must see the decoder's
      raise ImageError("damaged JPEG header")
    image = _decode_cmyk(data) if header.channels == 4 else simplejpeg.decode_jpeg(data, strict=True)
  except ImageError as error:
    raise ImageError(f"{where}: {error}") from None
  except (ValueError, cv2.error) as error:
    raise ImageError(f"{where}: {' '.join(str(error).split())}") from None
  return _upright(image, header.orientation)


def _decode_cmyk(data: bytes) -> np.ndarray:
  cmyk = simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=True)
  # Stored inverted: 255 means no ink, so that each channel times black is the light left.
  return ((cmyk[..., :3].astype(np.uint16) * cmyk[..., 3:] + 127) // 255).astype(np.uint8)


def _decode_other(data: bytes, header: ImageHeader) -> np.ndarray:
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if image is None or image.shape[:2] != (header.height, header.width):
    raise ImageError(f"damaged {header.format.upper()}")
  if image.dtype == np.uint16:
    image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
  if image.dtype != np.uint8:
    raise ImageError(f"pixels of type {image.dtype}")
  if image.ndim == 2:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
  if image.shape[2] == 4:
    alpha = image[..., 3:].astype(np.uint32)
    image = ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """Applies an EXIF orientation: 5..8 swap the axes first, then rows and columns are mirrored."""
  if orientation == 1:
    return image
  if orientation >= 5:
    image = image.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    image = image[::-1]
  if orientation in (2, 3, 6, 7):
    image = image[:, ::-1]
  return np.ascontiguousarray(image)


def decode_jpeg(data: bytes, at_least: tuple[int, int] = (0, 0)) -> np.ndarray:
  """Decodes a JPEG that `prepare` has checked; releases the GIL.

  Args:
    data: The whole file.
    at_least: (H, W). The decoder makes a larger image smaller by itself, by factors of 1.5 to 8, down to this at the least: faster
      than to make it smaller later, and without aliasing. (0, 0): at its full size.

  Returns:
    uint8 [H, W, 3], RGB.

  Raises:
    ValueError: The decoder refuses it.
  """
  if not any(at_least):
    return simplejpeg.decode_jpeg(data)
  return simplejpeg.decode_jpeg(data, min_height=at_least[0], min_width=at_least[1], min_factor=_LEAST_FACTOR)


def jpeg_size(data: bytes) -> tuple[int, int]:
  """(H, W) that a JPEG which `prepare` has checked is stored at."""
  return simplejpeg.decode_jpeg_header(data)[:2]


def decode_mask(data: bytes) -> np.ndarray:
  """Decodes an 8-bit grey PNG. Returns uint8 [H, W].

  Raises:
    ImageError: The bytes are no image.
  """
  mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
  if mask is None:
    raise ImageError("damaged mask")
  return mask


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
  """Encodes uint8 [H, W, 3] RGB as JPEG of a `quality` in 1..100 with 4:2:0 chroma."""
  return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420")


def encode_png(image: np.ndarray) -> bytes:
  """Encodes uint8 [H, W] or [H, W, 3] (RGB) as PNG."""
  stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
  _, data = cv2.imencode(".png", np.ascontiguousarray(stored))
  return data.tobytes()
