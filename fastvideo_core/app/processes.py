"""How many processes a generator is to have, how they share the work, and what starts them."""

from __future__ import annotations

import torch

from fastvideo_core.app.known_fields import check_flags
from fastvideo_core.contract.executor import Executor
from fastvideo_core.discovery.plugins import Plugins
from fastvideo_core.engine.parallel.degrees import AUTO, Parallel, read_degrees
from fastvideo_core.errors import InputError


def check_processes(num_gpus: int, num_processes: int, device: str, executor: type[Executor] | None = None) -> int:
    """How many processes there are to be.

    Args:
        device: where they are to compute; with an index, one that they share.
        executor: what is to start them; None: something that has the GPUs of this process.

    Raises:
        InputError: there are fewer GPUs, or the two numbers do not go together.
    """
    for name, value in (("num_gpus", num_gpus), ("num_processes", num_processes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} is {value!r}, it must be a whole number from 1 on")
    if num_gpus > 1 and num_processes not in (1, num_gpus):
        raise InputError(
            f"num_gpus is {num_gpus} and num_processes {num_processes}: there is a process for each GPU; give num_gpus"
        )
    one_device = torch.device(device).index is not None
    if num_gpus > 1 and one_device:
        raise InputError(f'device {device!r} names one GPU, and num_gpus is {num_gpus}; give device="cuda"')
    there = torch.cuda.device_count()
    if num_gpus > 1 and device.startswith("cuda") and executor is not None:
        there = executor.gpus(there)
    if num_gpus > 1 and (not device.startswith("cuda") or num_gpus > there):
        sees = f"{executor.name!r} has" if executor is not None and executor.name != "mp" else "torch sees"
        raise InputError(
            f"num_gpus is {num_gpus}, and {sees} {there} on {device!r}; give num_gpus={max(1, there)}, or try it "
            f'on the CPU with device="cpu", num_processes={num_gpus}'
        )
    if num_processes > 1 and num_gpus == 1 and device.startswith("cuda") and not one_device:
        raise InputError(
            f"num_processes is {num_processes} on {device!r}: for as many GPUs give num_gpus={num_processes}; for one "
            'that they share name it, such as device="cuda:0"'
        )
    return max(num_gpus, num_processes)


def asked_degrees(processes: int, sp_size: int | None, cfg_parallel: bool | None) -> Parallel:
    """The degrees, of FastVideo's names for them.

    Raises:
        InputError: they do not multiply to the number of processes.
    """
    if cfg_parallel is not None:
        check_flags(cfg_parallel=cfg_parallel)
    if sp_size is None and cfg_parallel is None:
        return AUTO
    if sp_size is not None and (not isinstance(sp_size, int) or isinstance(sp_size, bool) or sp_size < 1):
        raise InputError(f"sp_size is {sp_size!r}, it must be a whole number from 1 on")
    if cfg_parallel is None:
        cfg_parallel = sp_size != processes
    guidance = 2 if cfg_parallel else 1
    sequence = sp_size if sp_size is not None else max(1, processes // guidance)
    if sequence * guidance != processes:
        raise InputError(
            f"sp_size={sp_size} and cfg_parallel={cfg_parallel} ask for {sequence} x {guidance} = "
            f"{sequence * guidance} processes, and there are {processes}: leave one of them out, or give numbers that "
            f"multiply to {processes}"
        )
    read_degrees({"sequence": sequence, "guidance": guidance}, processes)
    return {"sequence": sequence, "guidance": guidance}


def sharded_degrees(processes: int, parallel: Parallel, excluded: bool) -> Parallel:
    """The degrees where each process holds a part of the weights: all must run the same blocks at the same time.

    Raises:
        InputError: there is one process, guidance was asked for, or something that excludes it.
    """
    if processes == 1:
        raise InputError("shard_weights needs several processes; give num_gpus")
    if excluded:
        raise InputError("shard_weights excludes compile, dit_cpu_offload and quantization; leave one of them out")
    sequence = {"sequence": processes, "guidance": 1}
    if parallel not in (AUTO, sequence):
        raise InputError(
            "shard_weights has all processes run the same blocks at the same time, and guidance has halves of them run "
            f"others; leave out cfg_parallel, and sp_size or give sp_size={processes}"
        )
    return sequence


def choose_executor(plugins: Plugins, name: str) -> type[Executor]:
    """The installed executor of that name.

    Raises:
        InputError: there is none.
    """
    try:
        return plugins.executor(name)[0]
    except KeyError:
        names = ", ".join(map(repr, plugins.executor_names()))
        missing = "; 'ray' comes with fv-ray: pip install fv-ray" if name == "ray" else ""
        raise InputError(f"distributed_executor_backend is {name!r}; installed are {names}{missing}") from None
