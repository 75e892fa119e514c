"""An engine's command line: the user's words pass unchanged, the slots are known, and our own flags are ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.domain.engines.profile import EngineLack, EnginePriority
from penstock_worker.engine import kind
from penstock_worker.engine.launch_spec import BadLaunch, Launch, slots_for
from penstock_worker.engine.vllm import vllm_server

H200 = (("NVIDIA H200", 143_771),)
A100 = (("NVIDIA A100-SXM4-80GB", 81_920),)
L4 = (("NVIDIA L4", 23_034),)


def launch(*arguments: str, engine: str = "vllm", **environ: str) -> Launch:
    return kind.launch(
        engine,
        model="llama",
        source="org/llama",
        socket=Path("/tmp/p/e.sock"),
        arguments=arguments,
        environ={"PATH": "/bin", "VLLM_TARGET_DEVICE": "cpu", **environ},
        python=sys.executable,
    )


def value(made: Launch, flag: str) -> str:
    return made.command[made.command.index(flag) + 1]


@pytest.mark.parametrize("said", [("--max-num-seqs", "64"), ("--max-num-seqs=64",), ("--max_num_seqs", "64")])
@pytest.mark.parametrize("engine", ["vllm", "echo"])
def test_the_users_number_of_sequences_is_the_batch_budget_and_the_engine_gets_room(
    said: tuple[str, ...], engine: str
) -> None:
    made = launch(*said, engine=engine)
    assert (made.batch_slots, made.overtakers, made.engine_slots) == (64, 32, 64 + 8 + 32)
    assert [word for word in made.command if "num" in word and "seqs" in word] == ["--max-num-seqs"]
    assert value(made, "--max-num-seqs") == "104"


@pytest.mark.parametrize(
    ("said", "gpus", "slots"),
    [
        ((), H200, 1024),
        ((), A100, 256),
        ((), L4, 256),
        ((), (), 256),
        (("--max-num-batched-tokens", "2k"), H200, 1024),
        (("--max-num-batched-tokens=100",), L4, 100),
        (("--performance-mode", "throughput"), L4, 512),
    ],
)
def test_without_one_it_is_what_vllm_would_choose_for_this_gpu(
    said: tuple[str, ...], gpus: tuple[tuple[str, int], ...], slots: int
) -> None:
    assert vllm_server.batch_slots(said, on_cpu=False, gpus=gpus) == slots


def test_without_one_on_a_cpu_it_is_128_for_each_part_of_the_model() -> None:
    assert launch().batch_slots == 128
    assert launch("--tensor-parallel-size", "2").batch_slots == 256
    assert launch("-tp", "2", "-pp", "2").batch_slots == 512
    both = launch("-dp", "2")
    assert (both.engine_slots, both.overtakers) == (2 * slots_for(128).all, 128)


def test_the_engine_is_never_told_more_sequences_than_tokens_of_a_step() -> None:
    made = launch("--max-num-seqs", "64", "--max-num-batched-tokens", "64")
    assert (made.batch_slots, made.overtakers, made.engine_slots) == (64, 0, 64)
    made = launch("--max-num-seqs", "64", "--max-num-batched-tokens", "80")
    assert (made.batch_slots, made.overtakers, made.engine_slots) == (64, 8, 80)


def test_the_list_of_nvidia_smi_is_read() -> None:
    assert vllm_server.read_gpus("NVIDIA H200, 143771\nNVIDIA GB10, [N/A]\n") == (
        ("NVIDIA H200", 143_771),
        ("NVIDIA GB10", 0),
    )


def test_the_users_arguments_pass_unchanged_and_turn_our_choices_round() -> None:
    made = launch("--dtype", "float32", "--no-enforce-eager", "--hf-overrides", '{"a": 1}')
    assert made.command[-5:] == ("--dtype", "float32", "--no-enforce-eager", "--hf-overrides", '{"a": 1}')
    assert "--enforce-eager" not in made.command
    assert "--enforce-eager" in launch().command


def test_an_engine_with_room_for_adapters_gets_one_slot_more_which_stays_empty() -> None:
    made = launch("--enable-lora", "--max-loras", "3", "--max-cpu-loras=3", "--max-lora-rank=32")
    assert (made.adapters, made.most_adapter_rank, made.others_load) == (3, 32, False)
    command = " ".join(made.command)
    assert command.count("--max-loras") == command.count("--max-loras 4") == 1
    assert command.count("--max-cpu-loras") == command.count("--max-cpu-loras 4") == 1
    assert "adapter_removal.AdapterRemoval" in command
    assert made.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert launch("--enable-lora").adapters == 1
    assert launch("--enable-lora", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1").others_load
    for its_own in (launch(), launch("--enable-lora", "--lora-modules", "a=/a")):
        assert its_own.adapters == 0
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in its_own.environment
    with pytest.raises(BadLaunch, match="--max-loras must be a whole number above 0, not 'no'"):
        launch("--enable-lora", "--max-loras=no")


def test_media_are_fetched_from_nowhere_until_the_operator_names_hosts() -> None:
    assert "--allowed-media-domains=none.invalid" in launch().command
    assert launch().environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    named = launch("--allowed-media-domains", "images.example.com").command
    assert named[-2:] == ("--allowed-media-domains", "images.example.com")
    assert "--allowed-media-domains=none.invalid" not in named


def test_requests_carry_priorities_unless_the_user_chose_another_order() -> None:
    assert launch().profile.priority is EnginePriority.LOW_FIRST
    assert value(launch(), "--scheduling-policy") == "priority"
    assert launch(engine="echo").profile.priority is EnginePriority.LOW_FIRST
    fcfs = launch("--scheduling-policy=fcfs")
    assert fcfs.profile.lacks == (EngineLack.PRIORITY,)
    assert "--scheduling-policy" not in fcfs.command
    assert launch("--scheduling_policy", "priority").profile.lacks == ()


@pytest.mark.parametrize("flag", ["--uds", "--model", "--served-model-name", "--port=80"])
def test_what_penstock_sets_can_not_be_given(flag: str) -> None:
    with pytest.raises(BadLaunch, match="Penstock sets it"):
        launch(flag, "x")


@pytest.mark.parametrize("said", [("--max-num-seqs",), ("--max-num-seqs", "many"), ("--max-num-seqs=0",)])
def test_a_number_that_is_none_is_refused(said: tuple[str, ...]) -> None:
    with pytest.raises(BadLaunch):
        launch(*said)


def test_a_long_socket_path_is_refused_with_the_mend() -> None:
    with pytest.raises(BadLaunch, match="PENSTOCK_RUNTIME_DIR"):
        kind.launch("echo", model="m", source="", socket=Path("/tmp/" + "x" * 110), environ={}, python="")


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(BadLaunch, match="vllm, llamacpp, transformers, echo"):
        launch(engine="nobody")


def test_an_interpreter_without_vllm_is_refused_with_the_mend(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S -E "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)
    with pytest.raises(BadLaunch, match="PENSTOCK_ENGINE_PYTHON"):
        vllm_server.build(str(bare), {})
    with pytest.raises(BadLaunch, match="can't be run"):
        vllm_server.build("/nowhere/python", {})


def test_the_engine_sees_none_of_our_settings_and_keeps_connections_open() -> None:
    secrets = dict.fromkeys(("PENSTOCK_DATABASE_URL", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY"), "secret")
    made = launch(**secrets, VLLM_CPU_KVCACHE_SPACE="7", HF_TOKEN="hf")
    assert "secret" not in made.environment.values()
    assert made.environment["HF_TOKEN"] == "hf"
    assert made.environment["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert made.environment["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "600"
    assert made.environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "HF_HUB_OFFLINE" not in made.environment
    assert 1 <= int(launch().environment["VLLM_CPU_KVCACHE_SPACE"]) <= 4


def test_a_local_model_is_never_looked_up_on_a_hub(tmp_path: Path) -> None:
    assert vllm_server.environment({}, on_cpu=True, source=".")["HF_HUB_OFFLINE"] == "1"


def test_a_model_in_an_object_store_is_read_with_its_credentials() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "secret"}
    assert "AWS_SECRET_ACCESS_KEY" not in vllm_server.environment(given, on_cpu=True, source="org/model")
    assert vllm_server.environment(given, on_cpu=True, source="s3://bucket/model")["AWS_SECRET_ACCESS_KEY"] == "secret"
