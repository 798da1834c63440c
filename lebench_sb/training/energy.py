"""Energy and CO2 of a run: measured where the machine has counters, else estimated; every factor is named.

energy = energy of the devices x PUE; CO2 = energy x carbon intensity of the electricity.

A run may be stopped and resumed: each process that works on it is a part. A part appends its sums so far to
`energy.jsonl` at every checkpoint and validation, so that a killed one loses what came after the last line
alone, and the run is the sum of the last lines of its parts.
"""

import csv
import importlib
import importlib.metadata
import logging
import os
import time
import uuid
from pathlib import Path

from tabulate import tabulate

from lebench_sb.core import escape
from lebench_sb.core.errors import DataError, UsageError, nearest
from lebench_sb.core.guard import regular
from lebench_sb.core.lines import append_whole, json_text, read_records
from lebench_sb.training import processes
from lebench_sb.training.logs import warn_if_full

logger = logging.getLogger(__name__)
FILE = "energy.jsonl"
SUMS = ("kwh", "co2_kg", "wall_s", "device_h")  # of a part
METHODS = ("auto", "codecarbon", "nvml", "estimate")
JOULES = 3.6e6  # per kWh
# Thermal design power of the SXM boards, from NVIDIA's data sheets. A PCIe board has less: --device_watts
GPU_WATTS = {"V100": 300.0, "A100": 400.0, "H100": 700.0, "H200": 700.0}
OTHER_GPU_WATTS = 300.0
WATTS_PER_THREAD = 4.0  # of a processor not known, as codecarbon (core/cpu.py, DEFAULT_POWER_PER_CORE)
INSTALL = "pip install 'lebench_sb[energy]'"
NOT_MEASURED = {"kwh": None, "co2_kg": None, "method": "not measured"}


class Meter:
    """Counts the energy of one process's share of a run and writes that of all processes.

    folder: of the run; device: torch's; rank, world: of this process.
    method: codecarbon (its offline tracker; the whole machine), nvml (the energy counters of the NVIDIA GPUs
    in use), estimate (hours x watts), or auto: the first of them that measures here.
    watts: power of one device (a GPU, or the threads of one process on CPU) for an estimate; 0 takes
    GPU_WATTS or WATTS_PER_THREAD. pue: power usage effectiveness, total energy of the centre / that of its
    computers. intensity: g CO2 per kWh. Raises UsageError for values that cannot be.
    """

    def __init__(self, folder, device, rank, world, method, watts, pue, intensity):
        if method not in METHODS:
            raise UsageError(f"energy_method {method!r}: {', '.join(METHODS)}{nearest(method, METHODS)}.")
        if watts < 0 or pue < 1 or intensity < 0:
            raise UsageError(
                f"device_watts {watts} and co2_g_per_kwh {intensity} must be at least 0, pue {pue} at least "
                "1: no centre uses less than its computers."
            )
        self.path, self.device, self.rank, self.world = Path(folder) / FILE, str(device), rank, world
        self.method, self.watts, self.pue, self.intensity = method, watts, pue, intensity
        self.source = None

    def start(self):
        """Begins to count; nothing happens when it has begun. Raises UsageError for a method that was asked
        for by name and cannot work here."""
        if self.source is not None:
            return
        self.source = choose(self.method, self.device, self.watts)
        self.part, self.started = uuid.uuid4().hex[:12], time.time()
        if self.rank == 0:
            logger.info("Energy %s", self.told())

    def told(self):
        """The method with its factors, in words"""
        return f"{self.source.text} x PUE {self.pue:g}; {self.intensity:g} g CO2/kWh"

    def write(self, total, cache_s=0.0):
        """Appends the sums so far. total(number) -> its sum over the processes, which all call this; cache_s:
        seconds in which they computed frames to keep."""
        if self.source is None:
            return
        seconds = time.time() - self.started
        kwh = total(self.source.kwh()) * self.pue
        if self.rank > 0:
            return
        line = {
            "part": self.part, "wall_s": round(seconds, 1), "devices": self.world,
            "device_h": seconds * self.world / 3600, "kwh": kwh, "co2_kg": kwh * self.intensity / 1000,
            "pue": self.pue, "co2_g_per_kwh": self.intensity, "method": self.told(),
            "cache_s": round(cache_s, 1),
        }  # fmt: skip
        append_whole(self.path, json_text(line) + "\n")


def choose(method, device, watts):
    """-> what counts: Codecarbon, Nvml or Estimate. Raises UsageError if the one asked for is not there."""
    gpu = device.startswith("cuda")
    if method == "nvml" and not gpu:
        raise UsageError(f"energy_method nvml: {device} is no NVIDIA GPU. Take codecarbon or estimate.")
    if method in ("codecarbon", "nvml"):
        name = {"codecarbon": "codecarbon", "nvml": "pynvml"}[method]
        if module(name) is None:
            raise UsageError(f"energy_method {method}: {name} is not installed. {INSTALL}, or take estimate.")
        return Codecarbon() if method == "codecarbon" else Nvml(device)
    if method == "auto" and module("codecarbon") and (gpu or has_rapl()):
        return Codecarbon()
    if method == "auto" and gpu and module("pynvml"):
        try:
            return Nvml(device)
        except module("pynvml").NVMLError as error:  # no driver, or a GPU without a counter of energy
            logger.warning("Energy is estimated: NVML cannot measure it (%s).", error)
    elif method == "auto" and module("codecarbon"):
        logger.info("Energy is estimated: neither processor nor GPU has a counter that can be read here.")
    elif method == "auto":
        logger.info("Energy is estimated: to measure it, where there are counters, %s.", INSTALL)
    return Estimate(device, watts)


def module(name):
    """An optional module, or None where it is not installed"""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def has_rapl():
    """Whether the processor's counter of energy (RAPL) can be read"""
    return importlib.import_module("codecarbon.core.cpu").is_rapl_available()


class Estimate:
    """Hours of one device x watts"""

    def __init__(self, device, watts):
        self.started = time.time()
        self.watts, why = (watts, "device_watts") if watts else usual_watts(device)
        self.text = f"estimated: device hours x {self.watts:g} W ({why})"

    def kwh(self):
        return (time.time() - self.started) * self.watts / JOULES


def usual_watts(device):
    """A torch device -> (watts, where they come from)"""
    import torch

    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
        for model, watts in GPU_WATTS.items():
            if model in name:
                return watts, f"thermal design power of an SXM {model}"
        return OTHER_GPU_WATTS, f"no figure for {name}: give --device_watts"
    threads = torch.get_num_threads()
    return threads * WATTS_PER_THREAD, f"{threads} threads x {WATTS_PER_THREAD:g} W, codecarbon's default"


class Nvml:
    """The energy counter of this process's NVIDIA GPU (Volta and later), in mJ. Raises pynvml.NVMLError."""

    def __init__(self, device):
        import torch

        self.nvml = module("pynvml")
        self.nvml.nvmlInit()
        properties = torch.cuda.get_device_properties(device)
        self.handle = self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}".encode())
        self.first = self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)
        self.text = f"measured: NVML counter of each GPU ({properties.name}), processors and memory left out"

    def kwh(self):
        return (self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) - self.first) / 1000 / JOULES


class Codecarbon:
    """codecarbon's offline tracker of the whole machine, on the first process of each machine.

    Its kWh are taken, not its CO2: that is for its idea of the country.
    """

    def __init__(self):
        codecarbon = module("codecarbon")
        output = importlib.import_module("codecarbon.output").BaseOutput

        class Last(output):
            total = None

            def out(self, total, delta):
                self.total = total

        self.last, self.tracker = Last(), None
        version = importlib.metadata.version("codecarbon")
        self.text = f"by codecarbon {version} on the first process of each machine"
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return
        logging.getLogger("codecarbon").setLevel(logging.ERROR)
        self.tracker = codecarbon.OfflineEmissionsTracker(
            country_iso_code="FRA", output_methods=[], output_handlers=[self.last], log_level="error",
            allow_multiple_runs=True, tracking_mode="machine",
        )  # fmt: skip
        self.tracker.start()
        parts = ", ".join(describe(part) for part in self.tracker._hardware)
        measured = any(word in parts for word in ("rapl", "GPU"))
        self.text = f"{'measured' if measured else 'estimated'} by codecarbon {version}: {parts}"

    def kwh(self):
        if self.tracker is None:
            return 0.0
        self.tracker.flush()
        return self.last.total.energy_consumed


def describe(part):
    """codecarbon's hardware -> its kind, and for a processor how its power is known"""
    kind = type(part).__name__
    mode = getattr(part, "_mode", None)
    return f"{kind} by {mode}" if mode else kind


# ---- the parts of a run


def read_parts(folder):
    """The last line of each part of the run in `folder`; a line cut short is left out"""
    parts, path = {}, Path(folder) / FILE
    for number, line in enumerate(read_records(regular(path)) if path.exists() else [], 1):
        check_part(line, f"{path}, record {number}")
        parts[line["part"]] = line
    return list(parts.values())


def cache_device_seconds(folder):
    """Seconds x processes that all parts of the run in `folder` spent on frames to keep"""
    return sum(part.get("cache_s", 0.0) * part["devices"] for part in read_parts(folder))


def check_part(line, where):
    """Raises DataError for a line of a part that lacks a figure or holds one that is none"""
    for key in SUMS:
        value = line.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e15:
            raise DataError(f"{where}: {key} is {value!r}, expected a number from 0 on.")
    for key in ("part", "method"):
        if not isinstance(line.get(key), str):
            raise DataError(f"{where}: {key} is {line.get(key)!r}, expected a text.")


def note(brain):
    """Writes down what a Brain's run has used by now; all its processes call it"""
    seconds = 0.0 if brain.cache is None else brain.cache.seconds
    try:
        brain.meter.write(lambda value: processes.total(value, brain.device), seconds)
    except OSError as error:
        warn_if_full(error)


def of_run(folder):
    """The `energy` of results.json of a run's folder: sums over its parts, NOT_MEASURED if it has none"""
    parts = read_parts(folder)
    if not parts:
        return dict(NOT_MEASURED)
    sums = {key: sum(part[key] for part in parts) for key in SUMS}
    method = "; then ".join(dict.fromkeys(part["method"] for part in parts))
    return {**sums, "method": method, "parts": len(parts)}


# ---- beside the published figures


def published():
    """Rows of the LeBenchmark table in the talk "Self-supervised Learning approaches for Spoken Language
    Processing" (Ha Nguyen), as printed: [{"model", "hours", "devices", "device", "kwh", "co2_kg"}]"""
    with open(Path(__file__).with_name("published_energy.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report(paths):
    """Folders of runs, or folders above them -> table of their energy, with the published one below.

    Raises FileNotFoundError for a path without a run that counted.
    """
    folders = [folder for path in paths for folder in run_folders(Path(path))]
    rows = [run_row(folder) for folder in folders]
    notes = [escape.markdown(f"- {folder}: {of_run(folder)['method']}.", 1000) for folder in folders]
    for row in published():
        device_h = int(row["hours"]) * int(row["devices"])
        devices, watts = f"{row['devices']} {row['device']}", 1000 * float(row["kwh"]) / device_h
        named = [f"{row['model']} (published)", row["hours"], devices, device_h]
        rows.append([*named, f"{watts:.1f}", row["kwh"], row["co2_kg"]])
    rows = [[escape.markdown(cell) for cell in row] for row in rows]
    header = ["run", "wall h", "devices", "device h", "W per device", "kWh", "CO2 kg"]
    sides = ["left", "right", "left", *["right"] * 4]
    text = tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=sides)
    return "\n".join([text, "", *notes, PUBLISHED])


PUBLISHED = (
    "- The published figures are data, as printed; none is derived here. W per device is their kWh / device\n"
    "  hours, from 167 to 333 W: no single power and PUE give the kWh of all rows. 52 g CO2 per kWh give\n"
    "  the CO2 of eight of ten, some only if cut off instead of rounded. How it was measured is not said."
)


def run_row(folder):
    energy = of_run(folder)
    hours, device_h, kwh = energy["wall_s"] / 3600, energy["device_h"], energy["kwh"]
    devices = " and ".join(sorted({str(part.get("devices", "")) for part in read_parts(folder)}))
    watts = 1000 * kwh / device_h if device_h else 0.0
    figures = [f"{value:.4g}" for value in (hours, device_h, watts, kwh, energy["co2_kg"])]
    return [str(folder), figures[0], devices, *figures[1:]]


def run_folders(path):
    """The folders at and below `path` whose runs counted their energy, sorted"""
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: give the folder of a run.")
    folders = sorted(file.parent for file in path.rglob(FILE) if file.stat().st_size)
    if not folders:
        raise FileNotFoundError(f"{path}: no {FILE} there or below; a run writes it at its first validation.")
    return folders
