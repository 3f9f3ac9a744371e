# SPDX-License-Identifier: Apache-2.0
"""GPUs by the variables that hide them and by what the drivers show."""

from __future__ import annotations

import pytest

from pytest_compilepool.resources import gpu_count, gpu_names

CUDA = "CUDA_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
ROCR = "ROCR_VISIBLE_DEVICES"


def nvidia(host, *, driver: int = 0, files: int = 0) -> None:
    for number in range(driver):
        host.file(f"/proc/driver/nvidia/gpus/0000:{number:02x}:00.0/information", "Model: x")
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "nvidia-modeset", "null"):
        host.file(f"/dev/{name}", "")
    for number in range(files):
        host.file(f"/dev/nvidia{number}", "")


def amd(host, *ids: int) -> None:
    for number, gpu_id in enumerate(ids):
        host.file(f"/sys/class/kfd/kfd/topology/nodes/{number}/gpu_id", f"{gpu_id}\n")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ", 0),
        ("0", 1),
        ("0,1", 2),
        (" 3 , 1,0 ", 3),
        ("-1", 0),
        ("0,-1,1", 1),
        ("0,1,8,2", 2),  # there are 8: no GPU 8, and what stands after it is not looked at
        ("8", 0),
        ("0,,1", 1),
        ("0,0", 0),
        ("0,1,0", 0),
        ("0,00", 0),
        ("all", 0),
        ("NoDevFiles", 0),
        ("GPU-8932f937", 1),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1e2d6c8a", 2),
        ("GPU-8932f937,GPU-8932f937", 0),
        ("MIG-5b1f8d5e-0c1f-5d8e-8d3a-1f2e3d4c5b6a", 1),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0", 2),
        ("GPU-8932f937,-1,GPU-1e2d6c8a", 1),
    ],
)
def test_cuda_list(host, text: str, count: int) -> None:
    nvidia(host, driver=8, files=8)
    gpus = gpu_count({CUDA: text}, host.root)
    assert gpus.count == count
    assert gpus.source == f"{CUDA}={text}"


def test_the_list_is_believed_where_no_driver_shows(host) -> None:
    assert gpu_count({CUDA: "0,1,2"}, host.root).count == 3


@pytest.mark.parametrize(
    ("driver", "files", "count", "source"),
    [
        (0, 0, 0, "no GPU found"),
        (2, 2, 2, "/proc/driver/nvidia/gpus"),
        (2, 0, 2, "/proc/driver/nvidia/gpus"),
        (0, 3, 3, "/dev/nvidia*"),
        (8, 1, 1, "/dev/nvidia*"),  # a container that was given one of the host's eight
        (2, 12, 2, "/proc/driver/nvidia/gpus"),
    ],
)
def test_nvidia_driver(host, driver: int, files: int, count: int, source: str) -> None:
    nvidia(host, driver=driver, files=files)
    gpus = gpu_count({}, host.root)
    assert (gpus.count, gpus.source) == (count, source)


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 4),
        ({HIP: "0,1"}, 2),
        ({HIP: ""}, 0),
        ({HIP: "7"}, 0),
        ({ROCR: "0,2,3"}, 3),
        ({ROCR: "0,2,3", HIP: "1"}, 1),
        ({ROCR: "0,2", HIP: "0,1,2"}, 2),
        ({ROCR: "GPU-3f2b", HIP: "0"}, 1),
        ({CUDA: "1,2"}, 2),
        ({CUDA: "1,2", HIP: "3"}, 1),
        ({ROCR: "0,1,2", CUDA: "0,1"}, 2),
    ],
)
def test_amd(host, environ: dict[str, str], count: int) -> None:
    amd(host, 0, 0, 51234, 9812, 4711, 4712)  # two CPUs, four GPUs
    assert gpu_count(environ, host.root).count == count


def test_amd_lists_without_a_driver_to_be_seen(host) -> None:
    assert gpu_count({HIP: "0,1"}, host.root).count == 2
    # Hidden once is hidden: nothing is left to choose from.
    assert gpu_count({ROCR: "", HIP: "0,1"}, host.root).count == 0


def test_amd_variables_do_not_hide_nvidias(host) -> None:
    nvidia(host, driver=2, files=2)
    amd(host, 0, 51234)
    assert gpu_count({HIP: ""}, host.root).count == 2


def test_a_gpu_that_is_not_ours_is_not_counted(host) -> None:
    amd(host, 0, 51234)
    # Reading fails. A folder does that for root too.
    (host.root / "sys/class/kfd/kfd/topology/nodes/2/gpu_id").mkdir(parents=True)
    assert gpu_count({}, host.root).count == 1


def test_cpu_nodes_only(host) -> None:
    amd(host, 0, 0)
    host.file("/sys/class/kfd/kfd/topology/nodes/2/name", "")
    host.file("/sys/class/kfd/kfd/topology/nodes/3/gpu_id", "")
    assert gpu_count({}, host.root).count == 0


def test_this_process_environment_is_the_default(elsewhere) -> None:
    code = "from pytest_compilepool.resources import gpu_count\nanswer = gpu_count().count"
    assert elsewhere(code, env={CUDA: ""}) == 0


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ["0", "1", "2", "3"]),
        ({CUDA: "2,0"}, ["2", "0"]),
        ({CUDA: "GPU-8932f937,1"}, ["GPU-8932f937", "1"]),
        ({CUDA: "1,9,2"}, ["1"]),
        ({CUDA: ""}, []),
        ({CUDA: "1,1"}, []),
    ],
)
def test_names_of_nvidias(host, environ, names) -> None:
    nvidia(host, driver=4, files=4)
    assert gpu_names(environ, host.root) == (CUDA, names)


@pytest.mark.parametrize(
    ("environ", "names"),
    [({}, ["0", "1"]), ({HIP: "1"}, ["1"]), ({ROCR: "1"}, ["0"]), ({HIP: "5"}, [])],
)
def test_names_of_amds(host, environ, names) -> None:
    amd(host, 0, 7, 9)
    assert gpu_names(environ, host.root) == (HIP, names)


def test_names_where_none_is_seen(host) -> None:
    assert gpu_names({}, host.root) == (CUDA, [])
    assert gpu_names({CUDA: "0,1"}, host.root) == (CUDA, ["0", "1"])
