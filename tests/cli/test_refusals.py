"""Bad usage: one clear line and exit code 2, before any work."""

import json

import pytest

from tests import kit
from tests.commands import RECIPE, Ran, write_recipe
from tests.s3_servers import free_port
from tests.trainings import Sink

SECRET = "hunter2/Zq"


class TestRefusals:
    def refused(self, ran: Ran, message: str) -> None:
        assert ran.out == ""
        assert len(ran.complaints) == 1, ran.err
        assert ran.complaints[0].startswith("raysp: ")
        assert message in ran.complaints[0]
        assert "Traceback" not in ran.err
        assert ran.code == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["plan", "missing.py"], "missing.py: no such file; expected a Python file that defines a raysp.Pipeline"),
            (["plan"], "Missing argument 'FILE'. Try `raysp plan --help`"),
            (["plam"], "No such command 'plam'. Did you mean 'plan'? Try `raysp --help`"),
            (["plan", "x.py", "--sett", "a=b"], "No such option: --sett"),
            (["run", "x.py", "--rows", "0"], "Invalid value for '--rows': "),
            (["run", "x.py", "--rows", "many"], "Invalid value for '--rows': "),
            (["plan", "."], ".: a folder; expected a Python file that defines a raysp.Pipeline or raysp.Finetune"),
            (["inspect", "nowhere"], "checkpoint 'nowhere': no such folder; expected a Hugging Face model folder"),
            (["status", "nowhere"], "nowhere: not a sink of raysp"),
            (["status", "nowhere://bucket/x"], "'nowhere://bucket/x': found the scheme 'nowhere'"),
        ],
    )
    def test_a_command_that_cannot_be_understood(self, raysp_command, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        self.refused(raysp_command(*arguments), message)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("source.url={tmp}/in/*.flac", "source.url: '{tmp}/in/*.flac': no file matches"),
            ("source.url={tmp}/nowhere", "source.url: '{tmp}/nowhere': no such file or folder"),
            (
                "source.audio=sound",
                "in/a.parquet: has no column 'sound', expected one; its columns are id, audio, text",
            ),
            ("source.id=key", "in/a.parquet: has no column 'key'"),
            ("source.audio=text", "in/a.parquet: column 'text' is string. Of paths, set source.audio_root"),
            ("sink.ulr=x", "--set sink.ulr: Parquet has no field 'ulr' (did you mean 'url'?)"),
            ("sink.url", "--set 'sink.url': expected PATH=VALUE, such as sink.url=out"),
            ("steps.1.window_seconds=-1", "Label.window_seconds: found -1"),
            ("steps.1.checkpoint={tmp}/nowhere", "checkpoint '{tmp}/nowhere': no such folder; expected a Hugging Face"),
            ("steps.1.checkpoint={tmp}/in", "config.json"),
            (
                "steps.1.checkpoint={tmp}/in/a.parquet",
                "checkpoint '{tmp}/in/a.parquet': a file; expected a Hugging Face",
            ),
            ("steps.1.checkpoint=", "Label: checkpoint is empty; give a model folder, its url or a hub id"),
            (
                "sink.url={tmp}/in",
                "sink.url: the label shard {tmp}/in/a.parquet would be one of the shards of source.url",
            ),
            ('sink.keep=["id"]', "two columns would be named 'id'"),
            ("steps.1.outputs.0.name=a b", "'a b' is not the beginning of a column's name"),
            ('sink.storage_options={{"secret": "' + SECRET + '"}}', "storage_options['secret'] holds a literal secret"),
            (f"sink.url=s3://key:{SECRET}@bucket/x", "the url contains a password or a signature"),
            ("sink.url=nowhere://bucket/x", "'nowhere://bucket/x': found the scheme 'nowhere'"),
        ],
    )
    @pytest.mark.parametrize("verb", ["plan", "run"])
    def test_a_pipeline_that_cannot_run(self, raysp_command, recipe, tmp_path, monkeypatch, verb, setting, message):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        ran = raysp_command(verb, recipe, "--set", setting.format(tmp=tmp_path))
        self.refused(ran, message.format(tmp=tmp_path))
        assert SECRET not in ran.err
        assert not (tmp_path / "out").exists()

    @pytest.mark.drivers
    @pytest.mark.slow
    def test_a_missing_gpu_is_planned_for_and_refused_on_a_machine_without_one(
        self, raysp_command, recipe, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr("raysp.labelling.engine.running.is_cluster", lambda _: False)
        planned = raysp_command("plan", recipe, "--set", "steps.1.device=cuda")
        assert planned.code == 0
        assert "0 found: the run waits until they are available" in planned.err
        self.refused(raysp_command("run", recipe, "--set", "steps.1.device=cuda"), "this machine has no more")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("file/out", "a file is where a folder is needed"),
            ("file", "a file is where a folder is needed"),
            ("/proc/labels", "/proc/labels: cannot write to it"),
            ("/sys/labels", "/sys/labels: cannot write to it"),
        ],
    )
    def test_a_sink_that_cannot_be_written_is_refused_before_ray_starts(
        self, raysp_command, recipe, tmp_path, monkeypatch, place, message
    ):
        (tmp_path / "file").write_text("")
        monkeypatch.setattr("raysp.labelling.engine.running.is_cluster", lambda _: False)
        monkeypatch.setattr("raysp.cluster.connection.local_ray", lambda _: pytest.fail("Ray was started"))
        ran = raysp_command("run", recipe, "--json", "--set", f"sink.url={tmp_path / place}")
        self.refused(ran, message)

    def test_a_checkpoint_of_another_architecture(self, raysp_command, recipe, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
        (other / "config.json").write_text(json.dumps(config))
        for arguments in (("inspect", other), ("plan", recipe, "--set", f"steps.1.checkpoint={other}")):
            self.refused(raysp_command(*arguments), "bert")

    def test_a_clash_of_columns_in_the_file(self, raysp_command, tmp_path):
        text = RECIPE.replace("[raysp.Transcript()]", "[raysp.Transcript(), raysp.Transcript()]")
        path = write_recipe(tmp_path, text)
        self.refused(
            raysp_command("plan", path), "recipe_for_the_cli.py: Label: two columns would be named 'pred_text'"
        )

    def test_a_literal_secret_in_the_file(self, raysp_command, tmp_path):
        text = RECIPE.replace("{sink!r}", '{sink!r}, storage_options=dict(client=dict(password="' + SECRET + '"))')
        ran = raysp_command("plan", write_recipe(tmp_path, text))
        self.refused(ran, "storage_options['client']['password'] holds a literal secret; put it into an environment")
        assert SECRET not in ran.err

    @pytest.mark.parametrize("body", ["x = = 1", "1 / 0", "import no_such_module_at_all", "x = 1"])
    def test_a_file_that_does_not_run_or_makes_no_pipeline(self, raysp_command, tmp_path, body):
        path = tmp_path / "broken_recipe.py"
        path.write_text(body)
        self.refused(raysp_command("plan", path), "broken_recipe.py")

    def test_a_sink_of_another_pipeline(self, raysp_command, recipe):
        assert kit.run(["run", recipe]).code == 0
        ran = raysp_command("plan", recipe, "--set", "steps.1.overlap_seconds=2")
        self.refused(ran, "its labels were made by another pipeline: `steps.1.overlap_seconds` was 5.0, now 2.0")

    def test_an_error_as_json_leaves_stdout_empty(self, raysp_command, recipe):
        self.refused(raysp_command("plan", recipe, "--json", "--set", "source.id=key"), "has no column 'key'")


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:99999"])
def test_an_address_at_which_nothing_listens_is_refused_at_once(raysp_command, recipe, address, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # a Ray of other tests would be used as it is
    address = address.format(port=free_port())
    ran = raysp_command("run", recipe, "--address", address)
    assert (ran.code, ran.out) == (2, "")
    assert f"--address {address}: no cluster answers there (" in ran.err


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_the_sink_of_a_training_is_refused(raysp_command, recipe, tmp_path, verb):
    Sink(tmp_path / "model").train(range(1, 3))
    ran = raysp_command(verb, recipe, "--set", f"sink.url={tmp_path}/model")
    assert (ran.code, ran.out) == (2, "")
    assert f"{tmp_path}/model: the sink of a training; choose another folder for the labels" in ran.err
