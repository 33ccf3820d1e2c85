"""What the ranks of the tests of `aiopg.integrations.vllm` do. Each program is called as (rank, world_size, ...)."""

from tests.integrations import vllm_files

vllm_files.enter()
