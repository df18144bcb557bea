"""How torchvision and Caffe turn an image file into a model's input, written out step by step."""

from pathlib import Path

import numpy as np
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, of RGB in 0..1


def torchvision_crop(path: Path, crop: int = 224, resize: int = 256) -> np.ndarray:
    """Resize(256) and CenterCrop(224) of a PIL image: uint8[crop, crop, 3]."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    if width <= height:
        new_width, new_height = resize, int(resize * height / width)
    else:
        new_width, new_height = int(resize * width / height), resize
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
    top = round((new_height - crop) / 2.0)
    left = round((new_width - crop) / 2.0)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


def torchvision_input(path: Path, crop: int = 224, resize: int = 256) -> np.ndarray:
    """Then ToTensor and Normalize: float32[3, crop, crop] in RGB."""
    tensor = torchvision_crop(path, crop, resize).transpose(2, 0, 1).astype(np.float32) / 255
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    return (tensor - mean) / std


def caffe_warp(path: Path, size: int = 256) -> np.ndarray:
    """What convert_imageset stores: uint8[3, size, size] in BGR."""
    import cv2  # of the parity extra

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return cv2.resize(image, (size, size)).transpose(2, 0, 1)


def caffe_input(stored: np.ndarray, mean: np.ndarray, crop: int = 227) -> np.ndarray:
    """What the data layer's transformer makes of it in testing: float32[3, crop, crop] in BGR.

    Args:
      stored: uint8[3, size, size].
      mean: float32[3, size, size], as the mean image of a .binaryproto file.
      crop: pixels a side.
    """
    offset = (stored.shape[1] - crop) // 2
    part = np.s_[:, offset : offset + crop, offset : offset + crop]
    return stored[part].astype(np.float32) - mean[part]
