"""What we use of MONAI, ignite and PyTorch that they do not offer: each as it is in the releases installed."""

from __future__ import annotations

import ast
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.bundle import ConfigComponent, ConfigExpression, ConfigParser, ConfigWorkflow
from monai.data import DataLoader
from monai.handlers import CheckpointSaver, MeanDice, from_engine
from monai.metrics import DiceMetric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import scalar

import mri_seg
from mri_seg.utils.compat import (
    Averager,
    Evaluator,
    SummaryHandler,
    become,
    called_from,
    caller_of,
    changes_of,
    checkpoints_of,
    cpu_has_bfloat16,
    first_to_count,
    fixed_name,
    gathered_scores,
    give_metadata,
    local_scores,
    momentum_schedule,
    network_of,
    set_steps,
    state_dict_metadata,
    state_of,
    unsynced_buffers,
)

PACKAGE = Path(mri_seg.__file__).parent
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of their names


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_other_module_uses_private_names_of_libraries(file: Path) -> None:
    if file.name == "compat.py":
        return
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    ours = {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            members = [part for statement in node.body for part in ast.walk(statement)]
            ours |= {part.name for part in members if isinstance(part, ast.FunctionDef)}
            ours |= {part.id for part in members if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    private = [node for node in attributes if node.attr.startswith("_") and not node.attr.endswith("__")]
    foreign = [node for node in private if node.attr not in ours | NAMED_TUPLE]
    foreign += [node for node in attributes if node.attr == "__class__" and isinstance(node.ctx, ast.Store)]
    imported = [found for node in nodes if isinstance(node, ast.ImportFrom) for found in _private(node)]
    assert [f"{node.lineno}: {ast.unparse(node)}" for node in foreign] + imported == []


def _private(node: ast.ImportFrom) -> list[str]:
    if (node.module or "").split(".")[0] in ("mri_seg", "__future__"):
        return []
    return [f"{node.lineno}: {alias.name}" for alias in node.names if alias.name.startswith("_")]


class TestStack:
    def test_caller_of_finds_the_parser_that_evaluates_an_expression(self) -> None:
        parser = ConfigParser({"nested": [{"found": "$find(ConfigParser)"}]}, globals={"find": caller_of})
        parser.globals["ConfigParser"] = ConfigParser
        assert parser.get_parsed_content("nested")[0]["found"] is parser

    def test_caller_of_finds_the_workflow_that_runs_a_config(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"run": ["$found.append(find(kind))"]}')
        found: list[ConfigWorkflow | None] = []
        workflow = ConfigWorkflow(str(tmp_path / "a.json"), logging_file=False)
        workflow.parser.globals.update(found=found, find=caller_of, kind=ConfigWorkflow)
        workflow.initialize()
        workflow.run()
        assert found == [workflow]

    def test_caller_of_is_none_without_one(self) -> None:
        assert caller_of(ConfigParser) is None

    def test_called_from_knows_a_command_line_that_fire_reads(self) -> None:
        seen: list[bool] = []
        fire.Fire(lambda: seen.append(called_from("fire.core")), command=[])
        assert seen == [True]
        assert not called_from("fire.core")


class TestBecome:
    def test_expression_of_a_parsed_config_is_evaluated_by_ours(self) -> None:
        class Doubled(ConfigExpression):
            def evaluate(self, globals: dict | None = None, locals: dict | None = None) -> Any:
                return 2 * super().evaluate(globals, locals)

        parser = ConfigParser({"a": "$1 + 2", "b": ["$@a + 1"], "first": "$0"})
        parser.get_parsed_content("first")  # MONAI parses anew while nothing is resolved
        become(parser.ref_resolver.items["a"], Doubled)
        assert parser.get_parsed_content("b") == [7]

    def test_component_of_a_parsed_config_is_made_by_ours(self) -> None:
        class Recorded(ConfigComponent):
            def instantiate(self, **kwargs: Any) -> object:
                return ["ours", super().instantiate(**kwargs)]

        parser = ConfigParser({"a": {"_target_": "fractions.Fraction", "numerator": 3}, "first": "$0"})
        parser.get_parsed_content("first")
        item = parser.ref_resolver.items["a"]
        assert type(item) is ConfigComponent
        become(item, Recorded)
        assert parser.get_parsed_content("a") == ["ours", 3]


class TestEvaluator:
    def test_before_metrics_comes_before_they_are_computed_and_once_an_epoch(self) -> None:
        calls: list[tuple[list[Any], dict[str, Any]]] = []

        class Recorder(Evaluator):
            def before_metrics(self, metrics: Any) -> None:
                calls.append((list(metrics), dict(self.state.metrics)))

        names = ("dice", "further")
        key, further = (MeanDice(output_transform=from_engine(["pred", "label"])) for _ in names)
        evaluator = Recorder(
            device=torch.device("cpu"),
            val_data_loader=DataLoader([{"image": torch.ones(1, 2, 2), "label": torch.ones(1, 2, 2)}] * 3),
            network=torch.nn.Identity(),
            key_val_metric={"dice": key},
            additional_metrics={"further": further},
        )
        evaluator.run()
        assert calls == [([key, further], {})]
        assert evaluator.state.metrics == dict.fromkeys(names, 1.0)


class TestScores:
    def dice(self, *cases: float) -> DiceMetric:
        """A metric that has counted cases of such a Dice, 0 or 1."""
        metric = DiceMetric()
        for case in cases:
            metric(torch.full((1, 1, 2, 2), case), torch.ones(1, 1, 2, 2))
        return metric

    def test_local_scores_are_those_counted_here(self) -> None:
        assert local_scores(self.dice()) is None
        (scores,) = local_scores(self.dice(0.0, 1.0)) or []
        assert torch.stack(scores).tolist() == [[0.0], [1.0]]

    def test_gathered_scores_are_aggregated_without_asking_other_processes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monai.metrics.metric.evenly_divisible_all_gather", None)
        metric = self.dice(1.0)
        gathered_scores(metric, [torch.tensor([[1.0], [0.0], [0.0], [0.0]])])
        assert metric.aggregate().item() == 0.25
        assert len(metric) == 4

    def test_gathered_scores_are_forgotten_with_the_epoch(self) -> None:
        metric = self.dice(1.0)
        gathered_scores(metric, [torch.tensor([[0.0]])])
        metric.reset()
        assert local_scores(metric) is None
        assert metric.get_buffer() is None


class TestCheckpointsOf:
    def saver(self, folder: Path, **options: Any) -> tuple[Engine, CheckpointSaver]:
        engine = Engine(lambda engine, batch: None)
        saver = CheckpointSaver(str(folder), {"network": torch.nn.Linear(1, 1)}, **options)
        saver.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: engine.state.metrics.update(dice=engine.state.epoch / 4))
        return engine, saver

    def test_both_parts_say_what_they_have_saved(self, tmp_path: Path) -> None:
        options = {"save_key_metric": True, "key_metric_name": "dice", "save_interval": 1, "n_saved": 1}
        engine, saver = self.saver(tmp_path, **options)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: saver.metrics_completed(engine))
        engine.run([0], max_epochs=3)
        found = checkpoints_of(saver)
        assert list(found) == ["_key_metric_checkpoint", "_interval_checkpoint"]
        (best,) = found["_key_metric_checkpoint"].state_dict()["_saved"]
        assert best[0] == 0.75
        assert (tmp_path / best[1]).is_file()

    def test_a_part_takes_what_another_run_had_saved(self, tmp_path: Path) -> None:
        _, saver = self.saver(tmp_path, save_key_metric=True, key_metric_name="dice")
        kept = checkpoints_of(saver)["_key_metric_checkpoint"]
        kept.load_state_dict({"_saved": [[0.5, "best.pt"]]})
        assert str(kept.last_checkpoint).endswith("best.pt")
        assert kept.state_dict()["_saved"] == [(0.5, "best.pt")]

    def test_parts_that_are_not_asked_for_are_left_out(self, tmp_path: Path) -> None:
        assert checkpoints_of(self.saver(tmp_path, save_final=True)[1]) == {}

    @pytest.mark.parametrize("name", [None, "best.pt"])
    def test_fixed_name_is_the_one_asked_for(self, tmp_path: Path, name: str | None) -> None:
        options = {"save_key_metric": True, "key_metric_name": "dice", "key_metric_filename": name}
        _, saver = self.saver(tmp_path, **options)
        assert fixed_name(checkpoints_of(saver)["_key_metric_checkpoint"]) == name


class TestStateAndNetwork:
    def test_state_of_a_trainer_has_what_monai_adds_and_takes_what_handlers_add(self) -> None:
        network = torch.nn.Identity()
        evaluator = Evaluator(device=torch.device("cpu"), val_data_loader=DataLoader([{}]), network=network)
        assert network_of(evaluator) is network
        assert state_of(evaluator).best_metric_epoch == -1
        state_of(evaluator).own = 3
        assert evaluator.state.own == 3


class TestSummaryHandler:
    def test_writer_is_the_one_given(self) -> None:
        writer = object()
        assert SummaryHandler(writer).writer is writer

    def test_add_summary_writes_one_made_elsewhere(self, tmp_path: Path) -> None:
        with SummaryWriter(str(tmp_path)) as writer:
            SummaryHandler(writer).add_summary(scalar("made elsewhere", 2.5))
        events = EventAccumulator(str(tmp_path)).Reload()
        assert [event.value for event in events.Scalars("made elsewhere")] == [2.5]


class TestAverager:
    def networks(self, kind: type[Averager]) -> tuple[Averager, torch.nn.Linear]:
        network = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(network.weight)
        averager = kind(network, momentum=0.25, momentum_warmup=0.25, warmup_iters=1)
        torch.nn.init.ones_(network.weight)
        trainer = Engine(lambda engine, batch: None)
        averager.attach(trainer)
        trainer.run([0, 0])
        return averager, network

    def test_update_is_called_every_step_with_the_momentum_in_the_state(self) -> None:
        momenta: list[float] = []

        class Recorder(Averager):
            def update(self, engine: Engine, name: str) -> None:
                momenta.append(getattr(engine.state, name))

        averager, _ = self.networks(Recorder)
        assert momenta == [0.25, 0.25]
        assert averager.ema_model.weight.item() == 0

    def test_update_is_that_of_ignite_unless_replaced(self) -> None:
        averager, _ = self.networks(Averager)
        assert averager.ema_model.weight.item() == pytest.approx(1 - 0.75**2)

    def test_momentum_schedule_counts_the_steps_of_the_warm_up(self) -> None:
        averager, _ = self.networks(Averager)
        assert momentum_schedule(averager).event_index == 2
        momentum_schedule(averager).event_index = 0
        assert averager.momentum_scheduler.event_index == 0

    def test_momentum_schedule_refuses_an_average_without_warm_up(self) -> None:
        with pytest.raises(ValueError, match="momentum_warmup"):
            momentum_schedule(Averager(torch.nn.Linear(1, 1)))


class TestSetSteps:
    def schedule(self) -> LambdaLR:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def test_next_step_has_the_rate_of_one_that_made_all_steps(self) -> None:
        schedule = self.schedule()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as PyTorch would warn at its first step
            set_steps(schedule, 3)
            schedule.step()
        assert schedule.get_last_lr() == [1 / 5]

    def test_state_is_that_of_one_that_made_all_steps(self) -> None:
        set_, stepped = self.schedule(), self.schedule()
        set_steps(set_, 3)
        for _ in range(3):
            stepped.optimizer.step()
            stepped.step()
        left_out = {"_last_lr"}  # which the next step sets
        states = [{k: v for k, v in one.state_dict().items() if k not in left_out} for one in (set_, stepped)]
        assert states[0] == states[1]


class TestMetadataOfWeights:
    @pytest.fixture
    def network(self) -> torch.nn.Module:
        network = torch.nn.Linear(1, 1)
        network.register_state_dict_post_hook(lambda module, weights, prefix, metadata: metadata.update(own=[1, "a"]))
        return network

    def test_metadata_of_a_network_are_in_the_file_of_its_weights(
        self, network: torch.nn.Module, tmp_path: Path
    ) -> None:
        torch.save(network.state_dict(), tmp_path / "a.pt")
        weights = torch.load(tmp_path / "a.pt", weights_only=True)
        assert state_dict_metadata(weights)["own"] == [1, "a"]
        assert state_dict_metadata(dict(weights)) == {}

    def test_metadata_reach_the_hook_of_the_network_that_loads_them(self, network: torch.nn.Module) -> None:
        seen: list[dict] = []
        other = torch.nn.Linear(1, 1)
        other.register_load_state_dict_pre_hook(lambda module, weights, prefix, metadata, *rest: seen.append(metadata))
        other.load_state_dict(network.state_dict())
        other.load_state_dict(give_metadata(other.state_dict(), network))
        other.load_state_dict(give_metadata(network.state_dict(), other))
        assert ["own" in metadata for metadata in seen] == [True, True, False]


class TestChangesOf:
    def test_grows_with_changes_in_place_alone(self) -> None:
        weights = torch.zeros(2)
        before = changes_of(weights)
        _ = weights + 1
        assert changes_of(weights) == before
        weights.add_(1)
        assert changes_of(weights) > before

    def test_grows_as_weights_are_loaded(self) -> None:
        network = torch.nn.Linear(1, 1)
        before = changes_of(network.weight)
        network.load_state_dict(torch.nn.Linear(1, 1).state_dict())
        assert changes_of(network.weight) > before


@pytest.mark.usefixtures("one_process")
class TestOneProcess:
    def test_first_to_count_is_first_once_a_name(self) -> None:
        assert [first_to_count(name) for name in ("a", "a", "b")] == [True, False, True]

    def test_unsynced_buffers_is_the_argument_that_leaves_buffers_alone(self) -> None:
        network = torch.nn.BatchNorm2d(1)
        assert DistributedDataParallel(network).will_sync_module_buffers()
        assert not DistributedDataParallel(network, **unsynced_buffers()).will_sync_module_buffers()


class TestBfloat16OfCPUs:
    @pytest.mark.skipif(not Path("/proc/cpuinfo").is_file() or platform.machine() != "x86_64", reason="x86 Linux only")
    def test_agrees_with_the_flags_that_linux_gives(self) -> None:
        flags = set(Path("/proc/cpuinfo").read_text().split())
        assert cpu_has_bfloat16("x86_64") is bool({"avx512_bf16", "amx_tile"} & flags)

    def test_arm_is_asked_of_onednn(self) -> None:
        assert cpu_has_bfloat16("aarch64") in (True, False)
