"""Tasks by the classes of their specs."""

from raysp.training.objectives.objective_models import check_lora
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import CTC, Classify, Seq2Seq, Speakers
from raysp.training.tasks.class_task import ClassesTask
from raysp.training.tasks.ctc_task import CTCTask
from raysp.training.tasks.seq2seq_task import Seq2SeqTask
from raysp.training.tasks.speaker_task import SpeakersTask
from raysp.training.tasks.task import Task


def task_of(plan: TrainingPlan) -> Task:
    """Return the task of a recipe before its corpus is indexed.

    Raises:
        PlanError, CheckpointError: its vocabulary, tokenizer or LoRA cannot be used.
    """
    check_lora(plan)
    match plan.recipe.objective:
        case CTC() as objective:
            return CTCTask.of(objective, plan)
        case Seq2Seq() as objective:
            return Seq2SeqTask.of(objective, plan)
        case Classify() as objective:
            return ClassesTask.of(objective, plan)
        case Speakers() as objective:
            return SpeakersTask.of(objective, plan)
