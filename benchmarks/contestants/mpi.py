"""mpi4py on Open MPI over TCP: `mpirun --mca btl tcp,self`, so that its shared memory is out of it, as for the others.

barrier     `Barrier`
all_gather, broadcast, message   mpi4py's methods in small letters, which pickle on each call
all_reduce  `Allreduce` of a float64 array into one that is there already
join        `Create_group` of all ranks, on the job that runs

MPI's calls wait by asking again and again; where there are more ranks than processors Open MPI lets others run
in between (`mpi_yield_when_idle`). `mpirun` starts all processes at once; the first N of them form the group of N.
"""

from typing import Any

import mpi4py
import numpy
from mpi4py import MPI

from benchmarks import payload
from benchmarks.contestants.base import BlockingContestant, Leave, Seat


class _Calls:
    """The operations of one rank on one communicator."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.barrier = communicator.Barrier
        self.all_gather = communicator.allgather
        self.broadcast = communicator.bcast
        self.send = communicator.send
        self._sum = numpy.empty(payload.NUMBERS)

    def recv(self, src: int) -> Any:
        return self._communicator.recv(source=src)

    def all_reduce(self, values: Any) -> Any:
        self._communicator.Allreduce(values, self._sum)
        return self._sum


class OpenMpi(BlockingContestant):
    def __init__(self) -> None:
        self._communicator: Any = None

    def versions(self) -> dict[str, str]:
        return {"mpi4py": mpi4py.__version__, "Open MPI": ".".join(map(str, MPI.get_vendor()[1]))}

    def numbers(self, rank: int) -> Any:
        return numpy.array(payload.numbers(rank))

    def form(self, seat: Seat) -> _Calls:
        if seat.listener is not None:
            seat.listener.close()  # MPI has found its own way already
        members = MPI.COMM_WORLD.Get_group().Incl(list(range(seat.world_size)))
        self._communicator = MPI.COMM_WORLD.Create_group(members)
        return _Calls(self._communicator)

    def join(self, seat: Seat) -> Leave:
        if seat.listener is not None:
            seat.listener.close()  # the group that runs is the way to the new one
        made = self._communicator.Create_group(self._communicator.Get_group())
        leave: Leave = made.Free
        return leave

    def close(self) -> None:
        self._communicator.Free()
        self._communicator = None
