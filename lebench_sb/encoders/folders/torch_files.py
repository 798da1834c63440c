"""Files of tensors that others wrote: what they are, read without running any code, each tensor looked at."""

import pickle
import zipfile

import torch
from safetensors import SafetensorError, safe_open

from lebench_sb.core import guard
from lebench_sb.core.errors import DataError

UNREADABLE = (OSError, EOFError, RuntimeError, pickle.UnpicklingError, SafetensorError)
NO_TENSORS = (
    "The file is damaged, cut short or a Git LFS pointer, or a pickle of more than tensors, which is not "
    "read."
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTERS = ("num_batches_tracked", "position_ids")  # whole numbers in a model that is not quantised
BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer: `git lfs pull` fetches the file",
    b"<!doctype html": "it is a web page, not the file that was asked for",
    b"<html": "it is a web page, not the file that was asked for",
}


def what_it_is(path):
    """What is there instead of a file of tensors, in words; "" where nothing is known against it"""
    with open(path, "rb") as file:
        start = file.read(100).lstrip().lower()
    if not start and path.stat().st_size == 0:
        return "it has 0 bytes: the copy was interrupted"
    return next((words for beginning, words in BEGINNINGS.items() if start.startswith(beginning)), "")


def unreadable(path, why, error=DataError):
    return error(f"{path}: its weights cannot be read ({why}). {NO_TENSORS}")


def read_torch(path, error=DataError, shell=None):
    """What torch.save wrote, on the CPU; no code of the file runs.

    shell: a class that takes the place of any class the file names but tensors; None: such a file is refused.
    Raises `error` naming the file.
    """
    guard.regular(path, error)
    why = what_it_is(path) or packed(path)
    if why:
        raise unreadable(path, why, error)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if shell else []
        with torch.serialization.safe_globals([(shell, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # of any kind: torch's unpickler does what the bytes of the file say
        raise unreadable(path, first_line(fault), error) from None


def packed(path):
    """What is wrong with a zip file whose entries are larger than itself, "" otherwise: torch never packs"""
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except Exception as fault:  # of any kind: the reader does what the bytes of the file say
        return f"a broken zip file: {first_line(fault)}"
    size = sum(entry.file_size for entry in entries)
    if size > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return f"a packed zip file of {size} bytes, which torch does not write"
    return ""


def read_safetensors(path, error=DataError):
    """{name: tensor} of a safetensors file, not mapped: whoever writes to the file later changes no weight"""
    guard.regular(path, error)
    why = what_it_is(path)
    if why:
        raise unreadable(path, why, error)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}
    except UNREADABLE as fault:
        raise unreadable(path, f"{type(fault).__name__}: {first_line(fault)}", error) from None


def check_tensors(content, path, error=DataError):
    """{name: weight} -> the same. Raises `error` naming what is no dense tensor of its own, and weights that
    are whole numbers or floats of 8 bits, which only a quantiser writes."""
    if not isinstance(content, dict):
        raise error(f"{path} holds a {type(content).__name__}, not weights by their names.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise error(f"{path}: {shorten_name(name)} is a {type(value).__name__}, expected a tensor.")
        if value.layout != torch.strided or value.is_quantized or not whole(value):
            raise error(f"{path}: {shorten_name(name)} is no dense tensor with numbers of its own.")
    strange = {
        name: value.dtype
        for name, value in content.items()
        if value.dtype not in FLOATS and not (name.endswith(COUNTERS) and value.dtype == torch.int64)
    }
    if strange:
        name, dtype = next(iter(strange.items()))
        raise error(
            f"{path}: {len(strange)} weights are no floating-point numbers, first {shorten_name(name)} "
            f"({str(dtype).removeprefix('torch.')}): quantised weights are not read. Give the folder of the "
            "model before it was quantised."
        )
    return content


def whole(tensor):
    """Whether each number of a tensor has its own place in the file: one number repeated fills any memory"""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def not_finite(tensors):
    """{name: tensor} -> names of those with a number that is not finite as float32"""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not finite(tensor)]


def finite(tensor):
    """Two numbers tell: the least and the greatest are NaN if any is"""
    if tensor.numel() == 0:
        return True
    return all(bool(torch.isfinite(end.float())) for end in torch.aminmax(tensor.detach()))


def check_finite(tensors, where, error=DataError, way_out="Give another checkpoint."):
    """Raises `error` naming the weights that hold NaN or infinity"""
    names = not_finite(tensors)
    if names:
        raise error(
            f"{where}: {len(names)} weights are not finite (NaN or infinite): {first_five(names)}. The file "
            f"is damaged, or its training had diverged. {way_out}"
        )


def first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


def shorten_name(name):
    return str(name)[:100]


def first_five(names):
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
