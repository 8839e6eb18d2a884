"""What of a Ray remote function is honoured, and what is refused before anything is sent; needs no cluster."""

from functools import partial

import pytest
import ray

from sliceform.controller import CpuSlice, GpuSlice, TpuSlice
from sliceform.controller.errors import ConfigurationError
from sliceform.controller.on_host.parcel import unwrap, with_values
from sliceform.controller.ray_backend.pack import pack
from sliceform.controller.testing import SimBackend

GIBIBYTE = 2**30
GPUS = GpuSlice(2, 4, cpus_per_host=8, memory_per_host=GIBIBYTE, resources_per_host={"disk": 2})


def work() -> None:
    """Do nothing."""


def packed(shape=GPUS, run_env=None, **options):
    return pack(ray.remote(**options)(work) if options else ray.remote(work), (), {}, shape, run_env)


@pytest.mark.parametrize(
    ("options", "resources"),
    [
        ({}, {}),
        ({"num_cpus": 8}, {"CPU": 8}),
        ({"num_cpus": 0.5, "num_gpus": 4}, {"CPU": 0.5, "GPU": 4}),
        ({"memory": GIBIBYTE, "resources": {"disk": 1.5}}, {"memory": GIBIBYTE, "disk": 1.5}),
        ({"max_retries": 0, "max_calls": 1, "num_returns": 1}, {}),
    ],
)
def test_what_fits_into_the_bundle_is_asked_for(options, resources):
    assert packed(**options).resources == resources


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        (GPUS, {"num_cpus": 9}, "asks for 9 CPU, but a host of this fleet has 8"),
        (GPUS, {"num_gpus": 5}, "asks for 5 GPU, but a host of this fleet has 4"),
        (GPUS, {"memory": GIBIBYTE + 1}, "memory"),
        (GPUS, {"resources": {"disk": 2.5}}, "asks for 2.5 disk, but a host of this fleet has 2"),
        (CpuSlice(), {"num_gpus": 1}, "has 0: ask for more in the shape"),
        (CpuSlice(), {"memory": 1}, "asks for 1 memory, but a host of this fleet has 0"),
        (TpuSlice("v4-8"), {"resources": {"TPU": 8}}, "asks for 8 TPU, but a host of this fleet has 4"),
        (TpuSlice("v4-8"), {"resources": {"TPU-v4-8-head": 1}}, "but a host of this fleet has 0"),
        (GPUS, {"accelerator_type": "H100"}, "label_selector"),
        (GPUS, {"max_retries": 3}, "max_failures and max_preemptions"),
        (GPUS, {"retry_exceptions": True}, "max_failures"),
        (GPUS, {"scheduling_strategy": "SPREAD"}, "the fleet's shape decides where it runs"),
        (GPUS, {"label_selector": {"pool": "a"}}, "the fleet's shape decides where it runs"),
        (GPUS, {"num_returns": 2}, "num_returns=2 cannot be honoured"),
    ],
)
def test_what_cannot_be_honoured_is_refused(shape, options, says):
    with pytest.raises(ConfigurationError) as caught:
        packed(shape, **options)
    assert says in str(caught.value)


def test_a_runtime_environment_comes_from_one_side_or_is_the_same_on_both():
    env = {"env_vars": {"A": "1"}}
    assert packed(runtime_env=env).runtime_env == env
    assert packed(run_env=env).runtime_env is None
    assert packed(run_env=env, runtime_env=env).runtime_env == env
    with pytest.raises(ConfigurationError, match="different runtime environments"):
        packed(run_env={"env_vars": {"A": "2"}}, runtime_env=env)
    with pytest.raises(ConfigurationError, match="give one of them"):
        packed(run_env={"working_dir": "."}, runtime_env=env)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"working_dir": "."}, "ray.init"),
        ({"py_modules": ["."]}, "ray.init"),
        ({"env_vars": {"A": 1}}, "env_vars"),
        ({"pip": ["x"], "conda": "y"}, "pip"),
    ],
)
def test_an_environment_that_ray_refuses_is_refused_here(env, says):
    """On the thread that submits tasks nobody would hear of it; in a function's decorator Ray sees to it itself."""
    with pytest.raises(ConfigurationError, match="Ray does not take the runtime environment") as caught:
        packed(run_env=env)
    assert says in str(caught.value)


def test_a_remote_function_gets_the_values_of_its_arguments_and_a_plain_one_the_references():
    ref = ray.ObjectRef.from_random()
    for fn, called in ((work, work), (ray.remote(work), with_values)):
        payload = pack(fn, (ref,), {"nested": [ref]}, GPUS).payload
        assert payload.held == (ref,)
        assert unwrap(*payload)[0].__name__ == called.__name__
    assert unwrap(*pack(ray.remote(work), (), {"nested": [ref]}, GPUS).payload)[0].__name__ == "work"


@pytest.mark.parametrize("fn", [3, None, ray.remote(work).options(num_cpus=1)])
def test_what_cannot_be_called_is_refused(fn):
    with pytest.raises(ConfigurationError, match="neither a callable nor a Ray remote function"):
        pack(fn, (), {}, GPUS)


async def waits() -> None:
    """Its call only makes a coroutine."""


def yields():
    """Its call only makes a generator."""
    yield 1


class Waits:
    async def __call__(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (waits, "async"),
        (partial(waits, "secret"), "async"),
        (Waits(), "async"),
        (yields, "yields"),
        (ray.remote(yields), "yields"),
    ],
)
def test_a_function_whose_call_does_nothing_is_refused(fn, says):
    with pytest.raises(ConfigurationError, match=rf"^\w+ (is )?{says}, and nobody"):
        pack(fn, (), {}, GPUS)


def test_the_simulator_refuses_it_too():
    with pytest.raises(ConfigurationError, match="async, and nobody"):
        SimBackend(GPUS).pack(waits, (), {})


@pytest.mark.parametrize("fn", [Waits, Waits().__init__, partial(work), lambda: waits, len])
def test_what_returns_is_taken(fn):
    assert unwrap(*pack(fn, (), {}, GPUS).payload)[1:] == ((), {})


def test_a_variable_that_cannot_be_is_refused_in_a_decorator_too():
    with pytest.raises(ConfigurationError, match="runtime_env's env_vars: 'A=B' cannot be the name"):
        packed(runtime_env={"env_vars": {"A=B": "1"}})
