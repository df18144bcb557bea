"""Reading pictures: file bytes to uint8 arrays, and the paper's central square of one size."""

import contextlib
import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

# Formats are told by content, not by name: ImageNet holds a PNG called .JPEG. The list keeps out
# Pillow's plugins that start other programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip

_COLORS = {1: ("GRAY", "Gray"), 3: ("RGB", "420")}  # as OpenCV, and so the authors, subsample
_MODES = {1: "L", 3: "RGB"}
_LONGEST_JPEG = 65_500  # pixels: libjpeg's JPEG_MAX_DIMENSION

# Pillow warns of harmless oddities, such as the broken EXIF blocks of some ImageNet pictures. Set
# once and for all, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(Exception):  # noqa: N818 (a state of the data, counted and reported)
    """The bytes hold no picture that can be decoded; the message is the reason."""


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes one picture file to 8-bit gray or RGB.

    The picture is turned upright by its EXIF orientation. Alpha and transparent colors are
    dropped, not composited, as torchvision's loader does. 16-bit gray is scaled to 8 bits. CMYK
    JPEGs are taken as stored inverted, as Adobe does. Of an animation the first frame is taken.

    Args:
      data: the bytes of a file in one of FORMATS.
      channels: 1 for gray (ITU-R 601 luma), 3 for RGB.

    Returns:
      uint8[height, width, channels].

    Raises:
      UnreadableImage: if the data are empty, truncated, no picture, or so large a picture
        (Image.MAX_IMAGE_PIXELS, 89 million) that they may be a decompression bomb.
    """
    mode = _MODES[channels]
    if not data:
        raise UnreadableImage("the file is empty")
    if channels == 3 and (plain := _decode_plain_jpeg(data)) is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bomb(image)
            image.load()
            # A broken EXIF block says nothing about the pixels.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_to_8_bits(image).convert(mode))
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not a picture in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # hostile data make Pillow's decoders raise almost anything
        raise UnreadableImage(str(error) or type(error).__name__) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decodes what needs no more than a JPEG decoder, to the same pixels as Pillow but faster.

    Returns None for all else: what is no JPEG, CMYK, turned by EXIF, too large, or not whole.
    """
    if data[:2] != b"\xff\xd8" or b"Exif\0\0" in data:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        limit = Image.MAX_IMAGE_PIXELS
        if colors not in ("YCbCr", "Gray") or (limit and height * width > limit):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None


def _refuse_bomb(image: Image.Image) -> None:
    """Raises UnreadableImage where Pillow would only warn of a decompression bomb."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels are above the limit of {limit} pixels"
        )


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Makes a picture of any mode safe for Image.convert to L or RGB."""
    image.info.pop("transparency", None)
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        # Image.convert would clip at 255. 65535 = 257 * 255, so this rounds to the nearest.
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return image


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Scales the shorter side to `size`, up or down, and keeps the central square (paper 4.3).

    Only the central square is resampled: what lies outside never reaches the net. The authors
    shrink by area averaging and enlarge by cubic interpolation (cuda-convnet2, pyext.cpp:109-110).
    Of Pillow's filters Hamming comes nearest to the exact average over all ratios: 0.9 to 2.5 gray
    levels rms on photographs, where Box, whose weights are 0 or 1 and never in between, is off by
    up to 6.3 and Bicubic by 1.8 to 2.8.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels]; the picture itself where it has that shape already.
    """
    height, width, _ = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resample(image[top : top + side, left : left + side], size, size)


def warp(image: np.ndarray, size: int) -> np.ndarray:
    """Scales both sides to `size` each, whatever their ratio, as Caffe's preparation does.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels].
    """
    return _resample(image, size, size)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Scales the shorter side to `size` and the longer in proportion, cropping nothing.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: pixels of the shorter side.

    Returns:
      uint8[height, width, channels].

    Raises:
      UnreadableImage: the longer side would come out longer than a JPEG can be.
    """
    height, width, _ = image.shape
    side = min(height, width)
    scaled = [round(length * size / side) for length in (height, width)]
    if max(scaled) > _LONGEST_JPEG:
        raise UnreadableImage(
            f"{width} x {height} pixels would become {scaled[1]} x {scaled[0]}, above the limit of "
            f"{_LONGEST_JPEG} a side"
        )
    return _resample(image, *scaled)


def _resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales a picture by the filters nearest to the authors' (see resize_and_crop)."""
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    shrinks = image.shape[0] * image.shape[1] > height * width
    resampling = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC
    return np.array(picture.resize((width, height), resampling)).reshape(height, width, channels)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Returns uint8[height, width, 1 or 3] as a JPEG file."""
    colors, subsampling = _COLORS[image.shape[-1]]
    return simplejpeg.encode_jpeg(image, quality, colors, subsampling)


def decode_jpeg(
    data: bytes | memoryview, channels: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Returns the uint8[height, width, channels] of a JPEG file that `encode_jpeg` wrote.

    Args:
      data: the file.
      channels: 1 or 3.
      out: contiguous, of the picture's shape: where it is written to.

    Raises:
      UnreadableImage: the data are damaged.
    """
    try:
        return simplejpeg.decode_jpeg(data, _COLORS[channels][0], buffer=out)
    except ValueError as error:
        raise UnreadableImage(str(error)) from error
