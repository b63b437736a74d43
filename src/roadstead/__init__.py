"""Slurm-compatible batch jobs in OCI containers, without root."""

__version__ = "0.1.0"

# The release whose words, shapes and numbers the commands keep to, and say that they are.
SLURM_VERSION = "22.05.8"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from roadstead.api.client import AsyncClient, AsyncJob, Client, Job
    from roadstead.api.executor import Executor, JobFailed
    from roadstead.engines.session import End, JobRecord
    from roadstead.errors import RoadsteadError

_API = {
    "AsyncClient": "api.client",
    "AsyncJob": "api.client",
    "Client": "api.client",
    "End": "engines.session",
    "Executor": "api.executor",
    "Job": "api.client",
    "JobFailed": "api.executor",
    "JobRecord": "engines.session",
    "RoadsteadError": "errors",
}


def __getattr__(name: str) -> object:
    """The names for programs, imported when they are used: commands never pay for them."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_API[name]}"), name)


__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "End",
    "Executor",
    "Job",
    "JobFailed",
    "JobRecord",
    "RoadsteadError",
]
