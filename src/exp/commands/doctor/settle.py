"""What hardware profiles come to on this machine, with probes that run apart."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from exp.commands.doctor.apart import Ended, Workbench
from exp.config.schema import Accelerator, HardwareConfig, Precision
from exp.errors import UserError
from exp.hardware.capability import Capability, Probe, ProbeResult, Versions
from exp.hardware.probe import run_probe
from exp.hardware.resolver import Wishes, resolve_hardware
from exp.report.doctor_screen import ProfileOutcome

# Compiling one step takes seconds, or a minute where others use the machine too.
PROBE_SECONDS = 90

Place = tuple[Probe, Accelerator, Precision]


class ApartProber:
    """Answers as `run_probe` does, from a process of its own; asks once for each place."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._known: dict[Place, Ended] = {}
        self._locks: dict[Place, threading.Lock] = {}
        self._lock = threading.Lock()

    def __call__(self, part: Probe, accelerator: Accelerator, precision: Precision) -> ProbeResult:
        ended = self.ask(part, accelerator, precision)
        if ended.failure is not None:
            return ProbeResult(False, ended.failure)
        result: ProbeResult = ended.value
        return result

    def ask(self, part: Probe, accelerator: Accelerator, precision: Precision) -> Ended:
        """Run the probe, or wait for the thread that runs it already."""
        place = (part, accelerator, precision)
        with self._lock:
            lock = self._locks.setdefault(place, threading.Lock())
        with lock:
            if place not in self._known:
                self._known[place] = self._bench.run(PROBE_SECONDS, run_probe, *place)
            return self._known[place]


@dataclass(frozen=True)
class Machine:
    """What profiles are held against."""

    capability: Capability
    versions: Versions
    prober: ApartProber
    profiles: Mapping[str, HardwareConfig] = field(default_factory=dict)

    def settle(self, hardware: HardwareConfig, wishes: Wishes | None = None) -> ProfileOutcome:
        """Resolve a profile here; what stands against it comes back instead of being raised."""
        try:
            settings = resolve_hardware(
                self.capability,
                self.versions,
                self.prober,
                hardware,
                wishes,
                self.profiles.values(),
            )
        except UserError as error:
            return ProfileOutcome(hardware.name, None, getattr(error, "errors", (error,)))
        return ProfileOutcome(hardware.name, settings)
