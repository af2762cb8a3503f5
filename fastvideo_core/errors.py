"""Every error that the core raises on purpose.

    FastVideoError
    ├── PluginError                 a plugin that is needed cannot be used
    │   └── DuplicateProviderError  two plugins provide the same name
    ├── BackendError                the attention backend that was asked for cannot run
    │   ├── UnknownBackendError     no installed plugin provides it
    │   ├── BackendUnavailableError its kernel cannot be used on this machine
    │   ├── BackendMismatchError    it does not serve this model, dtype, device or mask
    │   ├── BackendNotUsedError     a run finished without calling it
    │   └── BackendOutputError      what it computed cannot be used
    ├── CacheError                  the caching policy that was asked for cannot run, or broke its contract
    │   ├── UnknownPolicyError      no installed plugin provides it
    │   └── PolicyMismatchError     it does not serve this model
    ├── ModelError
    │   ├── ModelNotFoundError      neither a preset, nor a model folder, nor a reachable hub id
    │   └── UnsupportedModelError   a model or pipeline that the core cannot read
    ├── InputError (ValueError)     a sampling parameter or option that does not fit
    ├── OutputError                 a video or another file cannot be written where it should go
    ├── CancelledError              a video was cancelled while it was being made
    ├── AttachError                 a pipeline or generator in the wrong state
    ├── ParallelError               processes that make a video together do not go together, or one is gone
    │   └── PeerError               this process stopped because another one did
    └── DiffusersVersionError       diffusers' internals are not as expected

Messages say what was asked for, what is there, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class FastVideoError(Exception):
    """Base of all errors of fastvideo-core.

    Attributes:
        results: the `VideoResult`s that were done before it, where a list of prompts was given to `generate_video`.
    """

    results: Sequence[Any] = ()


class PluginError(FastVideoError):
    """A plugin that is needed failed to load or breaks the contract."""


class DuplicateProviderError(PluginError):
    """Two distributions provide the same name."""


class BackendError(FastVideoError):
    """The attention backend that was asked for cannot run."""


class UnknownBackendError(BackendError):
    """No installed plugin provides the backend."""


class BackendUnavailableError(BackendError):
    """The backend's kernel cannot be used on this machine."""


class BackendMismatchError(BackendError):
    """The backend does not serve this model, dtype, device or mask."""


class BackendNotUsedError(BackendError):
    """A run finished although the backend was never called."""


class BackendOutputError(BackendError):
    """What the backend computed cannot be used, such as NaN.

    Attributes:
        result: the `VideoResult` with the frames as they are; None if the run ended before there were any.
    """

    result: Any = None


class CacheError(FastVideoError):
    """The caching policy that was asked for cannot run, or broke its contract."""


class UnknownPolicyError(CacheError):
    """No installed plugin provides the caching policy."""


class PolicyMismatchError(CacheError):
    """The caching policy does not serve this model: it lacks the signal, or something that the policy must know."""


class ModelError(FastVideoError):
    """The model cannot be used, such as one whose weights lack tensors."""


class ModelNotFoundError(ModelError):
    """The name is neither a preset, nor a model folder, nor a hub id that can be reached."""


class UnsupportedModelError(ModelError):
    """The core does not know how to read this model or pipeline."""


class InputError(FastVideoError, ValueError):
    """A sampling parameter, prompt or option does not fit."""


class OutputError(FastVideoError):
    """A video, or another file, cannot be written where it should go.

    Attributes:
        result: the `VideoResult` that could not be written, with its frames; None if there was none yet.
    """

    result: Any = None


class CancelledError(FastVideoError):
    """A video was cancelled while it was being made, by `Generation.cancel`; no file of it is written."""


class AttachError(FastVideoError):
    """A pipeline or generator is in the wrong state for what was asked."""


class ParallelError(FastVideoError):
    """Processes that make a video together disagree, cannot reach one another, or one of them has ended."""


class PeerError(ParallelError):
    """This process stopped because another one failed, or did not come; the message says which.

    Attributes:
        timed_out: whether it waited until its time was up.
    """

    timed_out = False


class DiffusersVersionError(FastVideoError):
    """The installed diffusers lacks the internals that the core builds on."""
