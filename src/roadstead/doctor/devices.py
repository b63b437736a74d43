"""The devices of containers: which CDI specifications there are, and what they are good for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from roadstead.doctor.facts import Finding
from roadstead.doctor.judge import not_applicable, ok, warning
from roadstead.doctor.probes import Context
from roadstead.oci import cdi


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """``kinds`` with the number of their devices, ``errors`` of files that cannot be used, and the
    device files of GPUs."""

    directories: tuple[str, ...]
    kinds: tuple[tuple[str, int], ...]
    errors: tuple[str, ...]
    gpus: tuple[str, ...]


def probe(context: Context) -> Devices:
    directories = cdi.directories(context.environ)
    registry = cdi.Registry(directories)
    return Devices(
        directories=directories,
        kinds=tuple((kind, len(names)) for kind, names in registry.kinds.items()),
        errors=tuple(str(error) for error in registry.errors),
        gpus=_gpus("/dev"),
    )


def _gpus(top: str) -> tuple[str, ...]:
    """As the engine counts them: NVIDIA's, or AMD's where their compute driver is there."""
    found = [name for name in os.listdir(top) if name.removeprefix("nvidia").isdigit()]
    found = [f"{top}/{name}" for name in found if name.startswith("nvidia")]
    if not found and os.path.exists(f"{top}/kfd"):
        found = [f"{top}/kfd"]
    return tuple(sorted(found))


def judge(seen: Devices) -> Finding:
    where = ", ".join(seen.directories)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in seen.kinds)
    if seen.errors:
        return warning(
            f"{len(seen.errors)} CDI specifications that cannot be used",
            seen.errors[0],
            "mend or remove it, or generate it again",
            *seen.errors[1:],
        )
    if seen.gpus and not any(kind.endswith("/gpu") for kind, _ in seen.kinds):
        made = f"{seen.directories[-1] if seen.directories else '/etc/cdi'}/gpu.yaml"
        tool = "amd-ctk" if seen.gpus[0].endswith("kfd") else "nvidia-ctk"
        return warning(
            f"there are GPUs ({', '.join(seen.gpus)}), and no CDI specification of them",
            "jobs with GPUs have them outside of containers only",
            f"{tool} cdi generate --output={made}",
        )
    if not seen.kinds:
        return not_applicable(f"no CDI specification in {where}", "only --device needs one")
    return ok(kinds)
