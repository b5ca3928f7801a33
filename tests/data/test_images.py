import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg

from attr_jax.data import images


def with_exif(jpeg: bytes, orientation: int) -> bytes:
  tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
  segment = b"Exif\0\0" + tiff
  return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def set_frame_size(jpeg: bytes, height: int, width: int) -> bytes:
  at = jpeg.index(b"\xff\xc0")
  return jpeg[:at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9:]


def decode(data: bytes) -> np.ndarray:
  return images.decode_image(data, where="a.jpg")


def assert_close(image, expected, tolerance=4.0):
  assert image.dtype == np.uint8
  assert image.shape == expected.shape
  assert np.abs(image.astype(float) - expected).mean() < tolerance


def test_plain_jpeg_is_close_to_the_picture_and_equal_on_the_fast_path(picture):
  image = picture(0, 40, 60)
  data = images.encode_jpeg(image)
  assert_close(decode(data), image)
  np.testing.assert_array_equal(decode(data), images.decode_jpeg(data))
  assert simplejpeg.decode_jpeg_header(data)[3] == "420"
  assert not images.read_header(data).oddities


def test_progressive_jpeg(picture):
  image = picture(1, 40, 60)
  _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 95])
  assert b"\xff\xc2" in data.tobytes()
  assert_close(decode(data.tobytes()), image)


def test_grey_jpeg_becomes_three_channels(picture):
  grey = picture(2, 40, 60)[..., :1].copy()
  data = simplejpeg.encode_jpeg(grey, colorspace="GRAY", quality=95)
  assert images.read_header(data).oddities == ("grey",)
  assert_close(decode(data), np.repeat(grey, 3, axis=2))


def test_inverted_cmyk_jpeg(picture):
  image = picture(3, 40, 60)
  ink = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
  data = simplejpeg.encode_jpeg(ink, colorspace="CMYK", colorsubsampling="444", quality=95)
  assert images.read_header(data).oddities == ("cmyk",)
  assert_close(decode(data), image)
  half = np.dstack([image, np.full(image.shape[:2], 128, np.uint8)])
  data = simplejpeg.encode_jpeg(half, colorspace="CMYK", colorsubsampling="444", quality=95)
  assert_close(decode(data), image * (128 / 255))


def test_png_under_a_jpeg_name(picture):
  image = picture(4, 40, 60)
  np.testing.assert_array_equal(decode(images.encode_png(image)), image)


def test_16_bit_png(picture):
  image = picture(5, 40, 60)
  _, data = cv2.imencode(".png", image[..., ::-1].astype(np.uint16) * 257)
  assert "16-bit" in images.read_header(data.tobytes()).oddities
  np.testing.assert_array_equal(decode(data.tobytes()), image)


def test_alpha_is_laid_over_white(picture):
  image = picture(6, 40, 60)
  alpha = np.full(image.shape[:2], 255, np.uint8)
  alpha[:20] = 0
  _, data = cv2.imencode(".png", np.dstack([image[..., ::-1], alpha]))
  decoded = decode(data.tobytes())
  assert (decoded[:20] == 255).all()
  np.testing.assert_array_equal(decoded[20:], image[20:])


def test_palette_png():
  palette = bytes([255, 0, 0, 0, 0, 255])
  rows = b"".join(b"\0" + bytes([row % 2] * 4) for row in range(6))
  data = (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 6, 8, 3, 0, 0, 0)) + png_chunk(b"PLTE", palette)
          + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))
  decoded = decode(data)
  assert decoded.shape == (6, 4, 3)
  assert decoded[0, 0].tolist() == [255, 0, 0]
  assert decoded[1, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_agrees_with_opencv(picture, orientation):
  data = with_exif(images.encode_jpeg(picture(7, 40, 60), quality=95), orientation)
  expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
  assert images.read_header(data).orientation == orientation
  assert_close(decode(data), expected, tolerance=1.0)


@pytest.mark.parametrize("extension", [".webp", ".bmp"])
def test_other_formats(picture, extension):
  image = picture(8, 40, 60)
  _, data = cv2.imencode(extension, image[..., ::-1])
  assert images.read_header(data.tobytes()).format == extension[1:]
  assert_close(decode(data.tobytes()), image)


def bad_files(jpeg: bytes, png: bytes) -> dict[str, tuple[bytes, str]]:
  return {
      "empty": (b"", "empty file"),
      "html": (b"  <!DOCTYPE html><html>404</html>", "text"),
      "random": (np.random.default_rng(0).bytes(500), "not a JPEG"),
      "magic only": (b"\xff\xd8", "truncated"),
      "header only": (jpeg[:200], "truncated"),
      "half": (jpeg[:len(jpeg) // 2], "no end marker"),
      "without end": (jpeg[:-2], "no end marker"),
      "half with end": (jpeg[:len(jpeg) // 2] + b"\xff\xd9", "orrupt"),
      "zero height": (set_frame_size(jpeg, 0, 60), "zero-sized"),
      "zero width": (set_frame_size(jpeg, 40, 0), "zero-sized"),
      "huge": (set_frame_size(jpeg, 65000, 65000), "limit"),
      "half a png": (png[:len(png) // 2], "truncated PNG"),
      "flipped byte in png": (png[:60] + bytes([png[60] ^ 255]) + png[61:], "damaged PNG"),
      "huge png": (png[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)) + png[33:], "limit"),
  }


def test_what_cannot_be_used_is_named(picture):
  image = picture(9, 40, 60)
  for name, (data, reason) in bad_files(images.encode_jpeg(image), images.encode_png(image)).items():
    with pytest.raises(images.ImageError, match=reason) as caught:
      decode(data)
    assert str(caught.value).startswith("a.jpg: "), name
    assert "\n" not in str(caught.value)


def test_the_end_marker_of_a_thumbnail_does_not_count(picture):
  jpeg = images.encode_jpeg(picture(10, 40, 60))
  thumbnail = b"Exif\0\0" + images.encode_jpeg(picture(11, 16, 16))
  data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
  decode(data)
  with pytest.raises(images.ImageError, match="no end marker"):
    decode(data[:-300])


def test_every_truncation_is_noticed(picture):
  for data in (images.encode_jpeg(picture(12, 40, 60)), images.encode_png(picture(12, 40, 60))):
    for length in range(0, len(data) - 1, 17):
      with pytest.raises(images.ImageError):
        decode(data[:length])


def test_random_damage_raises_nothing_else(picture):
  rng = np.random.default_rng(1)
  for data in (images.encode_jpeg(picture(13, 24, 32)), images.encode_png(picture(13, 24, 32))):
    for _ in range(300):
      broken = bytearray(data)
      for at in rng.integers(0, len(data), 3):
        broken[at] = rng.integers(256)
      try:
        images.decode_image(bytes(broken), where="x", max_pixels=10_000_000)
      except images.ImageError:
        pass


def test_a_second_size_in_a_file_does_not_pass_the_limit(picture):
  """Decoders go by the first size; what is checked must be the same one."""
  jpeg, png = images.encode_jpeg(picture(15, 40, 60)), images.encode_png(picture(15, 40, 60))
  huge = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
  frame = set_frame_size(jpeg, 65_000, 65_000)[jpeg.index(b"\xff\xc0"):][:19]
  at, filler = jpeg.index(b"\xff\xc0"), bytes(0xFFC0 - 19 - 4)
  # FF D0 has no length, though FF C0 behind it could be one; who takes it for one sees the second size alone, others the first alone.
  hidden = b"\xff\xd0" + frame + b"\xff\xfe" + struct.pack(">H", 2 + len(filler) + 19) + filler
  core = b"BM" + struct.pack("<IHHIIHHHH", 60, 0, 0, 26, 12, 40_000, 40_000, 1, 24) + bytes(34)  # sides of 16 bits
  negative = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, -50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(6)
  for data, reason in ((png[:8] + huge + png[8:], "PNG header"), (png[:-12] + png_chunk(b"IHDR", png[16:29]) + png[-12:], "PNG header"),
                       (png[:8] + huge + png[33:], "limit"), (jpeg[:at] + hidden + jpeg[at:], "JPEG header"), (core, "old kind"),
                       (negative, "zero-sized")):
    with pytest.raises(images.ImageError, match=reason):
      decode(data)


def test_a_bitmap_from_top_to_bottom():
  pixels = bytes([0, 0, 255, 0, 0, 255, 0, 0])  # red and green, each with a byte to fill its row
  data = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 54, 40, 1, -2, 1, 24, 0, 8, 0, 0, 0, 0) + pixels
  assert decode(data).tolist() == [[[255, 0, 0]], [[0, 255, 0]]]


def test_the_limit_counts_pixels(picture):
  data = images.encode_jpeg(picture(14, 40, 60))
  images.decode_image(data, where="x", max_pixels=2400)
  with pytest.raises(images.ImageError, match="limit of 2,399"):
    images.decode_image(data, where="x", max_pixels=2399)


@pytest.mark.parametrize("shape, expected", [
    ((1024, 1024), (256, 256)), ((768, 1024), (288, 384)), ((2048, 300), (2048, 300)), ((512, 700), (256, 350)), ((380, 380), (380, 380)),
    ((256, 256), (256, 256)), ((200, 3000), (200, 3000))])
def test_large_images_leave_the_decoder_smaller(shape, expected):
  rng = np.random.default_rng(0)
  image = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC)
  data = images.encode_jpeg(image)
  found = images.decode_jpeg(data, (256, 256))
  assert found.shape == (*expected, 3) and images.jpeg_size(data) == shape
  averaged = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_AREA)
  assert np.abs(found.astype(float) - averaged).mean() < 2


def test_masks_survive_png():
  mask = np.random.default_rng(2).integers(0, 256, (31, 17)).astype(np.uint8)
  np.testing.assert_array_equal(images.decode_mask(images.encode_png(mask)), mask)


def test_opencv_runs_no_threads_of_its_own():
  assert cv2.getNumThreads() == 1
